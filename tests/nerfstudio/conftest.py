"""Tests against the real nerfstudio; SEGMOTION_REQUIRE_ALL=1 makes its absence an error."""

from __future__ import annotations

import os
from importlib import metadata

absent = not list(metadata.distributions(name="nerfstudio"))
if absent and os.environ.get("SEGMOTION_REQUIRE_ALL") == "1":
    raise RuntimeError("these tests need nerfstudio==1.1.5: pip install 'segmotion-plugin[nerfstudio]'")
collect_ignore_glob = ["test_*.py"] if absent else []
