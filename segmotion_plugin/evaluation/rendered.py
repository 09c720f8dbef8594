"""Evaluation on rendered worlds: pixels, objects, and the cameras that the masks lead to, for each type of scene.

DAVIS shows one salient object under mild parallax. What reconstruction needs are other things: static clutter under parallax, movers
that fill the picture or are tiny, that rest, or that the camera follows. The worlds of `segmotion_plugin.simulation.scenes` show
these with exact truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation.datasets import VideoSequence, label_files, paired_sequence
from segmotion_plugin.evaluation.methods import Method
from segmotion_plugin.evaluation.report import Evaluation, contact_sheet, worst_frames, write_report
from segmotion_plugin.evaluation.scoring import cached, predict_labels, result_line, score_sequence
from segmotion_plugin.files import write_json, write_npz, write_png
from segmotion_plugin.masks import keep_from_labels
from segmotion_plugin.ownership import claim
from segmotion_plugin.settings import MaskSettings

Reconstruct = Callable[[Path, "Path | None", Path], "Cameras | None"]
"""`reconstruct(images, colmap_keep_masks, work)`: cameras of a folder of images, or None where none can be found."""

COLUMNS = (
    "clips", "J", "F", "share_masked", "share_truth", "object_J", "count_right", "switches_per_object", "J_moving",
    "false_positives_per_frame", "track_AUC", "track_F1", "trajectory", "trajectory_true_masks", "registered",
    "trajectory_ok", "seconds_per_frame", "cpu_seconds_per_frame",
)  # fmt: skip
TRAJECTORY_FLOOR = 0.002
"""A trajectory error up to this share of the path is good whatever the true masks give."""


def evaluate_rendered(
    methods: Sequence[Method],
    out: Path | str,
    *,
    scenes: Iterable[str] | None = None,
    seeds: Iterable[int] = range(3),
    num_frames: int = 48,
    width: int = 480,
    height: int = 270,
    reconstruct: Reconstruct | None = None,
    resume: bool = True,
    say: Callable[[str], None] = print,
) -> list[Evaluation]:
    """Score methods on rendered worlds.

    Writes `report.md` and `report.json` with a row per type of scene, `METHOD/worst.png`, the clips (`clips/TYPE-SEED`) and the
    results per clip (`METHOD/sequences`). Where nothing moves only the share of masked pixels counts; J is left out there.

    Args:
        methods: what to score.
        out: folder of the results.
        scenes: types of scenes, all of `simulation.scenes.NAMES` when absent.
        seeds: one clip of every type for each.
        num_frames: frames per clip.
        width: in pixels.
        height: in pixels.
        reconstruct: finds cameras from images and keep masks; when given, the trajectory error with predicted masks is compared
            with that with true masks, where the camera travels.
        resume: take results that are there.
        say: called with one line per clip and method, and per type of scene.

    Returns:
        One evaluation per method whose rows are the types of scenes.

    Raises:
        SegmotionError: an unknown type of scene, no seed, or masks that do not fit.
    """
    from segmotion_plugin.simulation import scenes as worlds

    seeds = list(seeds)
    names = list(worlds.NAMES) if scenes is None else list(scenes)
    unknown = [name for name in names if name not in worlds.NAMES]
    if unknown:
        raise SegmotionError(f"no scenes named {', '.join(unknown)}; there are: {', '.join(worlds.NAMES)}")
    if not seeds or not names:
        raise SegmotionError("an evaluation on rendered worlds needs at least one type of scene and one seed")
    out, size = claim(Path(out)), (num_frames, width, height)
    evaluations = []
    for method in methods:
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        scored = []
        for name in names:
            for seed in seeds:
                clip = RenderedClip.load_or_render(out / "clips", name, seed, size)

                def compute(method: Method = method, clip: RenderedClip = clip) -> dict[str, Any]:
                    return _score(method, clip, out, reconstruct)

                key = {
                    "method": method.name,
                    "settings": dict(method.settings),
                    "clip": clip.key,
                    "reconstruct": reconstruct is not None,
                }
                label = f"{name}-{seed}"
                result = cached(out / method.name / "sequences" / f"{label}.json", key, resume, compute)
                rows[name].append({k: v for k, v in result.items() if k not in ("frames", "labels")})
                say(result_line(method.name, {"sequence": label, **result}))
                if "J" in result and Path(result["labels"]).is_dir():
                    scored.append((clip.sequence, Path(result["labels"]), result["frames"]))
        table = [
            {"sequence": name, "clips": len(rows[name]), **Evaluation.of(method.name, rows[name]).mean} for name in names
        ]
        for row in table:
            say(result_line(method.name, row))
        evaluations.append(Evaluation.of(method.name, table))
        if scored:
            contact_sheet(out / method.name / "worst.png", worst_frames(scored), f"{method.name}, worst frames")
    write_report(out, f"Rendered worlds, {len(seeds)} clips of each type", evaluations, COLUMNS)
    return evaluations


def reconstruct_with_colmap(images: Path, keep_masks: Path | None, work: Path) -> Cameras | None:
    """The reconstruction of our pipeline, on a plain folder of images with COLMAP keep masks."""
    from segmotion_plugin.reconstruct.job import cameras_with_masks

    return cameras_with_masks(images, keep_masks, work)


class RenderedClip:
    """A rendered clip on disk: a sequence with true labels, which object moves when, and the true cameras."""

    def __init__(self, folder: Path, key: dict[str, Any]) -> None:
        self.folder, self.key = folder, key
        self.sequence: VideoSequence = paired_sequence(folder.name, folder / "images", folder / "masks")
        with np.load(folder / "truth.npz", allow_pickle=False) as data:
            self.moving = data["moving"]
            count, width, height = len(self.moving), int(data["width"]), int(data["height"])
            names = [path.name for path in self.sequence.images]
            self.cameras = Cameras(
                names, np.arange(count), width, height, str(data["model"]), data["params"], data["cam_from_world"]
            )

    @classmethod
    def load_or_render(cls, root: Path, name: str, seed: int, size: tuple[int, int, int]) -> RenderedClip:
        """Read `ROOT/NAME-SEED`, or render it there; `size` is (frames, width, height)."""
        from segmotion_plugin.simulation import render_frames, scenes

        folder = root / f"{name}-{seed}"
        key = {"scene": name, "seed": seed, "size": list(size)}

        def render() -> dict[str, Any]:
            world = scenes.build(name, seed, *size)
            for path in [*folder.glob("images/*.png"), *folder.glob("masks/*.png")]:
                path.unlink()
            for frame, (image, labels, _) in enumerate(render_frames(world)):
                write_png(folder / "images" / f"frame_{frame + 1:05d}.png", image, compression=1)
                write_png(folder / "masks" / f"frame_{frame + 1:05d}.png", labels)
            cameras = world.cameras
            write_npz(
                folder / "truth.npz",
                moving=world.moving,
                model=np.array(cameras.model),
                params=cameras.params,
                cam_from_world=cameras.cam_from_world,
                width=np.array(size[1]),
                height=np.array(size[2]),
            )
            return {}

        cached(folder / "clip.json", key, True, render)
        return cls(folder, key)

    @property
    def travels(self) -> bool:
        """Whether the camera changes its place (there is no trajectory to compare otherwise)."""
        return float(np.ptp(self.cameras.centers(), axis=0).max()) > 1e-6


def _score(method: Method, clip: RenderedClip, out: Path, reconstruct: Reconstruct | None) -> dict[str, Any]:
    sequence, count = clip.sequence, len(clip.sequence)
    labels, seconds = predict_labels(method, sequence.name, sequence.images_folder, count, out / method.name)
    scores = score_sequence(sequence, labels, clip.moving)
    if not clip.moving.any():
        for key in ("J", "F", "JF", "count_right"):  # one masked pixel would turn a 1 into a 0
            scores.pop(key, None)
    if reconstruct is not None and clip.travels:
        work = out / method.name / "cameras" / sequence.name
        scores |= _trajectory("", clip, label_files(labels, count), work, reconstruct)
        true_result = cached(
            clip.folder / "true_masks.json",
            clip.key,
            True,
            lambda: _trajectory("_true_masks", clip, sequence.labels(), clip.folder / "cameras", reconstruct),
        )
        scores |= true_result
        error, true_error = scores["trajectory"], true_result["trajectory_true_masks"]
        limit = max(2 * true_error, TRAJECTORY_FLOOR) if true_error is not None else np.inf
        scores["trajectory_ok"] = error is not None and error <= limit
    return {"labels": str(labels.resolve()), **seconds, **scores}


def _trajectory(
    suffix: str, clip: RenderedClip, labels: Iterable[np.ndarray], work: Path, reconstruct: Reconstruct
) -> dict[str, Any]:
    """Error of the cameras found with these labels masked, as a share of the path, and the share of images registered."""
    from segmotion_plugin.evaluation.poses import trajectory_error

    masks = work / "colmap_masks"
    radius = MaskSettings().dilation(clip.cameras.width, clip.cameras.height)
    for path, image in zip(clip.sequence.images, labels, strict=True):
        write_png(masks / f"{path.name}.png", keep_from_labels(image, radius))
    found = reconstruct(clip.sequence.images_folder, masks, work / "colmap")
    if found is None or len(found) < 2:
        errors = {f"trajectory{suffix}": None, f"registered{suffix}": 0.0}
    else:
        measured = trajectory_error(found, clip.cameras)
        errors = {f"trajectory{suffix}": measured.trajectory_fraction, f"registered{suffix}": measured.registered}
    write_json(work / "errors.json", errors)
    return errors
