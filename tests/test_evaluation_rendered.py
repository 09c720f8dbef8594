from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation.datasets import list_images
from segmotion_plugin.evaluation.methods import Method
from segmotion_plugin.evaluation.rendered import RenderedClip, evaluate_rendered
from segmotion_plugin.files import read_json
from segmotion_plugin.masks import read_grey

SMALL = {"num_frames": 6, "width": 96, "height": 54, "seeds": [0], "say": lambda line: None}


def _truth(images: Path, out: Path) -> Iterator[np.ndarray]:
    """Reads the truth beside the images, with object ids exchanged."""
    for path in list_images(images.parent / "masks"):
        labels = read_grey(path)
        yield np.where(labels > 0, 10 - labels, 0).astype(np.uint8)


def _everything(images: Path, out: Path) -> Iterator[np.ndarray]:
    return (np.ones((54, 96), np.uint8) for _ in list_images(images))


def test_true_masks_score_one_and_masks_of_everything_do_not(tmp_path: Path) -> None:
    perfect, blunt = evaluate_rendered(
        [Method("truth", _truth), Method("everything", _everything)],
        tmp_path, scenes=["two_cars_parked_twin", "static_room"], **SMALL,
    )  # fmt: skip
    cars, room = perfect.rows
    assert cars["sequence"] == "two_cars_parked_twin" and cars["clips"] == 1
    assert (cars["J"], cars["F"], cars["object_J"], cars["count_right"]) == (1.0, 1.0, 1.0, 1.0)
    assert cars["switches_per_object"] == cars["false_positives_per_frame"] == 0.0
    assert "J" not in room and room["share_masked"] == 0.0
    assert blunt.rows[0]["J"] < 0.5 and blunt.rows[1]["share_masked"] == 1.0
    text = (tmp_path / "report.md").read_text()
    assert "| two_cars_parked_twin | 1 | 1.000 | 1.000 |" in text and (tmp_path / "truth" / "worst.png").is_file()
    clip = RenderedClip.load_or_render(tmp_path / "clips", "two_cars_parked_twin", 0, (6, 96, 54))
    assert clip.moving.shape == (6, 3) and clip.travels and len(clip.cameras) == 6


def test_cameras_are_compared_where_the_camera_travels(tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []

    def reconstruct(images: Path, masks: Path | None, work: Path) -> Cameras | None:
        """True cameras when little is masked, bent ones when much is, none when all is."""
        assert masks is not None
        kept = np.mean([read_grey(path) > 0 for path in list_images(masks)])
        calls.append((images.parent.name, round(100 * kept)))
        cameras = RenderedClip.load_or_render(tmp_path / "clips", "static_room", 0, (6, 96, 54)).cameras
        if kept == 0:
            return None
        poses = cameras.cam_from_world.copy()
        if kept < 0.9:
            poses[:, :, 3] += np.random.default_rng(0).normal(0, 0.1, (6, 3))
        return Cameras(
            cameras.names, cameras.frame_index, cameras.width, cameras.height, cameras.model, cameras.params, poses
        )

    def half(images: Path, out: Path) -> Iterator[np.ndarray]:
        return (np.tile(np.arange(96) < 48, (54, 1)) for _ in list_images(images))

    found = evaluate_rendered(
        [Method("truth", _truth), Method("half", half), Method("everything", _everything)],
        tmp_path, scenes=["static_room", "static_camera"], reconstruct=reconstruct, **SMALL,
    )  # fmt: skip
    truth, bent, nothing = (item.rows[0] for item in found)
    assert truth["trajectory"] == pytest.approx(0, abs=1e-9) and truth["trajectory_ok"] == truth["registered"] == 1.0
    assert bent["trajectory"] > 0.002 and bent["trajectory_ok"] == 0.0 and bent["trajectory_true_masks"] < 1e-9
    assert "trajectory" not in nothing and nothing["registered"] == nothing["trajectory_ok"] == 0.0
    assert all("trajectory_ok" not in item.rows[1] for item in found)  # a camera at rest has no trajectory
    assert [name for name, _ in calls] == ["static_room-0"] * 4  # the true masks only once
    assert read_json(tmp_path / "half" / "cameras" / "static_room-0" / "errors.json")["registered"] == 1.0


def test_wrong_requests(tmp_path: Path) -> None:
    with pytest.raises(SegmotionError, match="no scenes named moon; there are: demo, walker"):
        evaluate_rendered([], tmp_path, scenes=["moon"])
    with pytest.raises(SegmotionError, match="at least one type of scene and one seed"):
        evaluate_rendered([], tmp_path, seeds=[])
