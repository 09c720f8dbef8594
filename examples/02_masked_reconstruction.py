"""Cameras of the static world, undisturbed by what moves, and the same without masks for comparison.

python examples/02_masked_reconstruction.py my_video.mp4 OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

from segmotion_plugin import pipeline
from segmotion_plugin.settings import MaskSettings


def main(source: Path, out: Path) -> None:
    for name, settings in (("masked", MaskSettings()), ("unmasked", MaskSettings(masks="none"))):
        reconstruction = pipeline.run(source, out / name, settings)["reconstruction"]
        if reconstruction["status"] == "ok":
            print(
                f"{name}: {reconstruction['images_registered']} of {reconstruction['images_total']} images, "
                f"{reconstruction['reprojection_error']:.2f} px, {reconstruction['points']} points"
            )
        else:
            print(f"{name}: {reconstruction['reason']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
