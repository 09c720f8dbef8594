"""A processed clip as Shape-of-Motion loads it: undistorted pictures, masks, disparity, tracks and cameras.

segmotion run my_video.mp4 OUT --preset foundation
python examples/06_export_shape_of_motion.py OUT DEST

Then, in a checkout of Shape-of-Motion:
python run_training.py --work-dir WORK data:custom --data.root-dir DEST --data.seq-name OUT

Where the clip has no depth (the builtin preset makes none), the formats that need none are written instead.
"""

from __future__ import annotations

import sys
from pathlib import Path

from segmotion_4d import FORMATS, export

from segmotion_plugin.errors import SegmotionError


def main(out: Path, dest: Path) -> None:
    try:
        notes = export(out, "shape-of-motion", dest)
    except SegmotionError as error:
        print(error)
        notes = export(out, "4dgaussians", dest)
        print(f"instead, {dest} is for {FORMATS['4dgaussians'].loader}")
    else:
        print(f"{dest}: masks are {FORMATS['shape-of-motion'].polarity}")
    for note in notes:
        print(f"note: {note}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
