"""The main job end to end on small simulated worlds with exact truth."""

from __future__ import annotations

import json
import runpy
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from support_clips import jaccard, write_clip

from segmotion_plugin import SegmotionError, pipeline
from segmotion_plugin.files import read_json, write_png
from segmotion_plugin.masks import MotionMasks, read_grey
from segmotion_plugin.settings import MaskSettings, ReconstructSettings
from segmotion_plugin.simulation import SimulatedClip, render, scenes
from segmotion_plugin.tracks import load_tracks

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def processed(walker_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("processed") / "out"
    pipeline.run(walker_folder, out, MaskSettings(quiet=True, keep_work=True), ReconstructSettings(threads=1, downscales=1))
    return out


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_mover_is_masked(processed: Path, walker_clip: SimulatedClip) -> None:
    names = sorted(path.name for path in (processed / "images").iterdir())
    masks = MotionMasks(processed / "motion" / "objects", names)
    assert len(masks) == len(walker_clip.frames)
    scores = [jaccard(walker_clip.labels[i] > 0, masks[i] > 0) for i in range(len(masks))]
    assert np.mean(scores) > 0.7


def test_every_image_has_its_masks_in_both_namings(processed: Path) -> None:
    for image in (processed / "images").iterdir():
        keep = read_grey(processed / "masks" / f"{image.stem}.png")
        assert keep.shape == (180, 320) and set(np.unique(keep)) <= {0, 255}
        np.testing.assert_array_equal(keep, read_grey(processed / "colmap_masks" / f"{image.name}.png"))
        assert (keep[read_grey(processed / "motion" / "objects" / f"{image.stem}.png") > 0] == 0).all()
        assert read_grey(processed / "masks_2" / f"{image.stem}.png").shape == (90, 160)


def test_tracks_are_stored_in_pixels_of_the_images(processed: Path, walker_clip: SimulatedClip) -> None:
    tracks, motion, size = load_tracks(processed / "motion" / "tracks.npz")
    assert size == (320, 180) and len(tracks) > 200
    ids, xy = tracks.observations_at(8)
    on_mover = walker_clip.labels[8][xy[:, 1].astype(int), xy[:, 0].astype(int)] > 0
    called = motion.object_id[ids] > 0
    assert jaccard(on_mover, called) > 0.6


def test_the_report_tells_what_was_done(processed: Path) -> None:
    report = read_json(processed / "motion" / "report.json")
    assert report["images"] == 16 and report["plan"]["preset"] == "builtin"
    assert {"frames", "tracks", "features", "motion", "masks", "reconstruction"} <= set(report["stages"])
    assert all(stage["peak_memory_mb"] >= 0 and stage["seconds"] >= 0 for stage in report["stages"].values())
    assert 0 < report["masks"]["static_share"] < 1 and report["reconstruction"]["status"] == "ok"
    frames = read_json(processed / "motion" / "frames.json")["images"]
    assert frames[3] == {"name": "frame_00004.png", "source": "frame003.png", "number": 3, "frame": 3, "time": None}
    assert (processed / "motion" / "overview.png").is_file() and (processed / "motion" / "overlay.mp4").stat().st_size > 1000


def test_no_keypoint_lies_in_a_masked_pixel(processed: Path) -> None:
    database = sqlite3.connect(processed / "colmap" / "database.db")
    rows = database.execute("SELECT name, rows, cols, data FROM images JOIN keypoints USING (image_id)").fetchall()
    assert len(rows) == 16
    for name, count, columns, data in rows:
        xy = np.frombuffer(data, np.float32).reshape(count, columns)[:, :2].astype(int)
        keep = read_grey(processed / "colmap_masks" / f"{name}.png")
        assert (keep[xy[:, 1], xy[:, 0]] > 0).all()


def test_nerfstudio_gets_a_mask_for_every_frame(processed: Path) -> None:
    data = json.loads((processed / "transforms.json").read_text())
    assert len(data["frames"]) >= 15
    for frame in data["frames"]:
        assert (processed / frame["file_path"]).is_file() and (processed / frame["mask_path"]).is_file()
    assert (processed / data["ply_file_path"]).is_file()


def test_the_same_command_gives_the_same_masks(processed: Path, walker_folder: Path, tmp_path: Path) -> None:
    pipeline.masks(walker_folder, tmp_path / "again", MaskSettings(quiet=True))
    assert all_bytes(tmp_path / "again" / "motion" / "objects") == all_bytes(processed / "motion" / "objects")
    assert not (tmp_path / "again" / ".segmotion").exists()


def test_a_run_goes_on_from_what_is_stored(processed: Path, walker_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segmotion_plugin.trackers import dis

    monkeypatch.setattr(dis, "track", lambda *a, **k: pytest.fail("tracked again"))
    before = all_bytes(processed / "motion" / "objects")
    pipeline.masks(walker_folder, processed, MaskSettings(quiet=True, keep_work=True))
    assert all_bytes(processed / "motion" / "objects") == before


def test_tracks_are_made_anew_when_the_features_they_are_followed_with_change(
    processed: Path, walker_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(*_: object, **__: object) -> None:
        raise SegmotionError("tracked again")

    out = tmp_path / "out"
    shutil.copytree(processed, out)
    monkeypatch.setattr("segmotion_plugin.trackers.dis.track", again)
    with pytest.raises(SegmotionError, match="tracked again"):
        pipeline.masks(walker_folder, out, MaskSettings(quiet=True, keep_work=True, semantics="none"))


def test_extra_masks_and_dilation_enter_the_reconstruction(processed: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(processed, out)
    extra = np.full((180, 320), 255, np.uint8)
    extra[:40] = 0
    for index in range(16):
        write_png(tmp_path / "extra" / f"frame{index:03d}.png", extra)
    from segmotion_plugin.mask_files import rewrite_keep
    from segmotion_plugin.workspace import Workspace

    rewrite_keep(Workspace.open(out), tmp_path / "extra", 12.0)
    before, after = (read_grey(folder / "masks" / "frame_00005.png") for folder in (processed, out))
    assert (after[:40] == 0).all() and (after == 0).sum() > (before == 0).sum() + 40 * 320 // 2
    write_png(tmp_path / "extra" / "frame004.png", extra[:50])
    with pytest.raises(SegmotionError, match="frame004.png: 320×50"):
        rewrite_keep(Workspace.open(out), tmp_path / "extra", None)


def test_nothing_moves_nothing_is_masked_and_a_tripod_gives_no_cameras(tmp_path: Path) -> None:
    clip = render(scenes.build("static_room", seed=5, num_frames=10, width=256, height=144))
    folder = write_clip(clip, tmp_path / "still")
    for path in folder.iterdir():  # the same picture again and again: the camera stands still
        path.write_bytes((folder / "frame000.png").read_bytes())
    report = pipeline.run(folder, tmp_path / "out", MaskSettings(quiet=True), ReconstructSettings(threads=1))
    assert report["masks"]["moving_share"] == 0 and report["masks"]["masked_share"] == 0
    assert report["reconstruction"]["status"] == "none" and report["reconstruction"]["reason"]
    assert any("no reconstruction" in warning for warning in report["warnings"])
    assert not (tmp_path / "out" / "transforms.json").exists() and (tmp_path / "out" / "masks").is_dir()


def test_masks_none_masks_nothing(walker_folder: Path, tmp_path: Path) -> None:
    report = pipeline.masks(walker_folder, tmp_path / "out", MaskSettings(masks="none", every=4, quiet=True))
    assert report["images"] == 4 and report["masks"]["masked_share"] == 0
    assert all((read_grey(path) == 255).all() for path in (tmp_path / "out" / "colmap_masks").iterdir())


def test_the_examples_run(walker_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "01_masks_from_video.py"))["main"](walker_folder, tmp_path / "one")
    assert "moving object(s)" in capsys.readouterr().out
    runpy.run_path(str(ROOT / "examples" / "02_masked_reconstruction.py"))["main"](walker_folder, tmp_path / "two")
    text = capsys.readouterr().out
    assert "masked:" in text and "unmasked:" in text
