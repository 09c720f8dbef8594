"""Tests in a headless Chromium: collected where Debian's chromium and Playwright are, or an error with SEGMOTION_REQUIRE_ALL=1."""

from __future__ import annotations

import importlib.util
import os
import shutil
from importlib import metadata

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_READY = bool(CHROMIUM and importlib.util.find_spec("playwright"))
collect_ignore_glob = [] if _READY or os.environ.get("SEGMOTION_REQUIRE_ALL") == "1" else ["test_*.py"]
if not list(metadata.distributions(name="nerfstudio")) and os.environ.get("SEGMOTION_REQUIRE_ALL") != "1":
    collect_ignore_glob.append("test_panel_*.py")
