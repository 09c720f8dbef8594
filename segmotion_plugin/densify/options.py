"""Constants of the densifier."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from segmotion_plugin.densify.background import BackgroundOptions
from segmotion_plugin.densify.colours import ColourOptions


@dataclass(frozen=True)
class DenseOptions:
    """Constants of the densifier, chosen on DAVIS training sequences and rendered scenes."""

    sharpness: float = 3.0
    """Factor of the tracks' log odds: a label that is more probable than not counts almost fully."""
    samples_per_frame: int = 800
    """Track points per frame that the appearance model learns from."""
    pixels_per_frame: int = 400
    """Pixels per frame, where the picture tells what explains it, that it learns from as well."""
    pixel_weight: float = 1.0
    """Weight of such a pixel, in tracks."""
    ridge: float = 3.0
    """Penalty of the whole clip's model, in samples."""
    local_ridge: float = 2.0
    """Pull of a frame's model towards the whole clip's."""
    local_frames: int = 4
    """Frames to both sides that a frame's model learns from."""
    appearance: float = 1.0
    """Weight of the appearance logit."""
    limit: float = 4.0
    """Largest absolute appearance logit."""
    tracks: float = 2.0
    """Weight of the tracks' own labels around their points."""
    reach: float = 4.0
    """Standard deviation of that neighbourhood, pixels at half size."""
    border: float = 6.0
    """Price of a border between pixels of one colour, where the longer side has 640 pixels at half size."""
    halo: float = 0.1
    """Weight of moving tracks in the halo: there flow drags background along."""
    told: float = 2.0
    """Grey levels by which the static world must explain a pixel worse than the flow to prove that it moves."""
    apart: float = 1.5
    """Pixels by which the two explanations must differ to be told apart."""
    closing: int = 12
    """Radius over which proof is closed, pixels at half size: what it encloses is the inside of an object."""
    halo_width: float = 8.0
    """Widest halo, pixels at half size."""
    alike: float = 15.0
    """Colour distance (8-bit CIELAB) up to which a plain rim continues the still background beside it."""
    proof: float = 1.0
    """Weight of proof in a pixel's evidence."""
    against: float = 0.5
    """Weight of lying in the halo, against motion."""
    memory: int = 2
    """Frames before and after whose evidence is carried along by the flow."""
    fade: float = 0.8
    """Weight of a frame's evidence per frame of distance."""
    steps: int = 40
    """Steps of the cut's solver."""
    background: BackgroundOptions = field(default_factory=BackgroundOptions)
    """Of what the still world looks like."""
    colours: ColourOptions = field(default_factory=ColourOptions)
    """Of the second drawing."""

    def scaled(self, unit: float) -> DenseOptions:
        """The same balance of areas and borders where the longer side has `unit` times 640 pixels; of tiny images, as at 0.7."""
        unit = max(unit, 0.7)
        return replace(self, border=unit * self.border, colours=self.colours.scaled(unit))
