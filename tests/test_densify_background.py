"""Other frames show the still world behind a mover: what looks like it rests, shaded or not."""

from __future__ import annotations

import cv2
import numpy as np

from segmotion_plugin.densify.background import Background, BackgroundOptions

SIZE = (120, 200)
SHIFT = 4  # pixels at half size that the mover goes per frame
PAN = 1  # and the whole picture
MIDDLE = 12
_RED = np.array([200.0, 40.0, 40.0])


class _Clip:
    """A red square crosses a textured wall, with a patch at its right side that looks like the wall in another light."""

    def __init__(self, light: tuple[float, float, float], frames: int = 25) -> None:
        noise = np.random.default_rng(0).integers(60, 220, (SIZE[0] // 4, SIZE[1] // 2, 3), dtype=np.uint8)
        self.wall = cv2.resize(noise, (2 * SIZE[1], SIZE[0]), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        self.frames = frames
        self.light = np.array(light)
        y, x = np.meshgrid(np.arange(5, 2 * SIZE[0], 10.0), np.arange(5, 2 * SIZE[1], 10.0), indexing="ij")
        self.grid = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)

    def places(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """h×w bool: the square and the patch beside it."""
        square, patch = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
        left = 85 + SHIFT * (frame - MIDDLE)
        square[40:80, max(left, 0) : max(left + 20, 0)] = True
        patch[40:80, max(left + 20, 0) : max(left + 28, 0)] = True
        return square, patch

    def colours(self, frame: int) -> np.ndarray:
        square, patch = self.places(frame)
        image = self.wall[:, PAN * frame : PAN * frame + SIZE[1]].copy()
        image[patch] *= self.light
        image[square] = _RED
        return np.clip(image, 0, 255).astype(np.uint8)

    def image(self, frame: int) -> np.ndarray:
        return cv2.GaussianBlur(cv2.cvtColor(self.colours(frame), cv2.COLOR_RGB2LAB), (3, 3), 0)

    def at(self, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Still tracks on the wall, and one in the middle of the square."""
        wall = self.grid - [2.0 * PAN * frame, 0]
        left = 85 + SHIFT * (frame - MIDDLE)
        square, patch = self.places(frame)
        column, row = np.clip((wall[:, 0] / 2).astype(int), 0, SIZE[1] - 1), (wall[:, 1] / 2).astype(int)
        open_ = (wall[:, 0] > 0) & ~(square | patch)[row, column]
        ids = np.append(np.flatnonzero(open_), len(self.grid))
        xy = np.concatenate([wall[open_], [[2.0 * left + 20, 120.0]]]).astype(np.float32)
        return ids, xy, np.append(np.zeros(open_.sum()), 1.0).astype(np.float32)

    def judge(self, options: BackgroundOptions | None = None, shot: tuple[int, int] | None = None) -> np.ndarray:
        background = Background(self.colours, self.image, self.at, shot or (0, self.frames), options or BackgroundOptions())
        return background(MIDDLE, (slice(0, SIZE[0]), slice(0, SIZE[1])))


def test_what_other_frames_show_rests_and_the_rest_does_not() -> None:
    clip = _Clip((1.0, 1.0, 1.0))
    odds = clip.judge()
    square, beside = clip.places(MIDDLE)
    assert (odds[square] == BackgroundOptions().most_other).mean() > 0.85
    assert np.median(odds[beside]) < -0.5
    assert odds.min() >= -BackgroundOptions().most_still


def test_shade_counts_as_ground_but_colour_does_not() -> None:
    shade, tint = _Clip((0.55, 0.55, 0.55)), _Clip((0.75, 0.55, 0.35))
    _, patch = shade.places(MIDDLE)
    assert np.median(shade.judge()[patch]) < np.median(tint.judge()[patch]) - 0.5
    unshaded = BackgroundOptions(shaded=0.0)
    assert np.median(shade.judge(unshaded)[patch]) > np.median(shade.judge()[patch]) + 0.5


def test_without_other_frames_or_tracks_nothing_is_told() -> None:
    clip = _Clip((1.0, 1.0, 1.0))
    assert not clip.judge(shot=(MIDDLE, MIDDLE + 1)).any()
    clip.grid = clip.grid[:20]
    assert not clip.judge().any()


def test_a_box_gets_what_the_whole_picture_gets() -> None:
    clip = _Clip((0.6, 0.6, 0.6))
    # With factor 0 the level does not depend on the still pixels of the box.
    background = Background(clip.colours, clip.image, clip.at, (0, clip.frames), BackgroundOptions(factor=0.0))
    whole = background(MIDDLE, (slice(0, SIZE[0]), slice(0, SIZE[1])))
    part = background(MIDDLE, (slice(10, 110), slice(20, 180)))
    np.testing.assert_allclose(part[3:-3, 3:-3], whole[13:107, 23:177], atol=1e-4)
