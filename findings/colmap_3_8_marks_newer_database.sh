#!/usr/bin/env bash
# COLMAP 3.8 (Debian 12, `apt-get install colmap`) with a database of pycolmap 4.2.1: it gives up, and changes the file nevertheless.
#
# pycolmap makes a database of one image; COLMAP 3.8's exhaustive_matcher is given it.
# Expected: an error, and the file as it was.
# Seen: the error ("SQLite error … SQL logic error", exit status not 0), and PRAGMA user_version of the file went from 4020100 to 3800, so that
# whoever tells the format by this number now takes it for one of COLMAP 3.8. The tables are those of COLMAP 4 still.
set -euo pipefail
[[ "$(colmap -h)" == *"COLMAP 3.8"* ]] || { echo "needs the program colmap, version 3.8, on the PATH"; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q pycolmap==4.2.1 opencv-python-headless==4.10.0.84 "numpy<2"
cd "$work"
env/bin/python - <<'PY'
import pathlib
import sqlite3
import subprocess

import cv2
import numpy as np
import pycolmap

pycolmap.logging.minloglevel = 2
pathlib.Path("images").mkdir()
cv2.imwrite("images/a.png", np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8))
options = pycolmap.FeatureExtractionOptions(use_gpu=False, num_threads=1)
pycolmap.extract_features("a.db", "images", extraction_options=options, device=pycolmap.Device.cpu)


def look():
    connection = sqlite3.connect("a.db")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return version, "rigs" in tables


before = look()
done = subprocess.run(["colmap", "exhaustive_matcher", "--database_path", "a.db", "--SiftMatching.use_gpu", "0"], capture_output=True)
after = look()
print("exit status", done.returncode, "user_version and table rigs before", before, "after", after)
assert done.returncode != 0 and before == (4020100, True) and after == (3800, True), "no longer as described"
PY
