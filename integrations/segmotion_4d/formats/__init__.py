"""The export formats, one small file each."""

from __future__ import annotations

from segmotion_4d.formats import (
    colmap,
    davis,
    deformable_3dgs,
    dycheck,
    four_d_gaussians,
    mattes,
    monst3r,
    nerfstudio,
    shape_of_motion,
    splats,
    tapip3d,
    tum,
)
from segmotion_4d.spec import Format

FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        colmap.ORIGINAL,
        colmap.UNDISTORTED,
        *splats.FORMATS,
        nerfstudio.FORMAT,
        shape_of_motion.FORMAT,
        tapip3d.FORMAT,
        four_d_gaussians.FORMAT,
        deformable_3dgs.FORMAT,
        dycheck.FORMAT,
        monst3r.FORMAT,
        davis.FORMAT,
        mattes.FORMAT,
        tum.FORMAT,
    )
}
