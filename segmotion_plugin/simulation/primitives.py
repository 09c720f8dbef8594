"""What simulated worlds are made of: canonical shapes with size, pose, surface and kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segmotion_plugin.simulation import geometry as geo
from segmotion_plugin.simulation.shapes import Shape
from segmotion_plugin.simulation.textures import Texture

CLASSES = (
    "sky",
    "ground",
    "wall",
    "building",
    "foliage",
    "pole",
    "furniture",
    "water",
    "smoke",
    "screen",
    "sign",
    "rock",
    "car",
    "truck",
    "person",
    "quadruped",
    "bird",
    "ball",
    "creature",
    "crate",
    "drone",
    "bicycle",
    "boat",
)
STUFF = 255
"""Label of pixels on what moves without being an object."""
CLASS_ID = {name: number for number, name in enumerate(CLASSES)}


@dataclass(frozen=True)
class Ripple:
    """Small incoherent motion of a surface's material along itself: waves of water, smoke, a playing screen.

    Attributes:
        amplitude: Displacement in metres (deviation of the sum of waves, about).
        wavelength: Metres.
        speed: Radians per frame.
        seed: Chooses directions and phases.
    """

    amplitude: float
    wavelength: float
    speed: float
    seed: int = 0

    def displacement(self, position: NDArray[np.floating], frame: float | NDArray[np.floating]) -> NDArray[np.floating]:
        """Displacements (... x 3, metres) of material at rest positions (... x 3, metres) at a frame."""
        rng = np.random.default_rng(self.seed)
        out = np.zeros(np.broadcast_shapes(position.shape, (*np.shape(frame), 3)), np.float32)
        for _ in range(4):
            wave = geo.unit(rng.normal(size=3)) * 2 * np.pi / self.wavelength * rng.uniform(0.6, 1.8)
            toward = geo.unit(rng.normal(size=3)) * self.amplitude / np.sqrt(2)
            turn = self.speed * rng.uniform(0.5, 1.5) * np.asarray(frame) + rng.uniform(0, 2 * np.pi)
            out += (np.sin(position @ wave + turn)[..., None] * toward).astype(np.float32)
        return out


@dataclass(frozen=True)
class Primitive:
    """One canonical shape with its size, pose and surface.

    Attributes:
        shape: The canonical shape.
        size: Half sizes in metres along its own axes (1 where unbounded or flat).
        pose: Rigid world_from_primitive, 3 x 4 or T x 3 x 4.
        texture: Surface description.
        class_id: Kind of thing, index into :data:`CLASSES`; movers and their parked twins share it.
        object_id: 0 for the static world, otherwise the number of the mover.
        stretch: Scale of the sizes over time (T x 3) for deforming bodies; none keeps the shape.
        ripple: Small incoherent motion along the surface; never counts as an object's motion.
        stuff: Water that flows, spray: it moves and yet is no object. It has the label :data:`STUFF` and no object id.
        incoherent: The whole primitive sways incoherently (leaves in the wind); implied by a ripple.
    """

    shape: Shape
    size: tuple[float, float, float]
    pose: NDArray[np.floating]
    texture: Texture
    class_id: int
    object_id: int = 0
    stretch: NDArray[np.floating] | None = None
    ripple: Ripple | None = None
    incoherent: bool = False
    stuff: bool = False

    def maps(self, num_frames: int) -> NDArray[np.floating]:
        """``world_from_local`` of the canonical shape for every frame, T x 3 x 4."""
        scale = np.asarray(self.size, float)
        out = np.array(np.broadcast_to(self.pose, (num_frames, 3, 4)), float)
        out[:, :, :3] *= (scale if self.stretch is None else scale * self.stretch[:, :])[..., None, :]
        return out


def on_surface(shape: Shape, local: NDArray[np.floating]) -> NDArray[np.floating]:
    """Local points near a surface (... x 3), put back onto it where the shape is a sphere or flat."""
    if shape == Shape.ELLIPSOID:
        return geo.unit(local)
    if shape in (Shape.PLANE, Shape.RECTANGLE):
        local = local.copy()
        local[..., 2] = 0
    return local


def rippled(
    primitive: Primitive, rest: NDArray[np.floating], frame: float | NDArray[np.floating]
) -> NDArray[np.floating]:
    """Where material at rest coordinates (... x 3, local) of a rippling primitive is at a frame."""
    if primitive.ripple is None:
        return rest
    size = np.asarray(primitive.size, np.float32)
    return on_surface(primitive.shape, rest + primitive.ripple.displacement(rest * size, frame) / size)


def material(primitive: Primitive, local: NDArray[np.floating], frame: float) -> NDArray[np.floating]:
    """Rest coordinates of the material that is at local coordinates (... x 3) at a frame; inverts :func:`rippled`."""
    if primitive.ripple is None:
        return local
    rest = local
    for _ in range(8):  # fixed point; converges while the ripple's slope stays below one
        rest = on_surface(primitive.shape, rest + local - rippled(primitive, rest, frame))
    return rest
