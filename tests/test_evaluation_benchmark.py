from __future__ import annotations

from pathlib import Path

import pytest

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation import benchmark
from segmotion_plugin.evaluation.datasets import list_images
from segmotion_plugin.files import read_json, write_json


def _stages(**seconds: float) -> dict[str, dict[str, float]]:
    return {name: {"seconds": value, "peak_memory_mb": 100.0 + value} for name, value in seconds.items()}


def test_growth_exponents() -> None:
    assert benchmark.growth_exponent([10, 20, 40], [0.5, 1.0, 2.0]) == pytest.approx(1.0)
    assert benchmark.growth_exponent([10, 20, 40], [0.1, 0.4, 1.6]) == pytest.approx(2.0)
    assert benchmark.growth_exponent([10, 20, 40], [1.0, 1.0, 1.0]) == pytest.approx(0.0, abs=1e-12)
    assert benchmark.growth_exponent([10, 20, 40], [0.001, 0.01, 2.0]) is None


def test_growth_rows_cover_stages_that_not_every_run_has() -> None:
    rows = benchmark.growth_rows({20: _stages(tracks=2.0, masks=4.0), 10: _stages(tracks=1.0)})
    assert [row["stage"] for row in rows] == ["tracks", "masks", "all"]
    assert rows[0]["exponent"] == pytest.approx(1.0) and rows[0]["seconds_per_frame"] == 0.1
    assert (rows[1]["10 frames"], rows[1]["20 frames"], rows[1]["exponent"]) == (0.0, 4.0, None)
    assert (rows[2]["20 frames"], rows[2]["MB at 10"], rows[2]["MB at 20"]) == (6.0, 101.0, 104.0)


def test_stages_stand_beside_the_reconstruction(tmp_path: Path) -> None:
    report = {"frames": 10, "stages": _stages(tracks=1.0, masks=2.0, reconstruction=6.0)}
    write_json(tmp_path / "clip" / "motion" / "report.json", report)
    rows = {row["stage"]: row for row in benchmark.stage_rows([tmp_path / "clip"])}
    assert rows["masks"] == {
        "clip": "clip", "stage": "masks", "seconds": 2.0, "seconds_per_frame": 0.2, "share": pytest.approx(2 / 9),
        "times_sfm": pytest.approx(1 / 3), "peak_memory_mb": 102.0,
    }  # fmt: skip
    assert rows["all before the reconstruction"]["times_sfm"] == 0.5
    assert rows["all before the reconstruction"]["peak_memory_mb"] == 102.0


def test_reports_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SegmotionError, match="no such report"):
        benchmark.stage_rows([tmp_path])
    write_json(tmp_path / "report.json", {"frames": 3})
    with pytest.raises(SegmotionError, match="not a report of Segmotion"):
        benchmark.stage_rows([tmp_path / "report.json"])
    with pytest.raises(SegmotionError, match="reports to tabulate or numbers of frames"):
        benchmark.evaluate_benchmarks(tmp_path, frames=())


def test_clips_of_every_length_are_run(tmp_path: Path) -> None:
    seen = []

    def run(images: Path, out: Path) -> dict[str, dict[str, float]]:
        files = list_images(images)
        seen.append([path.name for path in files])
        return _stages(tracks=0.1 * len(files), masks=0.01 * len(files) ** 2)

    texts: list[str] = []
    write_json(tmp_path / "done.json", {"frames": 3, "stages": _stages(tracks=0.3)})
    result = benchmark.evaluate_benchmarks(
        tmp_path / "out", reports=[tmp_path / "done.json"], frames=(8, 4), scene="static_camera", width=64, height=36,
        run=run, say=texts.append,
    )  # fmt: skip
    assert [len(names) for names in seen] == [4, 8] and seen[1][:4] == seen[0]
    growth = {row["stage"]: row["exponent"] for row in result["growth"]}
    assert growth["tracks"] == pytest.approx(1.0) and growth["masks"] == pytest.approx(2.0)
    assert "| tracks | 0.400 | 0.800 | 1.000 |" in texts[0] and "| done.json" not in texts[0]
    assert read_json(tmp_path / "out" / "report.json")["growth"] == result["growth"]
