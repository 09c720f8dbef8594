#!/usr/bin/env bash
# pycolmap 4.2.1: masks of half the size, and 16-bit masks of low values, are taken without a word and mean something else.
#
# COLMAP's documentation: no features where the mask is black (0). A 160×120 picture full of texture is extracted four times.
# Expected: with a mask that is nonzero everywhere, features everywhere; a mask of another size is refused or scaled.
# Seen: white 8-bit mask: features everywhere. White mask of 80×60: features in the upper left quarter only. 16-bit mask whose value is
# 128 everywhere: no feature at all (values are divided by 257 and rounded first); 129 everywhere: all of them.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q pycolmap==4.2.1 opencv-python-headless==4.10.0.84 "numpy<2"
cd "$work"
env/bin/python - <<'PY'
import pathlib

import cv2
import numpy as np
import pycolmap

pycolmap.logging.minloglevel = 2
coarse = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
picture = cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_LINEAR)
masks = {
    "8 bits, 160×120": np.full((120, 160), 255, np.uint8),
    "8 bits, 80×60": np.full((60, 80), 255, np.uint8),
    "16 bits, 128": np.full((120, 160), 128, np.uint16),
    "16 bits, 129": np.full((120, 160), 129, np.uint16),
}
places = {}
for number, (name, mask) in enumerate(masks.items()):
    root = pathlib.Path(str(number))
    for folder, file, image in (("images", "a.png", picture), ("masks", "a.png.png", mask)):
        (root / folder).mkdir(parents=True)
        cv2.imwrite(str(root / folder / file), image)
    reader = pycolmap.ImageReaderOptions()
    reader.mask_path = root / "masks"
    options = pycolmap.FeatureExtractionOptions(use_gpu=False, num_threads=1)
    pycolmap.extract_features(
        root / "a.db", root / "images", reader_options=reader, extraction_options=options, device=pycolmap.Device.cpu
    )
    with pycolmap.Database.open(root / "a.db") as database:
        (image,) = database.read_all_images()
        places[name] = np.asarray(database.read_keypoints(image.image_id)).reshape(-1, 6)[:, :2]
    print(name, len(places[name]), "features", "up to", places[name].max(0).round().tolist() if len(places[name]) else None)
whole = len(places["8 bits, 160×120"])
assert whole > 200 and len(places["16 bits, 129"]) == whole, "no longer as described"
assert len(places["16 bits, 128"]) == 0, "no longer as described"
half = places["8 bits, 80×60"]
assert 0 < len(half) < whole / 2 and (half.max(0) < [80, 60]).all(), "no longer as described"
PY
