#!/usr/bin/env bash
# opencv-python-headless 4.10.0.84: the colours of a transparent TIFF are multiplied by its alpha, those of a PNG are not.
#
# One RGBA picture, its left half transparent (alpha 0, the colours beneath are all there), is saved as PNG and as TIFF.
# Expected: cv2.imread(name, cv2.IMREAD_COLOR) drops the alpha and gives the same colours for both.
# Seen: the PNG has its colours everywhere; the transparent half of the TIFF is black.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q opencv-python-headless==4.10.0.84 pillow==13.0.0 "numpy<2"
cd "$work"
env/bin/python - <<'PY'
import cv2
import numpy as np
from PIL import Image

rgba = np.random.default_rng(0).integers(100, 255, (120, 160, 4), dtype=np.uint8)
rgba[..., 3] = 255
rgba[:, :80, 3] = 0
for name in ("a.png", "a.tif"):
    Image.fromarray(rgba).save(name)
darkest = {name: int(cv2.imread(name, cv2.IMREAD_COLOR)[:, :80].min()) for name in ("a.png", "a.tif")}
brightest = {name: int(cv2.imread(name, cv2.IMREAD_COLOR)[:, :80].max()) for name in ("a.png", "a.tif")}
print("transparent half, darkest value", darkest, "brightest", brightest)
assert darkest["a.png"] >= 100 and brightest["a.tif"] == 0, "no longer as described"
PY
