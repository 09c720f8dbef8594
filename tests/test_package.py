"""What is installed is the library and its integrations, nothing else; importing it is light."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
ALLOWED = {"segmotion_plugin", "segmotion_4d", "segmotion_colmap", "segmotion_nerfstudio", "segmotion_ray"}


def test_the_wheel_holds_our_packages_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("segmotion_plugin-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {t for t in top if not re.fullmatch(r"segmotion_plugin-.*\.dist-info", t)} <= ALLOWED
    assert {path.name for path in (ROOT / "integrations").iterdir() if path.is_dir() and (path / "__init__.py").is_file()} <= top
    assert "segmotion_plugin/motion/weights/trajectory_transformer.safetensors" in names
    weights = sum(i.file_size for i in zipfile.ZipFile(wheel).infolist() if "/weights/" in i.filename)
    assert weights < 20_000_000


def test_importing_the_library_loads_nothing_heavy() -> None:
    heavy = ("torch", "pycolmap", "viser", "transformers", "sam2", "open3d", "nerfstudio", "cv2", "av")
    code = f"import sys, segmotion_plugin; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_the_library_does_not_know_the_integrations() -> None:
    pattern = re.compile(r"^\s*(?:from|import)\s+(nerfstudio|segmotion_(?!plugin)\w+)", re.MULTILINE)
    for path in (ROOT / "segmotion_plugin").rglob("*.py"):
        assert not pattern.search(path.read_text(encoding="utf-8")), path


def test_palette_pngs_are_written_beside_pycolmap(tmp_path: Path) -> None:
    """Both have a zlib; the package sees to the order in which they are loaded."""
    code = (
        "import segmotion_plugin, pycolmap, pathlib, sys; import numpy as np\n"
        "from segmotion_4d.formats.davis import write_palette_png; "
        "write_palette_png(pathlib.Path(sys.argv[1]), np.arange(19200, dtype=np.int64).reshape(120, 160).astype(np.uint8))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "integrations")])}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], env=environment, check=True, timeout=60)
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (160, 120) and image.mode == "P"
