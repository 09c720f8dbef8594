#!/usr/bin/env bash
# opencv-python-headless 4.10.0.84, pillow 13.0.0: a TIFF with an orientation tag is turned even when the caller asks for it as stored.
#
# The same 160×120 picture is saved as JPEG and as TIFF, both with orientation 6 ("turn by a quarter to see it upright").
# Expected: cv2.IMREAD_IGNORE_ORIENTATION and cv2.IMREAD_UNCHANGED give the stored pixels, 120 rows of 160, for both.
# Seen: for the JPEG 120 rows of 160; for the TIFF 160 rows of 120, with either flag. Pillow's Image.open, which leaves the JPEG as
# stored, turns the TIFF as well.
# Why it matters: COLMAP reads the stored pixels of both, so masks made through OpenCV or Pillow lie across its TIFFs.
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

picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8))
exif = Image.Exif()
exif[274] = 6
picture.save("a.jpg", exif=exif)
picture.save("a.tif", exif=exif)
seen = {}
for name in ("a.jpg", "a.tif"):
    seen[name, "OpenCV, ignore orientation"] = cv2.imread(name, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION).shape[:2]
    seen[name, "OpenCV, unchanged"] = cv2.imread(name, cv2.IMREAD_UNCHANGED).shape[:2]
    seen[name, "Pillow"] = np.array(Image.open(name)).shape[:2]
for what, shape in seen.items():
    print(*what, shape)
assert all(shape == ((120, 160) if name == "a.jpg" else (160, 120)) for (name, _), shape in seen.items()), "no longer as described"
PY
