"""Tests with COLMAP's and FFmpeg's own programs and nerfstudio's commands; SEGMOTION_REQUIRE_ALL=1 makes their absence an error."""

from __future__ import annotations

import importlib.util
import os
import shutil

missing = [program for program in ("colmap", "ffmpeg") if shutil.which(program) is None]
if importlib.util.find_spec("nerfstudio") is None:
    missing.append("nerfstudio")
if missing and os.environ.get("SEGMOTION_REQUIRE_ALL") == "1":
    raise RuntimeError(f"the system tests need {', '.join(missing)}")
collect_ignore_glob = ["test_*.py"] if missing else []
