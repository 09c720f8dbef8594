"""What every named scene starts from, and how its distances are tuned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segmotion_plugin.simulation import surroundings
from segmotion_plugin.simulation.paths import aim, hand_shake
from segmotion_plugin.simulation.primitives import Primitive
from segmotion_plugin.simulation.world import Effects, Look, World

Array = NDArray[np.floating]
_FASTEST = 0.02  # camera travel per frame, as a share of the distance to the action


@dataclass
class Stage:
    """What every scene starts from; one clip of it, with one source of randomness."""

    rng: np.random.Generator
    seed: int
    num_frames: int
    width: int
    height: int
    focal: float
    fps: float = 24.0

    @property
    def progress(self) -> Array:
        """-1/2 to 1/2 over the clip, T."""
        return np.linspace(-0.5, 0.5, self.num_frames) if self.num_frames > 1 else np.zeros(1)

    def view_width(self, distance: float) -> float:
        """Metres that the picture spans at a distance."""
        return distance * self.width / self.focal

    def step(self, metres_per_second: float, at_most: float) -> float:
        """Metres per frame of a speed, lowered where the clip would cover more than ``at_most`` metres."""
        return min(metres_per_second / self.fps, at_most / max(self.num_frames, 1))

    def side(self) -> float:
        """Left or right: -1 or 1."""
        return float(self.rng.choice([-1.0, 1.0]))

    def hand_held(self, start: Array, target: Array, shake: float = 0.03) -> Array:
        """Camera poses along given positions (T x 3), aimed at targets (T x 3 or 3), with shaking hands."""
        sway, turn = hand_shake(self.rng, self.num_frames, shake, 0.012, self.fps)
        return aim(start + sway, np.broadcast_to(target, (self.num_frames, 3)), turn)

    def dolly(self, distance: float, travel: float, height: float = 1.6, forward: float = 0.15) -> Array:
        """Camera positions (T x 3) that pass the origin sideways (to the left when negative) and approach a little."""
        # Short clips cover less, at a speed that people walk and that optical flow can follow.
        travel = float(np.clip(travel, -_FASTEST * distance * self.num_frames, _FASTEST * distance * self.num_frames))
        t = self.progress
        ahead = abs(travel) * t
        return np.stack([travel * t, -distance + forward * ahead, height + 0.08 * ahead], axis=1)

    def world(self, primitives: list[Primitive], cameras: Array) -> World:
        """Puts it together under random light."""
        rng = self.rng
        sun = (rng.uniform(-0.8, 0.8), rng.uniform(-0.9, -0.1), rng.uniform(0.5, 1.0))
        look = Look(sun=sun, ambient=rng.uniform(0.4, 0.6), clouds=rng.uniform(0.2, 0.9), seed=int(rng.integers(2**31)))
        effects = Effects(noise=rng.uniform(0.8, 2.0), exposure=rng.uniform(0, 0.02), seed=int(rng.integers(2**31)))
        return World(primitives, cameras, self.width, self.height, self.focal, self.fps, look, effects)


def corridor(*boxes: tuple[float, float, float, float]) -> surroundings.Clear:
    """Places (x0, y0, x1, y1) that must stay free."""

    def clear(place: Array) -> bool:
        return any(x0 <= place[0] <= x1 and y0 <= place[1] <= y1 for x0, y0, x1, y1 in boxes)

    return clear


def share_of(world: World, columns: int = 48, rows: int = 27, frames: int = 5) -> Array:
    """Mean share of the picture that each object 1..K covers, from rays through a coarse grid."""
    x, y = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
    xy = np.stack([x.ravel() * world.width, y.ravel() * world.height], axis=1)
    counts = np.zeros(world.num_objects + 1)
    chosen = np.unique(np.linspace(0, world.num_frames - 1, frames).round().astype(int))
    for frame in chosen:
        counts += np.bincount(world.raycast(int(frame), xy).object_id, minlength=len(counts))
    return counts[1:] / (len(xy) * len(chosen))


def calibrated(make: Callable[[float], World], near: float, far: float, share: float) -> World:
    """The world whose movers cover the wanted share of the picture; bisects the distance that ``make`` takes."""
    world = make(far)
    for _ in range(9):
        middle = np.sqrt(near * far)
        world = make(middle)
        covered = share_of(world).sum()
        if abs(covered - share) < 0.03 * share:
            break
        near, far = (middle, far) if covered > share else (near, middle)
    return world


def recipe(stage: Stage, make: Callable[[Stage, float], World]) -> Callable[[float], World]:
    """``make`` with the same randomness at every distance."""
    state = stage.rng.bit_generator.state

    def build_at(distance: float) -> World:
        stage.rng.bit_generator.state = state
        return make(stage, distance)

    return build_at
