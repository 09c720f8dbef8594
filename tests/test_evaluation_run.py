from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from segmotion_plugin import cli
from segmotion_plugin.clip import read_rgb
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation import methods, report, run, scoring
from segmotion_plugin.evaluation.datasets import list_images
from segmotion_plugin.evaluation.methods import Method
from segmotion_plugin.files import read_json, write_npz, write_png
from segmotion_plugin.tracks import Tracks


def _bright(threshold: int = 128, delay: int = 0) -> Method:
    """A method that calls what is bright moving."""
    calls: list[str] = []

    def predict(images: Path, out: Path) -> Iterator[np.ndarray]:
        calls.append(out.name)
        return (np.roll(read_rgb(path)[..., 0] > threshold, delay, axis=1) for path in list_images(images))

    method = Method("bright", predict, {"threshold": threshold, "delay": delay})
    object.__setattr__(method, "calls", calls)
    return method


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Two sequences with bright movers: one of them found by brightness, the other one accompanied by a bright rock."""
    rng = np.random.default_rng(0)
    for name, rock in (("easy", False), ("hard", True)):
        for t in range(4):
            image = rng.integers(0, 60, (48, 80, 3)).astype(np.uint8)
            mask = np.zeros((48, 80), np.uint8)
            mask[10:30, 8 * t : 8 * t + 20] = 255
            image[mask > 0] = 220
            if rock and t >= 2:
                image[35:45, 50:70] = 220
            write_png(tmp_path / "data" / name / "images" / f"{t:05d}.png", image)
            write_png(tmp_path / "data" / name / "masks" / f"{t:05d}.png", mask)
    return tmp_path / "data"


def test_davis_scores_tables_and_pictures(davis: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    (result,) = run.evaluate_davis(davis, [_bright()], tmp_path / "out", say=lines.append)
    easy, hard = result.rows
    assert (easy["sequence"], easy["J"], easy["F"], easy["JF"]) == ("easy", 1.0, 1.0, 1.0)
    assert hard["J"] == pytest.approx((1 + 1 + 2 * 400 / 600) / 4)
    assert result.mean["J"] == pytest.approx((easy["J"] + hard["J"]) / 2)
    assert easy["share_masked"] == easy["share_truth"] == pytest.approx(400 / (48 * 80))
    assert easy["seconds_per_frame"] > 0
    assert len(lines) == 3 and "easy" in lines[0] and "J 1.000  F 1.000  J&F 1.000" in lines[0] and "s/frame" in lines[0]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| easy | 1.000 | 1.000 | 1.000 |" in text and "mean of 2" in text
    stored = read_json(tmp_path / "out" / "report.json")
    assert stored["methods"][0]["mean"]["J"] == pytest.approx(result.mean["J"])
    sheet = read_rgb(tmp_path / "out" / "bright" / "worst.png")
    assert sheet.shape[1] == 3 * 320  # the mover's outline is found (yellow), the rock's is wrong (red)
    assert (sheet == (255, 225, 40)).all(axis=2).any() and (sheet == (255, 60, 60)).all(axis=2).any()


def test_roots_are_compared(davis: Path, tmp_path: Path) -> None:
    (tmp_path / "unseen").mkdir()
    (davis / "hard").rename(tmp_path / "unseen" / "hard")
    lines: list[str] = []
    roots = [davis, tmp_path / "unseen"]
    (result,) = run.evaluate_davis(roots, [_bright()], tmp_path / "out", say=lines.append)
    assert [(row["sequence"], row["root"]) for row in result.rows] == [("easy", "data"), ("hard", "unseen")]
    assert len(lines) == 5 and "static masked" in lines[1] and "unseen − data" in lines[4]
    stored = read_json(tmp_path / "out" / "report.json")["methods"][0]["summary"]
    assert stored[0]["J"] == 1.0 and stored[2]["J"] == pytest.approx(result.rows[1]["J"] - 1)
    assert result.rows[0]["static_masked"] == 0 and stored[2]["static_masked"] == result.rows[1]["static_masked"] > 0.02
    rows = (tmp_path / "out" / "report.csv").read_text().splitlines()
    assert rows[0].startswith("method,sequence,root,J,F,JF,static_masked,mover_missed") and rows[1].startswith("bright,easy,data,1.0")
    (part,) = run.evaluate_davis(roots, [_bright()], tmp_path / "out", sequences=["hard"], say=lines.append)
    assert [row["sequence"] for row in part.rows] == ["hard"]
    with pytest.raises(SegmotionError, match="no sequence named soft"):
        run.evaluate_davis(roots, [_bright()], tmp_path / "out", sequences=["soft"])
    with pytest.raises(SegmotionError, match="names of their own"):
        run.evaluate_davis([davis, davis], [_bright()], tmp_path / "out")
    with pytest.raises(SegmotionError, match="every must be 1 or more"):
        run.evaluate_davis(davis, [_bright()], tmp_path / "out", every=0)


@pytest.mark.parametrize("what", ["davis", "invariance"])
def test_the_command_line_takes_roots_and_names_one_that_is_not_there(
    what: str, davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(davis), str(tmp_path / "gone"), "--out", str(tmp_path / "out"), "--every-sequence", "2"]
    assert cli.main(["evaluate", what, *arguments]) == 2
    assert "gone: no such folder of sequences" in capsys.readouterr().err
    assert cli.main(["evaluate", what]) == 2
    assert "no root" in capsys.readouterr().err


def test_every_other_sequence_of_a_root(davis: Path, tmp_path: Path) -> None:
    (result,) = run.evaluate_davis(davis, [_bright()], tmp_path / "out", every=2, say=lambda line: None)
    assert [row["sequence"] for row in result.rows] == ["easy"]


def test_results_are_taken_up_again_and_made_anew_for_other_settings(davis: Path, tmp_path: Path) -> None:
    first, again, other = _bright(), _bright(), _bright(delay=1)
    quiet = {"say": lambda line: None}
    before = run.evaluate_davis(davis, [first], tmp_path / "out", **quiet)
    (tmp_path / "out" / "bright" / "sequences" / "hard.json").write_text('{"key": ')  # interrupted by hand
    after = run.evaluate_davis(davis, [again], tmp_path / "out", **quiet)
    assert first.calls == ["easy", "hard"] and again.calls == ["hard"]
    assert [row["J"] for row in before[0].rows] == [row["J"] for row in after[0].rows]
    changed = run.evaluate_davis(davis, [other], tmp_path / "out", **quiet)
    assert other.calls == ["easy", "hard"] and changed[0].mean["J"] < after[0].mean["J"]
    run.evaluate_davis(davis, [other], tmp_path / "out", resume=False, **quiet)
    assert other.calls == ["easy", "hard"] * 2


def test_a_folder_of_masks_scores_like_the_method_that_made_it(davis: Path, tmp_path: Path) -> None:
    quiet = {"say": lambda line: None}
    (made,) = run.evaluate_davis(davis, [_bright()], tmp_path / "out", **quiet)
    folder = methods.folder_method(tmp_path / "out" / "bright" / "predictions")
    ours, theirs = run.evaluate_davis(davis, [_bright(), folder], tmp_path / "out", **quiet)
    assert [row["J"] for row in ours.rows] == [row["J"] for row in theirs.rows] == [row["J"] for row in made.rows]
    assert theirs.rows[0]["seconds_per_frame"] is None
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| sequence | bright | folder |" in text and "| method |" in text
    with pytest.raises(SegmotionError, match="no such folder of predicted masks"):
        methods.folder_method(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SegmotionError, match="no masks of easy here"):
        run.evaluate_davis(davis, [methods.folder_method(tmp_path / "empty")], tmp_path / "out", **quiet)


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        ([np.zeros((48, 80), np.uint8)] * 3, "3 masks for the 4 images of easy"),
        ([np.zeros((48, 80), np.float32)] * 4, "must be H×W whole numbers, got float32"),
        ([np.zeros((24, 40), np.uint8)] * 4, r"predicted mask \(24, 40\)"),
    ],
)
def test_masks_that_do_not_fit(davis: Path, tmp_path: Path, labels: list[np.ndarray], word: str) -> None:
    method = Method("odd", lambda images, out: labels)
    with pytest.raises(SegmotionError, match=word):
        run.evaluate_davis(davis, [method], tmp_path / "out", say=lambda line: None)


def test_tracks_beside_the_masks_are_scored_too(davis: Path, tmp_path: Path) -> None:
    def predict(images: Path, out: Path) -> Path:
        objects = out / "motion" / "objects"
        xy = np.array([[[8 * t + 4.0, 20.0] for t in range(4)], [[70.0, 5.0]] * 4, [[4.0, 40.0]] * 4], np.float32)
        write_npz(
            objects.parent / "tracks.npz",
            xy=xy,
            visible=np.ones((3, 4), bool),
            probability=np.array([0.9, 0.2, 0.6], np.float32),
            moving=np.array([[1] * 4, [0] * 4, [1] * 4], bool),
            object_id=np.array([1, 0, 2], np.int32),
            size=np.array([80, 48]),
        )
        for path in list_images(images):
            write_png(objects / f"frame_{path.stem}.png", (read_rgb(path)[..., 0] > 128).astype(np.uint8))
        return objects

    (result,) = run.evaluate_davis(davis, [Method("tracked", predict)], tmp_path / "out", say=lambda line: None)
    assert result.rows[0]["J"] == 1.0 and result.mean["track_AUC"] == 1.0
    assert result.mean["track_F1"] == pytest.approx(2 / 3) and result.mean["track_best_F1"] == 1.0


def test_objects_keep_their_last_known_state_while_hidden() -> None:
    from segmotion_plugin.tracks import TrackMotion

    visible = np.array([[0, 1, 1, 0, 1], [1, 1, 1, 1, 1]], bool)
    tracks = Tracks.from_dense(np.ones((2, 5, 2), np.float32), visible)
    moving = np.array([[0, 1, 0, 0, 1], [0, 0, 0, 0, 0]], bool)
    states = scoring.object_states(tracks, TrackMotion(tracks, np.ones(2), moving.reshape(-1), np.array([3, 1])))
    assert states[:, 3].tolist() == [True, True, False, False, True]
    assert not states[:, [0, 1, 2]].any()


def test_static_clips(davis: Path, tmp_path: Path) -> None:
    clips = [davis / "easy", davis / "hard" / "images"]
    (result,) = run.evaluate_static(clips, [_bright()], tmp_path / "out", say=lambda line: None)
    assert [row["sequence"] for row in result.rows] == ["easy", "hard"]
    assert result.rows[0]["share_masked"] == pytest.approx(400 / (48 * 80))
    assert result.rows[1]["worst_frame"] == pytest.approx(600 / (48 * 80)) and result.rows[1]["frames_masked"] == 1.0
    assert "| easy | 0.104 | 0.104 | 1.000 |" in (tmp_path / "out" / "report.md").read_text()
    with pytest.raises(SegmotionError, match="same name"):
        run.evaluate_static([davis / "easy", davis / "easy" / "images"], [_bright()], tmp_path / "out")


def test_worst_frames_are_spread() -> None:
    frames = {"J": [0.1, 0.0, 0.9, 0.9, 0.9, 0.9, 0.2, 0.3], "F": [0.0] * 8}

    @dataclasses.dataclass
    class Fake:
        name: str

        def __len__(self) -> int:
            return 8

    chosen = report.worst_frames([(Fake("a"), Path("a"), frames), (Fake("b"), Path("b"), frames)], count=3)
    assert [(item.sequence.name, item.frame) for item in chosen] == [("a", 1), ("b", 1), ("a", 6)]


def test_table_cells() -> None:
    rows = [{"sequence": "a", "J": 0.12345, "n": 3, "ok": True}, {"sequence": "b", "J": float("nan"), "ok": None}]
    assert report.markdown_table(rows, ["sequence", "J", "n", "ok"]).splitlines()[2:] == [
        "| a | 0.123 | 3 | yes |",
        "| b | – | – | – |",
    ]
    mean = report.Evaluation.of("m", rows).mean
    assert mean == {"J": 0.12345, "n": 3.0, "ok": 1.0}


def test_outlines_follow_the_masks() -> None:
    truth, predicted = np.zeros((2, 20, 20), np.uint8)
    cv2.circle(truth, (10, 10), 6, 1, -1)
    cv2.circle(predicted, (10, 10), 3, 1, -1)
    image = report.outlined(np.zeros((20, 20, 3), np.uint8), truth, predicted, thickness=1)
    np.testing.assert_array_equal((image == (60, 220, 60)).all(axis=2), report.boundary_map(truth) > 0)
    np.testing.assert_array_equal((image == (255, 60, 60)).all(axis=2), report.boundary_map(predicted) > 0)


def test_stuff_is_masked_but_no_object(davis: Path, tmp_path: Path) -> None:
    def predict(images: Path, out: Path) -> Path:
        objects = out / "motion" / "objects"
        for t, path in enumerate(list_images(images)):
            labels = (read_rgb(path)[..., 0] > 128).astype(np.uint8)
            labels[40:] = 255  # water along the lower border
            write_png(objects / path.name, labels if t else np.where(labels == 1, 0, labels).astype(np.uint8))
        return objects

    (result,) = run.evaluate_davis(davis, [Method("water", predict)], tmp_path / "out", sequences=["easy"], say=lambda line: None)
    (row,) = result.rows
    assert row["J"] == 0.75, "in the first frame there is water only"
    bordered = 3 * (20 * 20 + 4 * 20) + 20 * 20 + 3 * 20  # movers with a border of 1 pixel; the first stands at the image's border
    assert row["static_masked"] == pytest.approx(4 * 8 * 80 / (4 * 48 * 80 - bordered)) and row["mover_missed"] == 0.25
    assert row["share_masked"] == pytest.approx((8 * 80 + 300) / (48 * 80))
