"""What was seen to move and is suddenly missing in the masks is found again by its looks, and nothing else is."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from segmotion_plugin.densify.carried import CarryOptions, carry, carry_on, raised
from segmotion_plugin.densify.options import DenseOptions
from segmotion_plugin.rawstore import RawStore
from segmotion_plugin.trackers.flow import FlowStore
from segmotion_plugin.tracks import Tracks

SIZE = (90, 160)
SIDE, SPEED, FRAMES = 16, 3, 40
_GREEN, _BLUE = (40, 190, 60), (40, 60, 200)


class _World:
    """A square crosses a grey textured wall; a post may hide it, and its colour may be the wall's."""

    def __init__(self, post: bool = False, painted: bool = True) -> None:
        rng = np.random.default_rng(3)
        coarse = rng.integers(90, 170, (SIZE[0] // 3, SIZE[1] // 3), dtype=np.uint8)
        grey = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
        self.wall = np.repeat(grey[..., None], 3, axis=2)
        shade = cv2.resize(rng.integers(0, 50, (6, 6), dtype=np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        self.square = np.clip(np.array(_GREEN) + shade[..., None], 0, 255).astype(np.uint8)
        if not painted:
            self.square = self.wall[:SIDE, :SIDE].copy()
        self.post, self.lost_flow = post, set[int]()

    def truth(self, frame: int) -> np.ndarray:
        mask = np.zeros(SIZE, bool)
        left = 20 + SPEED * frame
        mask[30 : 30 + SIDE, left : left + SIDE] = True
        if self.post:
            mask[:, 62:100] = False
        return mask

    def image(self, frame: int) -> np.ndarray:
        image, left = self.wall.copy(), 20 + SPEED * frame
        image[30 : 30 + SIDE, left : left + SIDE] = self.square
        if self.post:
            image[:, 62:100] = _BLUE
        return image

    def flow(self, first: int, second: int) -> np.ndarray:
        """Pixels at twice the size; what is lost between two frames seems to rest, as the wall does."""
        flow = np.zeros((*SIZE, 2), np.float32)
        if min(first, second) not in self.lost_flow:
            flow[self.truth(first), 0] = 2 * SPEED * (second - first)
        return flow

    def carried(self, missing: range, backward: bool = False, **options: float) -> dict[int, np.ndarray]:
        """Masks that are found when those of some frames are missing."""

        def mask(frame: int) -> np.ndarray:
            return np.zeros(SIZE, bool) if frame in missing else self.truth(frame)

        frames = list(range(FRAMES))
        chosen = CarryOptions(**options).scaled(SIZE[1] / 640) if options else CarryOptions()  # type: ignore[arg-type]
        out = {}
        for frame, box, soft in carry(mask, self.image, self.flow, frames[::-1] if backward else frames, chosen, DenseOptions()):
            whole = out.setdefault(frame, np.zeros(SIZE, bool))
            whole[box] |= soft > 127
        return out


def _overlap(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("backward", [False, True])
def test_a_gap_is_filled(backward: bool) -> None:
    world = _World()
    found = world.carried(range(10, 14), backward)
    assert sorted(found) == [10, 11, 12, 13]
    assert min(_overlap(found[frame], world.truth(frame)) for frame in found) > 0.9


def test_what_the_flow_loses_is_found_by_a_shift() -> None:
    world = _World()
    world.lost_flow = {9, 11}
    found = world.carried(range(10, 14))
    assert sorted(found) == [10, 11, 12, 13]
    assert min(_overlap(found[frame], world.truth(frame)) for frame in found) > 0.9


def test_masks_without_a_gap_stay_as_they_are() -> None:
    assert not _World().carried(range(0))


def test_what_comes_off_a_part_has_no_past() -> None:
    world = _World()
    half = world.truth

    def splits(frame: int) -> np.ndarray:
        """From frame 14 on the mask is in two pieces, of which the smaller one is missing from frame 18 on."""
        mask = half(frame)
        if frame >= 14:
            mask[41:43] = False
        if frame >= 18:
            mask[43:] = False
        return mask

    world.truth = splits  # type: ignore[method-assign]
    assert not world.carried(range(0))


def test_what_goes_behind_something_is_not_carried_onto_it() -> None:
    world = _World(post=True)
    hidden = [frame for frame in range(FRAMES) if not world.truth(frame).any()]
    found = world.carried(range(0))
    assert hidden and not set(hidden) & set(found)


def test_nothing_is_carried_for_longer_than_it_was_seen() -> None:
    assert sorted(_World().carried(range(9, FRAMES))) == list(range(9, 18))
    assert sorted(_World().carried(range(9, FRAMES), most=3)) == [9, 10, 11]
    assert not _World().carried(range(7, FRAMES))  # too seldom seen


def test_what_has_the_colours_of_its_surroundings_is_left() -> None:
    assert not _World(painted=False).carried(range(10, 14))


def test_a_clips_masks_are_completed_in_both_directions_and_within_shots(tmp_path) -> None:
    world = _World()
    height, width = SIZE
    flow, soft = FlowStore(tmp_path / "flow", 2 * width, 2 * height), RawStore(tmp_path / "soft", SIZE, np.uint8)
    for frame in range(FRAMES):
        soft[frame] = np.where(8 <= frame < 26, 255 * world.truth(frame), 0)
        ahead, back = (cv2.resize(world.flow(*way), (2 * width, 2 * height)) for way in ((frame, frame + 1), (frame + 1, frame)))
        flow.write(frame, ahead, back)
    frames = [cv2.resize(world.image(frame), (2 * width, 2 * height)) for frame in range(FRAMES)]
    # Every other frame is wanted: flows are joined. A cut lies before frame 30.
    clip = SimpleNamespace(frames=frames, shots=[(0, 30), (30, FRAMES)], selected=np.arange(0, FRAMES, 2))
    found = carry_on(clip, flow, soft)  # type: ignore[arg-type]
    assert {part.frame for part in found} == {0, 2, 4, 6, 26, 28}
    assert all(_overlap(soft[frame] > 127, world.truth(frame)) > 0.8 for frame in (0, 2, 4, 6, 8, 26, 28))
    assert not soft[30].any() and not soft[7].any()

    # A track on the square that nothing was known of counts as moving, one on the wall does not.
    on = np.array([[2.0 * (20 + SPEED * frame) + 15, 75.0] for frame in range(4, 8)], np.float32)
    off = np.tile(np.array([[300.0, 160.0]], np.float32), (4, 1))
    first, offset = np.array([4, 4]), np.array([0, 4, 8])
    tracks = Tracks(first, offset, np.concatenate([on, off]), np.ones(8, bool), np.ones(8), first, FRAMES)
    every = [part._replace(frame=frame) for part in found for frame in (part.frame, part.frame + 1)]
    assert raised(tracks, np.array([0.01, 0.01]), every).tolist() == [0.5, 0.01]
    assert raised(tracks, np.array([0.9, 0.9]), every).tolist() == [0.9, 0.9]
