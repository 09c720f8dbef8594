"""Small movers judged as a whole: which tracks form clusters, what describes them, and what their verdict does to the tracks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.motion import cluster_model
from segmotion_plugin.motion.classifier import classify
from segmotion_plugin.motion.cluster_channels import AROUND, CHANNELS, POOLED, describe
from segmotion_plugin.motion.cluster_model import DEFAULT_WEIGHTS, ClusterModel, Judged, Verdicts, blocks, second_look
from segmotion_plugin.motion.clusters import Block, Cluster, clusters
from segmotion_plugin.motion.rigidity import Rigidity
from segmotion_plugin.tracks import Tracks
from segmotion_plugin.training import clusters as training
from segmotion_plugin.training.clips import clip_path
from segmotion_plugin.training.clusters import ClusterConfig, JudgedClip, Table, fit, quality

SIZE = (480, 270)
FRAMES = 16


def panned(own: tuple[float, float] = (1.5, 0.0), scale: float = 1.0) -> tuple[Tracks, np.ndarray]:
    """A grid of points under a panning camera, of which eight move on their own; tracks, and which ones."""
    x, y = np.meshgrid(np.arange(5, SIZE[0], 10.0), np.arange(5, SIZE[1], 10.0))
    place = np.stack([x.ravel(), y.ravel()], axis=1)
    patch = np.all((place > (120, 80)) & (place < (160, 100)), axis=1)
    time = np.arange(FRAMES)[None, :, None]
    xy = place[:, None] + time * np.array([0.6, 0.2]) + patch[:, None, None] * time * np.array(own)
    return Tracks.from_dense((scale * xy).astype(np.float32), np.ones(xy.shape[:2], bool)), patch


def doubtful(patch: np.ndarray, inside: float = -1.0, seed: int = 0) -> np.ndarray:
    """Logits of static tracks with a patch that stands out."""
    return np.where(patch, inside, -3.0) + np.random.default_rng(seed).normal(0, 0.05, len(patch))


def unknown(tracks: Tracks) -> dict[str, np.ndarray]:
    return {name: np.full(len(tracks), np.nan) for name in POOLED}


def constant(verdict: float) -> ClusterModel:
    """A model that always says the same."""
    count = len(CHANNELS)
    layer = (np.zeros((1, 2, count)), np.full((1, 2), verdict))
    return ClusterModel(np.zeros(count), np.ones(count), np.zeros(count, bool), (layer,))


def channels_of(tracks: Tracks, patch: np.ndarray, size: tuple[int, int] = SIZE) -> dict[str, float]:
    block, logit = Block(tracks, size, 0, FRAMES), doubtful(patch)
    found = clusters(block, logit)
    whole = max(found, key=lambda cluster: len(cluster.members))
    return dict(zip(CHANNELS, describe(block, [whole], 0.0, logit, unknown(tracks), Rigidity(block, logit))[0], strict=True))


def test_only_clusters_that_are_worth_it_are_held_against_their_surroundings() -> None:
    tracks, patch = panned()
    block, logit = Block(tracks, SIZE, 0, FRAMES), doubtful(patch)
    found = clusters(block, logit)
    first = np.arange(len(found)) == 0
    given = (block, found, 0.0, logit, unknown(tracks), Rigidity(block, logit), None)
    full, some = describe(*given), describe(*given, lambda channels: first)
    around = np.isin(CHANNELS, AROUND)
    assert len(found) > 1 and np.isfinite(full[:, around]).all()
    assert np.array_equal(some[0], full[0], equal_nan=True) and np.isnan(some[1:, around]).all()
    assert np.array_equal(some[:, ~around], full[:, ~around], equal_nan=True)


def test_what_is_hopeless_is_not_looked_at_any_further(monkeypatch: pytest.MonkeyPatch) -> None:
    tracks, patch = panned()
    looked: list[Cluster] = []
    monkeypatch.setattr("segmotion_plugin.motion.cluster_channels._around", lambda block, cluster, *rest: looked.append(cluster) or {})
    second_look(constant(-3.0), tracks, doubtful(patch), unknown(tracks), SIZE)
    assert not looked
    second_look(constant(-1.0), tracks, doubtful(patch), unknown(tracks), SIZE)
    assert looked


def test_what_stands_out_and_hangs_together_is_a_cluster() -> None:
    tracks, patch = panned()
    found = clusters(Block(tracks, SIZE, 0, FRAMES), doubtful(patch))
    assert set(max(found, key=lambda c: len(c.members)).members) == set(np.flatnonzero(patch))
    sets = [frozenset(c.members.tolist()) for c in found]
    assert len(set(sets)) == len(sets)
    for one in sets:
        for other in sets:
            assert one <= other or other <= one or not one & other


def test_neighbours_that_move_differently_are_not_one_cluster() -> None:
    tracks, patch = panned(own=(3.0, 0.0))
    logit = np.full(len(patch), -1.0)
    for cluster in (c for c in clusters(Block(tracks, SIZE, 0, FRAMES), logit) if np.isfinite(c.parting)):
        assert len(set(patch[cluster.members].tolist())) == 1


def test_no_track_above_the_lowest_level_gives_no_cluster() -> None:
    tracks, patch = panned()
    assert clusters(Block(tracks, SIZE, 0, FRAMES), np.full(len(patch), -5.0)) == []


def test_only_clusters_above_a_level_that_is_asked_for_are_found() -> None:
    tracks, patch = panned()
    block, score = Block(tracks, SIZE, 0, FRAMES), doubtful(patch, inside=1.0)
    all_of_them = {c.members.tobytes() for c in clusters(block, score) if c.level >= 0}
    assert all_of_them and {c.members.tobytes() for c in clusters(block, score, lowest=0.0)} == all_of_them


def test_a_handful_of_observations_makes_a_cluster_only_where_it_is_likely() -> None:
    tracks, patch = panned()
    two = np.flatnonzero(patch)[:2]
    xy = tracks.xy[:, :10]
    for inside, expected in ((-0.5, True), (-2.0, False)):
        score = np.full(len(patch), -3.0)
        score[two] = inside
        assert bool(clusters(Block(Tracks.from_dense(xy, np.ones(xy.shape[:2], bool)), SIZE, 0, 10), score)) is expected


def test_a_cluster_is_measured_against_surroundings_and_ground() -> None:
    tracks, patch = panned(own=(1.5, 0.0))
    unit = SIZE[0] / 854
    values = channels_of(tracks, patch)
    for name in ("against surroundings, 4 frames", "against ground below", "against both sides"):
        assert values[name] == pytest.approx(np.log(1.5 / unit + 0.02), abs=0.02)
    assert values["across"] == pytest.approx(1.5 / unit, rel=0.02)
    assert values["up or down"] == pytest.approx(0, abs=0.02)
    still = channels_of(*panned(own=(0.0, 0.0)))
    assert still["against surroundings, 4 frames"] == pytest.approx(np.log(0.02), abs=0.1)
    assert still["against ground below"] == pytest.approx(np.log(0.02), abs=0.1)


def test_channels_do_not_depend_on_the_size_of_the_images() -> None:
    first = channels_of(*panned())
    second = channels_of(*panned(scale=2.0), size=(2 * SIZE[0], 2 * SIZE[1]))
    for name in CHANNELS:
        assert second[name] == pytest.approx(first[name], abs=2e-3, nan_ok=True), name


@pytest.mark.parametrize("verdict", [3.0, -3.0])
def test_tracks_take_the_verdict_on_their_cluster(verdict: float) -> None:
    tracks, patch = panned()
    logit = doubtful(patch, inside=1.0 if verdict < 0 else -1.0)
    after = logit + second_look(constant(verdict), tracks, logit, unknown(tracks), SIZE)
    assert np.array_equal(after[~patch], logit[~patch])
    assert ((after[patch] > 0) == (verdict > 0)).all()


def test_a_patch_of_a_large_mover_is_not_made_static_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tracks, patch = panned()
    logit = doubtful(patch, inside=1.0)
    monkeypatch.setattr(cluster_model, "LARGEST", 0.005)  # the patch as a whole is larger
    after = logit + second_look(constant(-3.0), tracks, logit, unknown(tracks), SIZE)
    assert np.array_equal(after, logit)


def cluster_of(members: list[int]) -> Cluster:
    return Cluster(np.array(members), 0.0, 1.0, 10 * len(members), 0.01, 0, FRAMES - 1, FRAMES)


def test_a_static_part_of_what_moves_is_released_but_not_what_moves_within() -> None:
    whole, pole, ball = list(range(12)), list(range(6)), [4, 5]
    free = np.zeros(14, bool)
    judged = Judged([cluster_of(whole), cluster_of(pole), cluster_of(ball)], np.zeros((3, len(CHANNELS))), free, free)
    settled = cluster_model._settled(judged, Verdicts(*[np.array([3.0, -2.0, 1.0])] * 2), np.full(14, -0.5))
    assert (settled[:4] < -0.5).all() and (settled[4:12] > 0).all() and (settled[12:] == -0.5).all()
    together = cluster_model._settled(judged, Verdicts(*[np.array([3.0, -0.2, 1.0])] * 2), np.full(14, -0.5))
    assert (together[:12] > 0).all()


@pytest.mark.parametrize(("purity", "taken"), [((0.0, 3.0), 5), ((2.0, 3.0), 12)])
def test_of_nested_clusters_that_move_the_larger_is_taken_unless_it_is_impure(purity: tuple[float, float], taken: int) -> None:
    free = np.zeros(14, bool)
    judged = Judged([cluster_of(list(range(12))), cluster_of(list(range(5)))], np.zeros((2, len(CHANNELS))), free, free)
    settled = cluster_model._settled(judged, Verdicts(np.array([3.0, 3.0]), np.array(purity)), np.full(14, -0.5))
    assert ((settled > 0) == (np.arange(14) < taken)).all()


def test_neighbours_that_ever_part_are_not_one_rigid_cluster() -> None:
    tracks, patch = panned(own=(0.0, 0.0))
    xy = tracks.xy.copy()
    half = patch & (tracks.xy[:, 0, 0] > 140)
    xy[half, FRAMES // 2 :, 0] += 4.0 * np.arange(FRAMES - FRAMES // 2)
    parted = Tracks.from_dense(xy, tracks.visible)
    found = clusters(Block(parted, SIZE, 0, FRAMES), doubtful(patch))
    rigid = [c for c in found if np.isfinite(c.parting)]
    assert all(len(set(half[c.members].tolist())) == 1 for c in rigid)
    assert any(set(c.members) == set(np.flatnonzero(half)) for c in rigid)
    assert any(set(c.members) == set(np.flatnonzero(patch)) for c in found)


def test_the_second_look_follows_the_order_of_the_tracks() -> None:
    tracks, patch = panned()
    logit = doubtful(patch, inside=0.5)
    order = np.random.default_rng(1).permutation(len(tracks))
    pooled = {name: np.random.default_rng(2).normal(size=len(tracks)) for name in POOLED}
    model = ClusterModel.load(DEFAULT_WEIGHTS)
    first = second_look(model, tracks, logit, pooled, SIZE)
    shuffled = {name: values[order] for name, values in pooled.items()}
    second = second_look(model, tracks.select(order), logit[order], shuffled, SIZE)
    assert np.abs(first).max() > 0.1
    assert np.allclose(second, first[order], atol=1e-6)


def test_blocks_cover_every_frame_once() -> None:
    for count in (2, 48, 70, 71, 73, 500):
        ranges = blocks(count)
        assert ranges[0][0] == 0 and ranges[-1][1] == count
        assert all(a[1] == b[0] for a, b in zip(ranges[:-1], ranges[1:], strict=True))
        assert all(stop - start <= 72 for start, stop in ranges)


def test_a_mover_of_one_block_moves_in_the_clip() -> None:
    tracks, patch = panned()
    logit = doubtful(patch)
    observed = (tracks.xy_flat, tracks.visible_flat, tracks.confidence_flat)
    long = Tracks(tracks.first + 60, tracks.offset, *observed, tracks.query_frame + 60, 120)
    assert len(blocks(120)) > 1
    shift = second_look(constant(3.0), long, logit, unknown(long), SIZE)
    assert (shift[patch] > 1).all() and not shift[~patch].any()


def separable(count: int = 600, seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    channels = rng.normal(size=(count, len(CHANNELS)))
    moves = rng.random(count) < 0.4
    channels[:, 3] += 4 * moves
    channels[rng.random(count) < 0.2, 5] = np.nan
    return Table(channels, moves.astype(float), np.full(count, 100.0))


def test_training_learns_and_repeats() -> None:
    table = separable()
    model, again = (fit(table, steps=120, networks=2, seed=3) for _ in range(2))
    fresh = separable(seed=9)
    assert quality(model(fresh.channels).moves, fresh)["F1"] > 0.9
    assert quality(-model(fresh.channels).moves, fresh)["AP"] < 0.4
    assert np.array_equal(model(fresh.channels), again(fresh.channels))


def test_what_was_saved_judges_alike(tmp_path: Path) -> None:
    table = separable()
    model = fit(table, steps=20, networks=2, seed=0)
    model.save(tmp_path / "c.safetensors")
    assert np.allclose(ClusterModel.load(tmp_path / "c.safetensors")(table.channels), model(table.channels), atol=1e-4)


def test_weights_that_do_not_fit_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = constant(1.0)
    with pytest.raises(SegmotionError, match="no weights of the cluster model"):
        ClusterModel.load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(SegmotionError, match="not a readable safetensors file"):
        ClusterModel.load(tmp_path / "text.safetensors")
    narrow = ((model.layers[0][0][..., :5], model.layers[0][1]),)
    replace(model, layers=narrow).save(tmp_path / "narrow.safetensors")
    with pytest.raises(SegmotionError, match=f"should take {len(CHANNELS)} inputs"):
        ClusterModel.load(tmp_path / "narrow.safetensors")
    model.save(tmp_path / "old.safetensors")
    monkeypatch.setattr(cluster_model, "CHANNELS", CHANNELS[:-1])
    with pytest.raises(SegmotionError, match="made for"):
        ClusterModel.load(tmp_path / "old.safetensors")


def judged(seed: int, weights: Path | None = None) -> JudgedClip:
    """A clip whose patch moves or not, by the seed."""
    moves = seed % 2 > 0
    tracks, patch = panned(own=(1.5, 0.3) if moves else (0.0, 0.0))
    pooled = np.zeros((len(POOLED), len(tracks)))
    return JudgedClip(
        np.array(SIZE), np.array(FRAMES), tracks.first, tracks.length, tracks.xy_flat, doubtful(patch, seed=seed), pooled,
        (patch & moves).astype(float), np.zeros((FRAMES, SIZE[1], SIZE[0]), np.uint8),
    )  # fmt: skip


def test_one_command_makes_clips_resumes_and_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def made_now(seed: int, weights: Path | None = None) -> JudgedClip:
        made.append(seed)
        return judged(seed)

    monkeypatch.setattr(JudgedClip, "made", made_now)
    config = ClusterConfig(out=tmp_path, clips=6, steps=60, networks=1)
    said = training.main(config)
    assert "cluster model: average precision 1.000" in said
    ClusterModel.load(tmp_path / "export" / "clusters.safetensors")
    card = (tmp_path / "export" / "CLUSTERS.md").read_text()
    assert "Apache-2.0" in card and "segmotion train clusters" in card
    training.main(config)
    assert len(made) == 6
    damaged = sorted((tmp_path / "clusters").glob("*.npz"))[0]
    damaged.write_bytes(b"half")
    with pytest.raises(SegmotionError, match="not a judged clip"):
        training.main(config)


def test_training_needs_clusters_of_both_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JudgedClip, "made", lambda seed, weights=None: judged(0))
    with pytest.raises(SegmotionError, match="without clusters of both kinds"):
        training.main(ClusterConfig(out=tmp_path, clips=4, steps=10, networks=1))


def test_a_rendered_world_is_judged_and_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_SIZES", ((128, 72),) * 3)
    seed = 300_000_003
    clip = JudgedClip.made(seed)
    clip.save(clip_path(tmp_path, seed))
    table, again = clip.table(), JudgedClip.load(clip_path(tmp_path, seed)).table()
    assert table.channels.shape == (len(table.purity), len(CHANNELS)) and len(table.purity) > 0
    assert np.array_equal(table.channels, again.channels, equal_nan=True)
    assert ((table.purity >= 0) & (table.purity <= 1)).all() and (table.observations > 0).all()


def test_weights_trained_elsewhere_bring_their_own_cluster_model(tmp_path: Path) -> None:
    from segmotion_plugin.motion.model import DEFAULT_WEIGHTS as TRACK_WEIGHTS

    tracks, patch = panned(own=(2.0, 0.7))
    weights = tmp_path / TRACK_WEIGHTS.name
    weights.write_bytes(TRACK_WEIGHTS.read_bytes())
    alone = classify(tracks, SIZE, weights=weights).probability
    constant(-3.0).save(tmp_path / DEFAULT_WEIGHTS.name)
    second = classify(tracks, SIZE, weights=weights).probability
    assert (second <= alone + 1e-6).all() and (second < alone - 0.01).any()
