"""A stand-in for the hub entries of facebookresearch/co-tracker: the same calls, a tracker that follows a shift of the whole image.

The shift of every frame against the one a point was asked on is read off the peak of their cross-correlation, so frames in the wrong
order, at the wrong place or with wrong coordinates show.
"""

import torch


class _Features(torch.nn.Conv2d):
    calls = 0

    def forward(self, images):
        self.calls += 1
        return super().forward(images)


class _Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fnet = _Features(3, 2, 1)


def _shift(reference, image):
    spectrum = torch.fft.rfft2(image) * torch.fft.rfft2(reference).conj()
    peak = torch.fft.irfft2(spectrum / (spectrum.abs() + 1e-6), s=image.shape[-2:]).sum(0)
    height, width = peak.shape
    row, column = divmod(int(peak.argmax()), width)
    return torch.tensor([(column + width // 2) % width - width // 2, (row + height // 2) % height - height // 2])


class Offline(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = _Model()

    def forward(self, video, queries=None, segm_mask=None, grid_size=0, grid_query_frame=0, backward_tracking=False):
        assert video.ndim == 5 and video.shape[0] == 1 and video.shape[2] == 3 and video.dtype == torch.float32
        assert video.max() > 1.5 and queries.shape[2] == 3
        features = self.model.fnet(video[0])
        length, count = video.shape[1], queries.shape[1]
        tracks = torch.zeros(1, length, count, 2)
        for frame in queries[0, :, 0].unique().long().tolist():
            moved = torch.stack([_shift(features[frame], features[t]) for t in range(length)]).float()
            here = queries[0, :, 0].long() == frame
            tracks[0, :, here] = moved[:, None] + queries[0, here, 1:][None]
        height, width = video.shape[3:]
        x, y = tracks.unbind(-1)
        return tracks, (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)


class Online(Offline):
    step = 4

    def forward(self, video_chunk, is_first_step=False, queries=None, grid_size=5, grid_query_frame=0, add_support_grid=False):
        assert video_chunk.shape[1] <= 2 * self.step
        if is_first_step:
            self.queries, self.video = queries, None
            return None, None
        known = 0 if self.video is None else self.video.shape[1] - self.step
        self.video = video_chunk if known == 0 else torch.cat([self.video[:, :known], video_chunk], dim=1)
        late = self.queries[..., 0] >= self.video.shape[1]
        asked = torch.where(late[..., None], torch.zeros_like(self.queries), self.queries)
        return super().forward(self.video, queries=asked)


def cotracker3_offline(*, pretrained: bool = True, **kwargs):
    assert not pretrained, "the weights are to be loaded by the caller"
    return Offline()


def cotracker3_online(*, pretrained: bool = True, **kwargs):
    assert not pretrained, "the weights are to be loaded by the caller"
    return Online()
