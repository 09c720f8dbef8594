"""The commands of the main job, as dataclasses that tyro reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from segmotion_plugin import pipeline
from segmotion_plugin.settings import MaskSettings, ReconstructSettings


@dataclass
class Run:
    """Find what moves, mask it, and reconstruct the cameras from the rest."""

    input: tyro.conf.Positional[Path]
    """A video file or a folder of images."""
    out: tyro.conf.Positional[Path]
    """Folder of the results (new, empty, or of an earlier run that goes on)."""
    mask: Annotated[MaskSettings, tyro.conf.arg(name="")] = field(default_factory=MaskSettings)
    sfm: Annotated[ReconstructSettings, tyro.conf.arg(name="")] = field(default_factory=ReconstructSettings)

    def main(self) -> int:
        """Run it."""
        pipeline.run(self.input, self.out, self.mask, self.sfm)
        return 0


@dataclass
class Masks:
    """Find what moves and mask it; no reconstruction."""

    input: tyro.conf.Positional[Path]
    """A video file or a folder of images."""
    out: tyro.conf.Positional[Path]
    """Folder of the results (new, empty, or of an earlier run that goes on)."""
    mask: Annotated[MaskSettings, tyro.conf.arg(name="")] = field(default_factory=MaskSettings)

    def main(self) -> int:
        """Run it."""
        pipeline.masks(self.input, self.out, self.mask)
        return 0


@dataclass
class Reconstruct:
    """Reconstruct the cameras of a folder that has masks."""

    out: tyro.conf.Positional[Path]
    """Folder made by 'segmotion masks' or 'segmotion run'."""
    sfm: Annotated[ReconstructSettings, tyro.conf.arg(name="")] = field(default_factory=ReconstructSettings)
    extra_masks: Path | None = None
    """Folder of your own masks (0 = leave out), combined with ours."""
    dilate: float | None = None
    """Pixels by which masks are grown around what moves; as they are by default."""
    unmasked: bool = False
    """Leave the masks out (for comparison)."""
    quiet: bool = False
    """No progress bars."""

    def main(self) -> int:
        """Run it."""
        pipeline.reconstruct(
            self.out, self.sfm, extra_masks=self.extra_masks, dilate=self.dilate, unmasked=self.unmasked, quiet=self.quiet
        )
        return 0
