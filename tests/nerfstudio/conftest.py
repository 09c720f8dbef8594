"""Tests against the real nerfstudio; SEGMOTION_REQUIRE_ALL=1 makes its absence an error."""

from __future__ import annotations

import importlib.util
import os

absent = importlib.util.find_spec("nerfstudio") is None
if absent and os.environ.get("SEGMOTION_REQUIRE_ALL") == "1":
    raise RuntimeError("these tests need nerfstudio==1.1.5: pip install 'segmotion-plugin[nerfstudio]'")
collect_ignore_glob = ["test_*.py"] if absent else []
