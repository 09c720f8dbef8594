#!/usr/bin/env bash
# pycolmap 4.2.1: undistort_camera and undistort_images disagree about cameras whose distortion is 0.
#
# A model holds a 160×120 camera OPENCV with all terms 0, and one OPENCV_FISHEYE with all terms 0, with a picture each.
# Expected: the pictures that undistort_images writes have the size of the camera that undistort_camera computes (same, default options).
# Seen: undistort_camera gives 159×119 and 187×129; undistort_images copies both pictures at 160×120, the fisheye with its curved lines,
# and keeps their cameras in the model it writes. With a first term of .01 the two functions agree.
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
sizes = {}
for model in ("OPENCV", "OPENCV_FISHEYE"):
    for term in (0.0, 0.01):
        root = pathlib.Path(f"{model}_{term}")
        (root / "images").mkdir(parents=True)
        (root / "sparse").mkdir()
        cv2.imwrite(str(root / "images" / "a.png"), np.full((120, 160, 3), 200, np.uint8))
        params = [120.0, 120.0, 80.0, 60.0, term, 0.0, 0.0, 0.0]
        camera = pycolmap.Camera(model=model, width=160, height=120, params=params, camera_id=1)
        scene = pycolmap.Reconstruction()
        scene.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(name="a.png", keypoints=np.zeros((0, 2)), camera_id=1, image_id=1)
        scene.add_image_with_trivial_frame(image, pycolmap.Rigid3d())
        scene.write(root / "sparse")
        pycolmap.undistort_images(root / "out", root / "sparse", root / "images")
        computed = pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), camera)
        written = cv2.imread(str(root / "out" / "images" / "a.png")).shape[1::-1]
        kept = pycolmap.Reconstruction(root / "out" / "sparse").cameras[1].model.name
        sizes[model, term] = (computed.width, computed.height), tuple(written), kept
        print(model, term, "undistort_camera", sizes[model, term][0], "undistort_images", written, "camera written", kept)
assert sizes["OPENCV", 0.0] == ((159, 119), (160, 120), "OPENCV"), "no longer as described"
assert sizes["OPENCV_FISHEYE", 0.0] == ((187, 129), (160, 120), "OPENCV_FISHEYE"), "no longer as described"
assert all(sizes[model, 0.01][0] == sizes[model, 0.01][1] for model in ("OPENCV", "OPENCV_FISHEYE")), "no longer as described"
PY
