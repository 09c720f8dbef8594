"""`segmotion doctor` tells what can run, where the weights are, and under which licence."""

from __future__ import annotations

from pathlib import Path

import pytest

from segmotion_plugin import presets, weights
from segmotion_plugin.doctor import findings


@pytest.fixture(autouse=True)
def nothing_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)


def line(lines: list[str], name: str) -> str:
    return next(text for text in lines if text.split()[:1] == [name])


def test_what_a_preset_lacks_is_named(tmp_path: Path) -> None:
    lines = findings(tmp_path)
    assert "can run" in line(lines, "builtin")
    for preset in ("foundation", "seganymo"):
        said = line(lines[lines.index("presets") :], preset)
        assert "not here" in said and all(f"weights {name}" in said for name in presets.needs(preset))
    assert "checkout of tapnet" in lines[-1]


def test_weights_that_lie_here_and_a_checkout_are_not_lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in presets.needs("foundation"):
        (tmp_path / name).mkdir()
        for file, _ in weights.CATALOGUE[name].files:
            (tmp_path / name / file).write_bytes(b"x")
    monkeypatch.setattr("segmotion_plugin.presets.importlib.util.find_spec", lambda name: object())
    lines = findings(tmp_path, tracker_source=tmp_path)
    assert "can run" in line(lines[lines.index("presets") :], "foundation")
    assert str(tmp_path / "sam2.1-large") in line(lines, "sam2.1-large")


def test_licences_that_restrict_are_told(tmp_path: Path) -> None:
    lines = findings(tmp_path)
    assert "CC-BY-NC-4.0 (check it before commercial use)" in line(lines, "cotracker3-offline")
    assert "check" not in line(lines, "dinov2-small")
    assert any("CoTracker3's code is CC-BY-NC-4.0" in text for text in lines)
