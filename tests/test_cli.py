"""The command line: help that works without heavy imports, and one clear line with exit status 2 for what the user can mend."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segmotion_plugin import cli
from segmotion_plugin.files import write_png


def segmotion(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'integrations'}"}
    command = [sys.executable, "-m", "segmotion_plugin.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False)


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    for name in ("run", "masks", "reconstruct", "demo", "view", "evaluate", "train", "doctor"):
        assert f"  {name} " in text


@pytest.mark.parametrize("name", sorted(cli._COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    assert name in capsys.readouterr().out


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runn"]) == 2
    assert "runn: no such command" in capsys.readouterr().err


def test_bad_input_ends_with_one_line_and_status_2(tmp_path: Path) -> None:
    absent = segmotion("masks", tmp_path / "absent.mp4", tmp_path / "out")
    assert absent.returncode == 2 and "no such file" in absent.stderr and "Traceback" not in absent.stderr
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    empty = segmotion("masks", tmp_path / "empty", tmp_path / "out")
    assert empty.returncode == 2 and "no images" in empty.stderr and len(empty.stderr.splitlines()) <= 3
    assert "Traceback" in segmotion("masks", tmp_path / "empty", tmp_path / "out", "--debug").stderr


def test_a_folder_with_other_content_is_not_touched(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for index in range(3):
        write_png(images / f"{index}.png", np.full((64, 64, 3), 40 * index, np.uint8))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    result = segmotion("masks", images, mine)
    assert result.returncode == 2 and "other content" in result.stderr
    assert [p.name for p in mine.iterdir()] == ["thesis.txt"]
    assert segmotion("masks", images, images).returncode == 2
    assert segmotion("reconstruct", mine).returncode == 2


@pytest.mark.parametrize(
    ("option", "word"),
    [(("--sensitivity", "2"), "sensitivity"), (("--every", "0"), "every"), (("--extra-masks", "nowhere"), "extra-masks")],
)
def test_settings_out_of_range_are_named(
    tmp_path: Path, option: tuple[str, str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["masks", str(tmp_path), str(tmp_path / "out"), *option]) == 2
    assert word in capsys.readouterr().err
