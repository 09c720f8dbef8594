"""What must not change a verdict, as an evaluation and as laws on small simulated worlds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from segmotion_plugin.clip import read_rgb
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation.datasets import davis_sequences, list_images
from segmotion_plugin.evaluation.invariance import KINDS, changed, evaluate_invariance
from segmotion_plugin.evaluation.methods import Method, folder_method, pipeline_method
from segmotion_plugin.evaluation.rendered import RenderedClip
from segmotion_plugin.files import read_json, write_png
from segmotion_plugin.masks import read_grey
from segmotion_plugin.simulation import render_frames, scenes
from segmotion_plugin.trackers.dis import track


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One sequence in which a bright mover goes right, from the left border to the middle."""
    rng = np.random.default_rng(0)
    for t in range(4):
        image = rng.integers(0, 60, (48, 80, 3)).astype(np.uint8)
        mask = np.zeros((48, 80), np.uint8)
        mask[10:30, 8 * t : 8 * t + 20] = 255
        image[mask > 0] = 220
        write_png(tmp_path / "data" / "one" / "images" / f"{t:05d}.png", image)
        write_png(tmp_path / "data" / "one" / "masks" / f"{t:05d}.png", mask)
    return tmp_path / "data"


def _bright(calls: list[str], blind: int = 0, forget: bool = False) -> Method:
    """What is bright moves; where it is blind to columns on the left or to the first frame, its verdict changes with the picture."""

    def predict(images: Path, out: Path) -> Iterator[np.ndarray]:
        calls.append(out.name)
        for t, path in enumerate(list_images(images)):
            bright = read_rgb(path)[..., 0] > 128
            yield bright & (np.arange(bright.shape[1]) >= blind) & (t > 0 or not forget)

    return Method("bright", predict, {"blind": blind, "forget": forget})


def test_a_method_without_a_preferred_side_does_not_change(root: Path, tmp_path: Path) -> None:
    calls: list[str] = []
    lines: list[str] = []
    (result,) = evaluate_invariance(root, [_bright(calls)], tmp_path / "out", say=lines.append)
    (row,) = result.rows
    assert row["J"] == 1.0 and [row[kind] for kind in KINDS] == [0.0] * 5 and len(calls) == 6
    assert "holds" in lines[-1] and "does not" not in lines[-1]
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {".segmotion.json", "bright", "kinds.json", "report.csv", "report.json", "report.md"}
    (tmp_path / "out" / "bright" / "half" / "one.json").unlink()
    evaluate_invariance(root, [_bright(calls)], tmp_path / "out", say=lines.append)
    assert len(calls) == 7, "what is stored is taken from there"


def test_a_preferred_side_and_a_poor_start_are_told(root: Path, tmp_path: Path) -> None:
    quiet = {"say": lambda line: None}
    (sided,) = evaluate_invariance(root, [_bright([], blind=10)], tmp_path / "a", kinds=["mirrored", "jpeg60"], **quiet)
    # 10 of the mover's 20 columns are lost in the first frame, 2 in the second, and none when it stands on the right.
    assert sided.rows[0]["J"] == pytest.approx((0.5 + 0.9 + 1 + 1) / 4) and sided.rows[0]["mirrored"] == pytest.approx(0.15)
    assert sided.rows[0]["jpeg60"] == 0 and "half" not in sided.rows[0]
    (late,) = evaluate_invariance(root, [_bright([], forget=True)], tmp_path / "b", **quiet)
    assert late.rows[0]["J"] == 0.75 and late.rows[0]["shifted"] == pytest.approx(2 / 3 - 1) and late.rows[0]["mirrored"] == 0
    verdict = {item["kind"]: item["holds"] for item in read_json(tmp_path / "b" / "kinds.json")}
    assert not verdict["shifted"] and not verdict["all"] and verdict["mirrored"]
    assert "| bright | shifted | 0.333 | 0.333 | no |" in (tmp_path / "b" / "report.md").read_text()


def test_changed_sequences_change_their_truth_alike(root: Path, tmp_path: Path) -> None:
    (sequence,) = davis_sequences(root)
    made = {kind: changed(sequence, kind, tmp_path / kind) for kind in KINDS}
    bright = {kind: [read_rgb(path)[..., 0] > 128 for path in item.images] for kind, item in made.items()}
    for kind, item in made.items():
        assert len(item) == (3 if kind == "shifted" else 4)
        for image, path in zip(bright[kind], item.masks, strict=True):
            assert ((read_grey(path) > 0) == image).mean() > 0.99
    assert bright["half"][0].shape == (24, 40) and made["jpeg60"].images[0].suffix == ".jpg"
    original = [read_rgb(path) for path in sequence.images]
    np.testing.assert_array_equal(read_rgb(made["mirrored"].images[1]), original[1][:, ::-1])
    np.testing.assert_array_equal(read_rgb(made["reversed"].images[0]), original[3])
    np.testing.assert_array_equal(read_rgb(made["shifted"].images[0]), original[1])


def test_wrong_requests_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SegmotionError, match="no such change: turned"):
        evaluate_invariance(root, [_bright([])], tmp_path / "out", kinds=["turned"])
    with pytest.raises(SegmotionError, match="cannot be made anew"):
        evaluate_invariance(root, [folder_method(root)], tmp_path / "out")
    for folder in ("images", "masks"):
        for path in list_images(root / "one" / folder)[1:]:
            path.unlink()
    with pytest.raises(SegmotionError, match="one: one frame only"):
        evaluate_invariance(root, [_bright([])], tmp_path / "out")


@pytest.mark.parametrize("law", ["mirrored", "reversed"])
def test_tracks_of_two_frames_obey(law: str) -> None:
    world = scenes.build("near_rocks", 5, 12, 240, 135)
    first, second = (image for image, _, _ in render_frames(world, (5, 6)))
    tracks = track([first, second])
    both = np.stack([tracks.xy[:, 0], tracks.xy[:, 1]], axis=1)[tracks.visible.all(axis=1)]
    if law == "mirrored":
        other = track([np.ascontiguousarray(first[:, ::-1]), np.ascontiguousarray(second[:, ::-1])])
        expected = np.stack([240 - both[..., 0], both[..., 1]], axis=2)
    else:
        other = track([second, first])
        expected = both[:, ::-1]
    found = other.xy[other.visible.all(axis=1)]
    distance, index = cKDTree(found[:, 0]).query(expected[:, 0])
    near = distance < 2.0
    step, expected_step = (np.diff(xy, axis=1)[:, 0] for xy in (found[index], expected))
    error = np.linalg.norm(step - expected_step, axis=1)[near]
    moved = np.linalg.norm(expected_step, axis=1)
    assert near.sum() > 300 and np.median(moved) > 0.5
    assert np.median(error) < 0.15 * np.median(moved) and (error < 1.0).mean() > 0.9


def test_masks_of_a_small_world_obey(tmp_path: Path) -> None:
    RenderedClip.load_or_render(tmp_path / "clips", "static_camera", 1000, (8, 192, 108))
    (result,) = evaluate_invariance(
        tmp_path / "clips", [pipeline_method()], tmp_path / "out", kinds=["mirrored", "reversed"], say=lambda line: None
    )
    (row,) = result.rows
    assert row["J"] > 0.6 and row["worst"] < 0.1
