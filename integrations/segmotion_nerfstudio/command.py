"""`segmotion nerfstudio`: the stock command name, and masks for finished datasets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from segmotion_nerfstudio import shim
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.settings import MaskSettings


@dataclass
class Enable:
    """Let `ns-process-data` know --motion-mask. Everything else of it stays as it is; `disable` restores it byte for byte."""

    script: Path | None = None
    """The console script; by default that of the nerfstudio in this environment."""

    def main(self) -> int:
        """Run it."""
        version = shim.nerfstudio_version()
        if version is not None and version.split("+")[0] != shim.SUPPORTED:
            raise SegmotionError(
                f"nerfstudio {version} is installed, and {shim.SUPPORTED} is what can be extended; nothing was changed.\n"
                "Use 'segmotion nerfstudio add-masks DATASET --rerun-sfm' after ns-process-data."
            )
        script = self.script or shim.console_script()
        if shim.enable(script):
            print(f"{script} now knows --motion-mask; 'segmotion nerfstudio disable' restores it")
        else:
            print(f"{script} knows --motion-mask already")
        return 0


@dataclass
class Disable:
    """Put nerfstudio's own `ns-process-data` back, byte for byte."""

    script: Path | None = None
    """The console script; by default that of the nerfstudio in this environment."""

    def main(self) -> int:
        """Run it."""
        script = self.script or shim.console_script()
        print(f"{script} is nerfstudio's own " + ("again" if shim.disable(script) else "already"))
        return 0


@dataclass
class Status:
    """Tell whether `ns-process-data` knows --motion-mask. Exit status 1 where it does not."""

    script: Path | None = None
    """The console script; by default that of the nerfstudio in this environment."""

    def main(self) -> int:
        """Run it."""
        version = shim.nerfstudio_version()
        print(f"nerfstudio: {version or 'not installed'} (extended is {shim.SUPPORTED})")
        script = self.script or shim.console_script()
        enabled = shim.original(script) is not None
        print(f"{script}: {'knows --motion-mask' if enabled else 'as nerfstudio made it'}")
        print("ns-process-data-motion does the same under its own name")
        return 0 if enabled else 1


@dataclass
class AddMasks:
    """Motion masks for a finished nerfstudio dataset: polycam, record3d, metashape, realitycapture, or made by hand."""

    dataset: tyro.conf.Positional[Path]
    """Folder with transforms.json, or that file."""
    rerun_sfm: bool = False
    """Find the cameras anew with pycolmap on what the masks leave; the old poses are kept in transforms.before.json."""
    order: Literal["auto", "sequence", "unordered"] = "auto"
    """Whether the images of a folder follow each other in time; auto looks whether neighbours show the same picture moved a little."""
    overwrite: bool = False
    """Replace the mask_path that frames have of other masks (mask files that are not ours are never replaced)."""
    mask: Annotated[MaskSettings, tyro.conf.arg(name="")] = field(default_factory=MaskSettings)

    def main(self) -> int:
        """Run it."""
        from segmotion_nerfstudio.add_masks import add_masks

        done = add_masks(self.dataset, self.mask, order=self.order, rerun_sfm=self.rerun_sfm, overwrite=self.overwrite)
        for warning in done["warnings"]:
            print(f"warning: {warning}")
        print(f"{done['images']} masks, {100 * done['masked_share']:.1f} % of the pixels masked; every frame has its mask_path")
        if "reconstruction" in done:
            figures = done["reconstruction"]
            print(f"cameras of {figures['images_registered']} of {figures['images_total']} images found anew")
        print(f"next: ns-train segmotion-nerfacto --data {self.dataset}")
        return 0


Command = (
    Annotated[Enable, tyro.conf.subcommand("enable")]
    | Annotated[Disable, tyro.conf.subcommand("disable")]
    | Annotated[Status, tyro.conf.subcommand("status")]
    | Annotated[AddMasks, tyro.conf.subcommand("add-masks")]
)
