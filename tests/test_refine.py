"""What the poses say about what was called moving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support_processed import seen_tracks, write_processed

from segmotion_plugin.ingest import load_frames_json
from segmotion_plugin.masks import MotionMasks
from segmotion_plugin.progress import Console
from segmotion_plugin.reconstruct.job import load_cameras
from segmotion_plugin.reconstruct.refine import judge_objects, refine
from segmotion_plugin.settings import ReconstructSettings
from segmotion_plugin.simulation import SimulatedClip, SimulatedTracks, render, scenes
from segmotion_plugin.tracks import TrackMotion, Tracks, load_tracks, save_tracks
from segmotion_plugin.workspace import Workspace

FRAMES, WIDTH, HEIGHT = 16, 160, 96


@pytest.fixture(scope="module")
def clip() -> SimulatedClip:
    return render(scenes.build("two_cars_parked_twin", 3, FRAMES, WIDTH, HEIGHT))


@pytest.fixture(scope="module")
def truth() -> SimulatedTracks:
    world = scenes.build("two_cars_parked_twin", 3, FRAMES, WIDTH, HEIGHT)
    return world.sample_tracks(np.random.default_rng(0), 1500, [0, 5, 10])


def tracks_of(truth: SimulatedTracks) -> tuple[Tracks, np.ndarray, np.ndarray]:
    """Tracks with a tenth of a pixel of noise, their objects, and which of them are on near static things."""
    ids = seen_tracks(truth)
    ids = ids[truth.visible[ids].sum(axis=1) >= 6]
    visible = truth.visible[ids]
    noise = np.random.default_rng(1).normal(0, 0.1, (len(ids), FRAMES, 2))
    tracks = Tracks.from_dense(np.where(visible[..., None], truth.xy[ids] + noise, np.nan), visible)
    object_id = truth.object_id[ids].astype(np.int32)
    depth = np.nanmedian(np.where(visible, truth.depth[ids], np.nan), axis=1)
    near = (object_id == 0) & (depth < np.quantile(depth[object_id == 0], 0.3))
    return tracks, object_id, near


def test_movers_stay_movers_and_static_things_are_found_out(clip: SimulatedClip, truth: SimulatedTracks) -> None:
    tracks, object_id, near = tracks_of(truth)
    object_id[near] = 9
    motion = TrackMotion(tracks, (object_id > 0).astype(np.float32), np.repeat(object_id > 0, tracks.length), object_id)
    verdicts = {verdict.object_id: verdict for verdict in judge_objects(tracks, motion, clip.cameras)}
    assert set(verdicts) == set(np.unique(object_id[object_id > 0]).tolist())
    assert verdicts[9].static and verdicts[9].consistent > 0.8
    assert not any(verdict.static for k, verdict in verdicts.items() if k != 9)


def test_without_a_static_world_nothing_is_judged(clip: SimulatedClip, truth: SimulatedTracks) -> None:
    tracks, _, _ = tracks_of(truth)
    everything = np.ones(len(tracks), np.int32)
    motion = TrackMotion(tracks, everything.astype(np.float32), np.ones(len(tracks.xy_flat), bool), everything)
    assert judge_objects(tracks, motion, clip.cameras) == []


def test_a_folder_is_unmasked_where_nothing_moves(tmp_path: Path, clip: SimulatedClip, truth: SimulatedTracks) -> None:
    out = tmp_path / "out"
    write_processed(out, clip, truth)
    tracks, motion, (width, height) = load_tracks(out / "motion" / "tracks.npz")
    cameras = load_cameras(out)
    assert cameras is not None
    names = [entry["name"] for entry in load_frames_json(out)["images"]]
    before = [labels.copy() for labels in MotionMasks(out / "motion" / "objects", names)]
    # The picture's lower left corner is given to an object that is none.
    import cv2

    for name, labels in zip(names, before, strict=True):
        wrong = labels.copy()
        wrong[HEIGHT // 2 :, : WIDTH // 4][labels[HEIGHT // 2 :, : WIDTH // 4] == 0] = 9
        cv2.imwrite(str(out / "motion" / "objects" / f"{Path(name).stem}.png"), wrong)
    first = tracks.xy_flat[tracks.offset[:-1]]
    wrong_tracks = (motion.object_id == 0) & (first[:, 0] < WIDTH / 4) & (first[:, 1] > HEIGHT / 2)
    assert wrong_tracks.sum() > 10
    motion.object_id[wrong_tracks], motion.probability[wrong_tracks] = 9, 0.9
    save_tracks(out / "motion" / "tracks.npz", tracks, motion, width, height)
    report: dict = {}
    result = ({"status": "ok", "images_registered": len(names)}, [])
    settings = ReconstructSettings(refine=1, threads=1, downscales=0)
    refine(Workspace.open(out), settings, report, result, Console(True))
    verdict = {entry["object_id"]: entry["static"] for entry in report["refinement"]}
    assert verdict[9] and not any(static for k, static in verdict.items() if k != 9)
    for labels, after in zip(before, MotionMasks(out / "motion" / "objects", names), strict=True):
        assert np.array_equal(labels, after)
    assert "9" not in report["masks"]["objects"]
    _, motion, _ = load_tracks(out / "motion" / "tracks.npz")
    assert (motion.object_id[wrong_tracks] == 0).all()
