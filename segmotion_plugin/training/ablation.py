"""What each part of the motion model is worth: one table from one command.

Geometric baselines need no training. The variants of the model are trained on the same clips, with the same number of steps and the
same seed as a full model of that budget, so their rows compare with that row and not with the shipped weights. They begin from
nothing, or from the shipped weights: the rest is then trained to the end, and has some steps to make up for the missing part.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from segmotion_plugin.clip import natural_key, read_rgb
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation.tracks import best_f1, track_truth
from segmotion_plugin.files import write_text
from segmotion_plugin.motion.classifier import classify, geometric_scores, merged_logits
from segmotion_plugin.motion.model import Calibration, ModelConfig, TrajectoryTransformer, load_weights
from segmotion_plugin.ownership import claim
from segmotion_plugin.simulation.render import render
from segmotion_plugin.simulation.world import World
from segmotion_plugin.simulation.worlds import random_world
from segmotion_plugin.training.calibrate import LabelledClip, Scorer, averages, calibrate, scores
from segmotion_plugin.training.clips import pool
from segmotion_plugin.training.loop import TrainConfig, optimise
from segmotion_plugin.training.rendered import described_tracks, labelled

BASELINES = ("homography", "homography / median", "sampson", "sampson / median", "both / median")
_FULL = "full model, same budget"
_TWIN_SEEDS = 300_000_000  # of the worlds with parked twins; training uses others


@dataclass
class AblationConfig:
    """Measure baselines, the shipped weights, and variants of the model.

    Attributes:
        clips: folder with `exact`, `tracked` and `held_out` clips, as `segmotion train` leaves them.
        twins: worlds with parked twins of movers to render as a set of their own.
        davis: folder with SEQUENCE/images and SEQUENCE/masks, or none.
        out: folder of the variants' checkpoints and of the table.
        steps: optimiser steps of every variant; 0 measures baselines and shipped weights only.
        start: what the variants begin with.
        variants: rows of the variants to train, by name; all when absent.
        tracks: most tracks per clip that are judged.
        seed: of everything random.
    """

    clips: Path = Path("training")
    twins: int = 24
    davis: Path | None = None
    out: Path = Path("ablation")
    steps: int = 800
    start: Literal["nothing", "shipped"] = "nothing"
    variants: tuple[str, ...] = ()
    tracks: int = 2500
    seed: int = 0


def variants(base: ModelConfig) -> dict[str, ModelConfig]:
    """The models that are trained, by the name of their row."""
    return {
        _FULL: base,
        "without geometry channels": replace(base, geometry=False),
        "without attention across tracks": replace(base, across_tracks=False),
        "without temporal encoding": replace(base, temporal_encoding=False),
        "semantics fed to the encoder": replace(base, semantics="encoder"),
        "without semantics": replace(base, semantics="none"),
        "without depth": replace(base, depth=False),
    }


def davis_clips(root: Path, most: int, seed: int) -> Iterator[LabelledClip]:
    """Sequences of DAVIS, tracked; truth from the masks by majority.

    Raises:
        SegmotionError: no sequence with images and masks under `root`.
    """
    folders = [p for p in sorted(Path(root).iterdir()) if (p / "images").is_dir() and (p / "masks").is_dir()]
    if not folders:
        raise SegmotionError(f"{root}: no folder with 'images' and 'masks' in it")
    for folder in folders:
        frames = [read_rgb(p) for p in sorted((folder / "images").iterdir(), key=lambda p: natural_key(p.name))]
        masks = [read_rgb(p)[..., 0] > 0 for p in sorted((folder / "masks").iterdir(), key=lambda p: natural_key(p.name))]
        tracks, features = described_tracks(frames, np.random.default_rng(seed), most)
        truth = track_truth(tracks, (m.astype(np.uint8) for m in masks))
        size = (frames[0].shape[1], frames[0].shape[0])
        yield LabelledClip(folder.name, tracks, size, truth, None, features.astype(np.float32))


def held_out_clips(folder: Path, most: int, seed: int) -> list[LabelledClip]:
    """Stored held-out clips, thinned."""
    clips = []
    for path in pool(folder):
        clips.append(_thinned(LabelledClip.from_training(path), most, seed))
    return clips


def has_parked_twin(world: World) -> bool:
    """Whether a thing of a mover's kind rests in the world."""
    movers = {item.class_id for item in world.primitives if item.object_id}
    return any(item.object_id == 0 and item.class_id in movers for item in world.primitives)


def twin_clips(count: int, most: int, seed: int) -> Iterator[LabelledClip]:
    """Rendered and tracked random worlds in which a twin of a mover is parked: what looks like a mover need not be one."""
    made = 0
    for number in itertools.count(_TWIN_SEEDS):
        if made == count:
            return
        rng = np.random.default_rng(number)
        world = random_world(rng, num_frames=32, width=427, height=240)
        if not has_parked_twin(world):
            continue
        clip = render(world)
        twins = labelled(clip, *described_tracks(list(clip.frames), np.random.default_rng([seed, number]), most))
        if twins.moving.any():
            made += 1
            yield LabelledClip.from_clip(f"twins_{number}", twins)


def _thinned(clip: LabelledClip, most: int, seed: int) -> LabelledClip:
    """The clip with at most so many of its tracks."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(clip.tracks))[:most])
    rows = np.isin(clip.tracks.track_flat, chosen)
    return replace(
        clip,
        tracks=clip.tracks.select(chosen),
        truth=clip.truth[chosen],
        moving=None if clip.moving is None else clip.moving[rows],
        features=None if clip.features is None else clip.features[chosen],
        depth=None if clip.depth is None else clip.depth[rows],
    )


def main(config: AblationConfig) -> str:
    """Measure everything; returns the table (Markdown), also written to `config.out`.

    Raises:
        SegmotionError: no held-out clips.
    """
    held_out = held_out_clips(Path(config.clips) / "held_out", config.tracks, config.seed)
    if len(held_out) < 2:
        raise SegmotionError(f"{config.clips}: fewer than two held-out clips; 'segmotion train' makes them")
    out = claim(Path(config.out))
    fitting, sets = held_out[::2], {"held-out simulation": held_out[1::2]}
    if config.twins > 0:
        sets["parked twins"] = list(twin_clips(config.twins, config.tracks, config.seed))
    if config.davis is not None:
        sets["DAVIS"] = list(davis_clips(Path(config.davis), config.tracks, config.seed))
    rows: dict[str, Scorer] = {}
    thresholds: dict[str, float] = {}
    known: dict[str, dict[str, np.ndarray]] = {}
    for name in BASELINES:
        rows[name] = _baseline(name, config.seed, known)
        # A baseline has no calibrated output: its one fixed threshold is the median of the best ones on the fitting half.
        best = [best_f1(rows[name](clip), clip.truth > 0)[1] for clip in fitting if (clip.truth > 0).any()]
        thresholds[name] = float(np.median(best)) if best else 0.5
    rows["shipped weights"] = _shipped(config.seed, semantics=True)
    rows["shipped weights, tracks alone"] = _shipped(config.seed, semantics=False)
    if config.steps > 0:
        wanted = variants(ModelConfig())
        unknown = set(config.variants) - set(wanted)
        if unknown:
            raise SegmotionError(f"--variants {', '.join(sorted(unknown))}: not known; choose from {', '.join(wanted)}")
        for name, shape in wanted.items():
            if config.variants and name not in config.variants:
                continue
            model, calibration = _trained(config, name, shape, fitting)
            rows[name] = _model_scorer(model, calibration, config.seed)
    table = _table(rows, sets, thresholds)
    write_text(out / "ablation.md", table)
    return table


def _baseline(name: str, seed: int, known: dict[str, dict[str, np.ndarray]]) -> Scorer:
    """Scores of one baseline; `known` keeps those of a clip, as all baselines come from the same fits."""

    def scorer(clip: LabelledClip) -> np.ndarray:
        if clip.name not in known:
            known[clip.name] = geometric_scores(clip.tracks, clip.size, seed)
        return known[clip.name][name]

    return scorer


def _shipped(seed: int, semantics: bool) -> Scorer:
    """The shipped weights as the pipeline uses them: without depth."""

    def scorer(clip: LabelledClip) -> np.ndarray:
        return classify(clip.tracks, clip.size, seed=seed, features=clip.features if semantics else None).probability

    return scorer


def _trained(config: AblationConfig, name: str, shape: ModelConfig, fitting: list[LabelledClip]
             ) -> tuple[TrajectoryTransformer, Calibration]:  # fmt: skip
    clips = Path(config.clips)
    train = TrainConfig(steps=config.steps, fine_steps=0, seed=config.seed, model=shape)
    file = Path(config.out) / f"{name.replace(' ', '_').replace(',', '')}.pt"
    file.parent.mkdir(parents=True, exist_ok=True)
    initial = load_weights()[0].state_dict() if config.start == "shipped" else None
    average = optimise(train, clips / "exact", clips / "tracked", file, report=False, initial=initial)
    model = TrajectoryTransformer(shape)
    model.load_state_dict(average)
    model.eval()
    return model, calibrate(model, fitting, config.seed)


def _model_scorer(model: TrajectoryTransformer, calibration: Calibration, seed: int) -> Scorer:
    def scorer(clip: LabelledClip) -> np.ndarray:
        logit, _ = merged_logits(model, clip.tracks, clip.size, features=clip.features, depth=clip.depth, seed=seed)
        return 1 / (1 + np.exp(-(calibration.track_slope * logit + calibration.track_bias)))

    return scorer


def _table(rows: dict[str, Scorer], sets: dict[str, list[LabelledClip]], thresholds: dict[str, float]) -> str:
    head = "| classifier |" + "".join(f" {name}: AUC | F1 | best F1 |" for name in sets)
    lines = [head, "|---|" + "---|---|---|" * len(sets)]
    for name, scorer in rows.items():
        cells = []
        for clips in sets.values():
            mean = averages(scores(clips, scorer, thresholds.get(name, 0.5)))
            cells += [f"{mean.get(key, float('nan')):.3f}" for key in ("track_AUC", "track_F1", "track_best_F1")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
