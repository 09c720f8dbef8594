"""`ns-process-data` under its own name: the console script is extended and restored byte for byte."""

from __future__ import annotations

import hashlib
import sys
from importlib import metadata
from pathlib import Path

import pytest
from nerfstudio.scripts import process_data as stock
from segmotion_nerfstudio import launch, shim
from segmotion_nerfstudio.command import Disable, Enable, Status

from segmotion_plugin.errors import SegmotionError


@pytest.fixture
def script(tmp_path) -> Path:
    """A copy of the installed console script."""
    path = tmp_path / "ns-process-data"
    content = shim.console_script().read_bytes()
    path.write_bytes(shim.original(shim.console_script()) or content)
    path.chmod(0o755)
    return path


def entrypoint_of(script: Path):
    """What the script would call."""
    names: dict = {"__name__": "script"}
    exec(compile(script.read_bytes(), str(script), "exec"), names)
    return names["entrypoint"]


def test_disable_restores_the_script_byte_for_byte(script, capsys):
    digest, mode = hashlib.sha256(script.read_bytes()).hexdigest(), script.stat().st_mode
    assert Status(script).main() == 1
    assert Enable(script).main() == 0 and Enable(script).main() == 0
    assert Status(script).main() == 0
    assert script.stat().st_mode == mode
    assert entrypoint_of(script) is launch.process_data
    assert Disable(script).main() == 0 and Disable(script).main() == 0
    assert hashlib.sha256(script.read_bytes()).hexdigest() == digest and script.stat().st_mode == mode
    assert entrypoint_of(script) is stock.entrypoint
    said = capsys.readouterr().out
    assert "already" in said and "as nerfstudio made it" in said and "knows --motion-mask" in said


def test_the_script_of_this_environment_is_found_and_is_nerfstudios(monkeypatch):
    path = shim.console_script()
    assert path.name == "ns-process-data" and path.parent == Path(sys.executable).parent
    assert b"nerfstudio.scripts.process_data" in path.read_bytes()

    def absent(name: str):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    with pytest.raises(SegmotionError, match="nerfstudio is not installed"):
        shim.console_script()


def test_an_extended_script_outlives_this_package(script, monkeypatch):
    shim.enable(script)
    monkeypatch.setitem(sys.modules, "segmotion_nerfstudio.launch", None)  # as if it were uninstalled
    assert entrypoint_of(script) is stock.entrypoint


def test_scripts_that_are_not_pips_are_left_alone(tmp_path):
    other = tmp_path / "ns-process-data"
    for content in (b"MZ\x90\x00", b"#!/bin/sh\nexec python -m nerfstudio.scripts.process_data\n"):
        other.write_bytes(content)
        with pytest.raises(SegmotionError, match="left alone"):
            shim.enable(other)
        assert other.read_bytes() == content and not shim.disable(other)
    with pytest.raises(SegmotionError, match="cannot be read"):
        shim.enable(tmp_path / "nowhere")


def test_a_damaged_original_is_not_put_back(script):
    shim.enable(script)
    script.write_bytes(script.read_bytes()[:-9] + b"\n")
    before = script.read_bytes()
    with pytest.raises(SegmotionError, match="stored original is damaged"):
        shim.disable(script)
    assert script.read_bytes() == before


@pytest.mark.parametrize(("version", "arguments", "status", "word"), [
    (None, [], 2, "not installed"),
    ("1.2.0", ["images", "--motion-mask"], 2, "add-masks DATASET --rerun-sfm"),
    ("1.2.0", ["images"], 0, "runs unchanged"),
])  # fmt: skip
def test_other_versions_get_a_clear_word(monkeypatch, capsys, version, arguments, status, word):
    called = []
    monkeypatch.setattr(launch, "nerfstudio_version", lambda: version)
    monkeypatch.setattr(stock, "entrypoint", lambda: called.append(True))
    monkeypatch.setattr(sys, "argv", ["ns-process-data", *arguments])
    assert launch.process_data() == status
    assert word in capsys.readouterr().err
    assert called == ([True] if status == 0 else [])


def test_enable_refuses_another_version(script, monkeypatch):
    monkeypatch.setattr(shim, "nerfstudio_version", lambda: "0.3.4")
    before = script.read_bytes()
    with pytest.raises(SegmotionError, match="nerfstudio 0.3.4 is installed"):
        Enable(script).main()
    assert script.read_bytes() == before
