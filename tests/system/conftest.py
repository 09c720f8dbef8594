"""Tests with COLMAP's and FFmpeg's own programs and nerfstudio's commands; SEGMOTION_REQUIRE_ALL=1 makes their absence an error."""

from __future__ import annotations

import os
import shutil
from importlib import metadata

missing = [program for program in ("colmap", "ffmpeg") if shutil.which(program) is None]
if not list(metadata.distributions(name="nerfstudio")):
    missing.append("nerfstudio")
if missing and os.environ.get("SEGMOTION_REQUIRE_ALL") == "1":
    raise RuntimeError(f"the system tests need {', '.join(missing)}")
collect_ignore_glob = ["test_*.py"] if missing else []
