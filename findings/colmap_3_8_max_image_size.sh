#!/usr/bin/env bash
# COLMAP 3.8 (Debian 12, `apt-get install colmap`): image_undistorter --max_image_size writes cameras that do not fit its pictures.
#
# A model with one 160×120 camera PINHOLE (nothing to undistort) goes through image_undistorter --max_image_size 100.
# Expected: picture and camera of one size, as pycolmap 4.2.1 writes them (100×75, focal length 75).
# Seen: the picture is 100×75; the camera in the model beside it is the old one, 160×120 with focal length 120.
set -euo pipefail
[[ "$(colmap -h)" == *"COLMAP 3.8"* ]] || { echo "needs the program colmap, version 3.8, on the PATH"; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q pycolmap==4.2.1 opencv-python-headless==4.10.0.84 "numpy<2"
cd "$work"
mkdir images sparse
printf '1 PINHOLE 160 120 120 120 80 60\n' > sparse/cameras.txt
printf '1 1 0 0 0 0 0 0 1 a.png\n\n' > sparse/images.txt
: > sparse/points3D.txt
env/bin/python -c 'import cv2, numpy as np; cv2.imwrite("images/a.png", np.full((120, 160, 3), 200, np.uint8))'
colmap image_undistorter --image_path images --input_path sparse --output_path program --max_image_size 100 > /dev/null
env/bin/python - <<'PY'
import cv2
import pycolmap

pycolmap.logging.minloglevel = 2
options = pycolmap.UndistortCameraOptions()
options.max_image_size = 100
pycolmap.undistort_images("package", "sparse", "images", undistort_options=options)
seen = {}
for who in ("program", "package"):
    camera = pycolmap.Reconstruction(f"{who}/sparse").cameras[1]
    seen[who] = tuple(cv2.imread(f"{who}/images/a.png").shape[1::-1]), (camera.width, camera.height), round(camera.focal_length_x)
    print(who, "picture", seen[who][0], "camera", seen[who][1], "focal length", seen[who][2])
assert seen["package"] == ((100, 75), (100, 75), 75), "no longer as described"
assert seen["program"] == ((100, 75), (160, 120), 120), "no longer as described"
PY
