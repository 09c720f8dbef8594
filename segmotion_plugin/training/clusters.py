"""``segmotion train clusters``: the model that judges clusters of tracks, on worlds rendered, tracked and judged track by track."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.progress import track as show_progress
from torch import Tensor, nn

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import write_text
from segmotion_plugin.motion.classifier import PairMeans, merged_logits
from segmotion_plugin.motion.cluster_channels import AROUND, CHANNELS, POOLED
from segmotion_plugin.motion.cluster_model import DEFAULT_WEIGHTS, LARGEST, ClusterModel, judged_clusters
from segmotion_plugin.motion.clusters import Block
from segmotion_plugin.motion.model import load_weights
from segmotion_plugin.ownership import claim
from segmotion_plugin.simulation.render import render
from segmotion_plugin.simulation.still_life import still_life
from segmotion_plugin.simulation.world import World
from segmotion_plugin.tracks import Tracks
from segmotion_plugin.training.clips import StoredClip, clip_path, hurried, named_scene, parked, pool, random_scene
from segmotion_plugin.training.rendered import labelled_tracks

_SIZES = ((384, 216), (480, 270), (640, 360))
_SIZE_SHARES = (0.3, 0.5, 0.2)
_SEEDS = 300_000_000  # away from those of the clips that the track model is trained on
_HIDDEN = (32, 16)
_NOISE = 0.3  # standard deviation of what is added to the inputs, themselves of deviation 1
_SMOOTHING = 0.02
_HIDDEN_AROUND = 0.1  # share of the clusters that are shown without `AROUND`: the first verdict is given without
_BY_PURITY = 0.5  # weight of how pure a cluster is, beside whether it moves
_MIXED, _CLEAR = 0.45, 0.25  # purity that tells least, and how far from it a cluster is clear
_HELD_OUT = 5  # every fifth clip measures the model that is fitted on the others; the shipped one is fitted on all


@dataclass
class ClusterConfig:
    """Train the model that judges clusters of tracks as a whole; an interrupted run goes on from its clips.

    Attributes:
        out: folder for the clips and the exported weights.
        clips: worlds to render, track and judge track by track.
        weights: of the track model whose logits the clusters are made from; the shipped ones when absent.
        steps: optimiser steps.
        networks: number of networks whose logits are averaged.
        seed: of everything random.
        threads: of torch.
        export: where the weights go when done; inside `out` when absent.
    """

    out: Path = Path("training")
    clips: int = 150
    weights: Path | None = None
    steps: int = 1200
    networks: int = 5
    seed: int = 0
    threads: int = 1
    export: Path | None = None


@dataclass
class Table:
    """Clusters of one or more clips.

    Attributes:
        channels: K×C, NaN = unknown.
        purity: K, share of their observations that lie on movers.
        observations: K.
    """

    channels: np.ndarray
    purity: np.ndarray
    observations: np.ndarray

    @property
    def moves(self) -> np.ndarray:
        """K bool: more than half lies on movers."""
        return self.purity > 0.5

    @property
    def size(self) -> np.ndarray:
        """K: large clusters count more, but not as much as they are larger."""
        return np.sqrt(np.minimum(self.observations, 2000.0)) / 10

    @property
    def weight(self) -> np.ndarray:
        """K: `size`, less for mixed ones: of a tiny mover and the rim that flow drags along with it about one half is the mover."""
        return np.clip(np.abs(self.purity - _MIXED) / _CLEAR, 0.1, 1) * self.size

    @classmethod
    def joined(cls, tables: list[Table]) -> Table:
        """One table of many."""
        return cls(*(np.concatenate([getattr(t, name) for t in tables]) for name in ("channels", "purity", "observations")))


def _world(rng: np.random.Generator, frames: int, size: tuple[int, int]) -> World:
    """Many worlds with tiny movers, many where nothing moves but much stands before something else, and some of all kinds."""
    kind = rng.random()
    if kind < 0.4:
        return named_scene(rng, "tiny_movers", frames, size)
    if kind < 0.5:
        return still_life(rng, frames, *size)
    if kind < 0.6:
        return hurried(random_scene(rng, 2 * frames, size, 0.0), 2)
    if kind < 0.7:
        return parked(random_scene(rng, frames, size, 0.0), int(rng.integers(frames)), 1)
    return random_scene(rng, frames, size, 0.3)


@dataclass
class JudgedClip(StoredClip):
    """All tracks of a rendered clip with what the track model says of them, and the truth.

    Attributes:
        size: 2, (width, height).
        frames: 1, number of frames.
        first: N, first frame of every track.
        length: N, number of its observations.
        xy: M×2, observations of all tracks.
        logit: N calibrated log odds.
        pooled: P×N means of the geometry channels `cluster_channels.POOLED`.
        on_mover: N, share of a track's observations that lie on a mover.
        pictures: T×H×W uint8 grey.
    """

    what = "judged clip"

    size: np.ndarray
    frames: np.ndarray
    first: np.ndarray
    length: np.ndarray
    xy: np.ndarray
    logit: np.ndarray
    pooled: np.ndarray
    on_mover: np.ndarray
    pictures: np.ndarray

    @classmethod
    def made(cls, seed: int, weights: Path | None = None) -> JudgedClip:
        """Render the world of a seed, track it, and judge the tracks."""
        rng = np.random.default_rng(seed)
        size = _SIZES[rng.choice(len(_SIZES), p=_SIZE_SHARES)]
        clip = render(_world(rng, int(rng.choice([32, 40, 48])), size))
        tracks, features, on_mover = labelled_tracks(clip)
        model, calibration = load_weights(weights)
        pairs = PairMeans(len(tracks))
        logit, _ = merged_logits(model, tracks, size, features=features, seed=0, pairs=pairs)
        logit = calibration.track_slope * logit + calibration.track_bias
        means = pairs.means()
        return cls(
            np.array(size), np.array(tracks.num_frames), tracks.first, tracks.length, tracks.xy_flat, logit,
            np.stack([means[name] for name in POOLED]), on_mover,
            np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.frames]),
        )  # fmt: skip

    def table(self) -> Table:
        """The small clusters of the clip, described and labelled."""
        offset = np.concatenate([[0], np.cumsum(self.length)])
        seen = np.ones(len(self.xy))
        tracks = Tracks(self.first, offset, self.xy, seen > 0, seen, self.first, int(self.frames))
        size = (int(self.size[0]), int(self.size[1]))
        pooled = dict(zip(POOLED, self.pooled, strict=True))
        judged = judged_clusters(Block(tracks, size, 0, tracks.num_frames), self.logit, pooled, self.pictures)
        purity = [np.average(self.on_mover[c.members], weights=self.length[c.members]) for c in judged.small]
        return Table(judged.channels, np.array(purity), np.array([c.observations for c in judged.small], float))


def fit(table: Table, steps: int, networks: int, seed: int) -> ClusterModel:
    """Networks fitted to clusters with noise on their inputs, each from its own start: whether they move, and how pure they are."""
    unknown, around = ~np.isfinite(table.channels), np.isin(CHANNELS, AROUND)
    model = ClusterModel(
        mean=np.nanmean(table.channels, axis=0),
        scale=np.nanstd(table.channels, axis=0) + 1e-6,
        optional=(unknown.mean(axis=0) > 0.01) | around,
        layers=(),
    )
    channels = table.channels, np.where(around, np.nan, table.channels)
    inputs = torch.from_numpy(np.stack([model.inputs(shown) for shown in channels]).astype(np.float32))
    target = torch.from_numpy(np.stack([table.moves, table.purity], axis=1).astype(np.float32)) * (1 - 2 * _SMOOTHING) + _SMOOTHING
    weight = torch.from_numpy(np.stack([table.weight, _BY_PURITY * table.size], axis=1).astype(np.float32))
    fitted = [_optimised(inputs, target, weight, steps, seed * 1000 + number) for number in range(networks)]
    layers = []
    for parts in zip(*(network[::3] for network in fitted), strict=True):
        stacked = [torch.stack([getattr(part, name).detach() for part in parts]).numpy() for name in ("weight", "bias")]
        layers.append((stacked[0], stacked[1]))
    return ClusterModel(model.mean, model.scale, model.optional, tuple(layers))


def _optimised(inputs: Tensor, target: Tensor, weight: Tensor, steps: int, seed: int) -> nn.Sequential:
    """One network of three linear layers, at the places 0, 3 and 6; `inputs` 2×K×I are those with and without `AROUND`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # starting values and dropout
        widths = (inputs.shape[2], *_HIDDEN)
        parts: list[nn.Module] = []
        for narrow, wide in zip(widths[:-1], widths[1:], strict=True):
            parts += [nn.Linear(narrow, wide), nn.SiLU(), nn.Dropout(0.1)]
        network = nn.Sequential(*parts, nn.Linear(widths[-1], target.shape[1]))
        optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=steps)
        for _ in range(steps):
            batch = torch.randint(len(target), (512,), generator=generator)
            without = (torch.rand(len(batch), generator=generator) < _HIDDEN_AROUND).long()
            noisy = inputs[without, batch] + _NOISE * torch.randn(len(batch), inputs.shape[2], generator=generator)
            loss = nn.functional.binary_cross_entropy_with_logits(network(noisy), target[batch], weight[batch], reduction="sum")
            optimiser.zero_grad()
            (loss / len(batch)).backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def quality(verdict: np.ndarray, table: Table) -> dict[str, float]:
    """Average precision, and F1 of verdicts above 0, of clusters weighed by `Table.weight`."""
    order = np.argsort(-verdict, kind="stable")
    moves, weight = table.moves[order], table.weight[order]
    hit, called = np.cumsum(weight * moves), np.cumsum(weight)
    precision = float((hit / called * weight * moves).sum() / max((weight * moves).sum(), 1e-9))
    yes = table.weight * (verdict > 0)
    both = float((yes * table.moves).sum())
    return {"AP": precision, "F1": 2 * both / max(float(yes.sum() + (table.weight * table.moves).sum()), 1e-9)}


def main(config: ClusterConfig) -> str:
    """Make the clips, measure on those held out, fit on all, and export.

    Returns:
        What was measured, and where the weights are.

    Raises:
        SegmotionError: too few clips, or none of them has clusters of both kinds.
    """
    torch.set_num_threads(config.threads)
    out = claim(Path(config.out))
    folder = out / "clusters"
    first = _SEEDS + config.seed * 1_000_000
    seeds = [seed for seed in range(first, first + config.clips) if not clip_path(folder, seed).exists()]
    for seed in show_progress(seeds, description="rendering, tracking, judging", disable=not seeds):
        JudgedClip.made(seed, config.weights).save(clip_path(folder, seed))
    paths = pool(folder)
    tables = [JudgedClip.load(path).table() for path in show_progress(paths, description="describing clusters", disable=not paths)]
    rest = [t for number, t in enumerate(tables) if number % _HELD_OUT]
    if len(rest) < 2 or len({bool(v) for t in rest for v in t.moves}) < 2:
        raise SegmotionError(f"{folder}: {len(tables)} clips without clusters of both kinds; make more with --clips")
    test = Table.joined(tables[::_HELD_OUT])
    judged = quality(fit(Table.joined(rest), config.steps, config.networks, config.seed)(test.channels).moves, test)
    alone = quality(test.channels[:, CHANNELS.index("mean logit")], test)
    target = claim(Path(config.export) if config.export else out / "export") / DEFAULT_WEIGHTS.name
    model = fit(Table.joined(tables), config.steps, config.networks, config.seed)
    model.save(target)
    measured = [
        f"{name}: average precision {row['AP']:.3f}, F1 {row['F1']:.3f}"
        for name, row in (("mean logit of the tracks", alone), ("cluster model", judged))
    ]
    _write_card(target.with_name("CLUSTERS.md"), config, len(tables), sum(len(t.purity) for t in tables), measured)
    return "\n".join([*measured, str(target)])


def _write_card(path: Path, config: ClusterConfig, clips: int, count: int, measured: list[str]) -> None:
    lines = [
        "# clusters.safetensors",
        "",
        f"Says for clusters of tracks below {100 * LARGEST:.0f} % of all whether they move in the world and how pure they are,",
        f"from the {len(CHANNELS)} channels of `motion/cluster_channels.py`; the tracks, judged one by one by the transformer,",
        "take the verdict.",
        "",
        f"- {config.networks} networks with hidden layers of {_HIDDEN[0]} and {_HIDDEN[1]} units, averaged. Licence: Apache-2.0.",
        f"- Trained on {count:,} clusters of {clips} simulated worlds, rendered and tracked by the embedded tracker: two fifths",
        "  with tiny movers, three tenths without any, the others random. No real video, no third-party data.",
        f"- On every {_HELD_OUT}th clip, by a model fitted on the others (clusters weighed by the root of their size and by purity):",
        *[f"  - {line}" for line in measured],
        "",
        "To make it again, with the shipped weights of the transformer:",
        "",
        f"    segmotion train clusters --out DIR --clips {config.clips} --steps {config.steps} --seed {config.seed}",
        "",
        "Limits: a cluster is judged against what lies around it, so what moves like a thing nearer or farther that stands on nothing",
        "visible, along the camera's own path, stays in doubt.",
    ]
    write_text(path, "\n".join(lines) + "\n")
