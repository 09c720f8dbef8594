"""`segmotion evaluate davis | invariance | rendered | static | benchmarks`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from segmotion_plugin.evaluation.methods import Method, epipolar_method, folder_method, pipeline_method
from segmotion_plugin.settings import MaskSettings

MethodName = Literal["segmotion", "geometric", "epipolar"]


def _methods(
    names: tuple[MethodName, ...], predictions: Path | None, settings: MaskSettings, cameras: bool = False
) -> list[Method]:
    settings.quiet = True
    made: list[Method] = []
    for name in names:
        if name == "epipolar":
            made.append(epipolar_method())
        elif name == "geometric":
            made.append(pipeline_method(MaskSettings(motion="geometric", quiet=True), name))
        else:
            made.append(pipeline_method(settings, name, cameras))
    return made + ([folder_method(predictions)] if predictions is not None else [])


@dataclass
class Davis:
    """J, F, J&F, static pixels masked and mover pixels missed on DAVIS-like sequences (all frames, mean per sequence and root)."""

    roots: tyro.conf.Positional[tuple[Path, ...]]
    """ROOT/SEQUENCE/{images,masks}, or DAVIS's own JPEGImages and Annotations; several are compared."""
    out: Path = Path("evaluation_davis")
    """Folder of the results; finished sequences are taken from there."""
    method: tuple[MethodName, ...] = ("segmotion",)
    """Methods to score, a row each."""
    predictions: Path | None = None
    """Folder of masks made elsewhere (SEQUENCE/*.png) to score as well."""
    sequences: tuple[str, ...] | None = None
    """Only these sequences."""
    every_sequence: int = 1
    """Only every so many of a root's sequences, for a quick look."""
    track_baselines: bool = False
    """Score the subspace baseline on track level as well."""
    cameras: bool = False
    """Reconstruct as well, so that the cameras test the masks (slow)."""
    mask: Annotated[MaskSettings, tyro.conf.arg(name="")] = field(default_factory=MaskSettings)

    def main(self) -> int:
        """Run it."""
        from segmotion_plugin.evaluation.run import evaluate_davis

        methods = _methods(self.method, self.predictions, self.mask, self.cameras)
        evaluate_davis(
            self.roots, methods, self.out, sequences=self.sequences, every=self.every_sequence, track_baselines=self.track_baselines
        )
        print(f"{self.out / 'report.md'}")
        return 0


@dataclass
class Invariance:
    """How far J changes when sequences are mirrored, reversed in time, halved in size, compressed, or begin a frame later."""

    roots: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of sequences, as for `davis`."""
    out: Path = Path("evaluation_invariance")
    """Folder of the results; what is finished is taken from there."""
    method: tuple[MethodName, ...] = ("segmotion",)
    """Methods to score, a row each."""
    kinds: tuple[Literal["mirrored", "reversed", "half", "jpeg60", "shifted"], ...] = (
        "mirrored", "reversed", "half", "jpeg60", "shifted",
    )  # fmt: skip
    """Only these changes."""
    sequences: tuple[str, ...] | None = None
    """Only these sequences."""
    every_sequence: int = 1
    """Only every so many of a root's sequences."""
    mask: Annotated[MaskSettings, tyro.conf.arg(name="")] = field(default_factory=MaskSettings)

    def main(self) -> int:
        """Run it."""
        from segmotion_plugin.evaluation.invariance import evaluate_invariance

        methods = _methods(self.method, None, self.mask)
        evaluate_invariance(self.roots, methods, self.out, kinds=self.kinds, sequences=self.sequences, every=self.every_sequence)
        print(f"{self.out / 'report.md'}")
        return 0


@dataclass
class Rendered:
    """Masks, objects and trajectories on rendered scene types with exact truth."""

    out: Path = Path("evaluation_rendered")
    """Folder of the results; finished clips are taken from there."""
    method: tuple[MethodName, ...] = ("segmotion",)
    """Methods to score, a row each."""
    scenes: tuple[str, ...] | None = None
    """Scene types; all when absent."""
    seeds: int = 3
    """Clips per type."""
    first_seed: int = 1000
    """Seed of the first clip; training uses others."""
    frames: int = 48
    """Frames per clip."""
    cameras: bool = False
    """Reconstruct the cameras as well (slow)."""
    mask: Annotated[MaskSettings, tyro.conf.arg(name="")] = field(default_factory=MaskSettings)

    def main(self) -> int:
        """Run it."""
        from segmotion_plugin.evaluation.rendered import evaluate_rendered, reconstruct_with_colmap

        evaluate_rendered(
            _methods(self.method, None, self.mask),
            self.out,
            scenes=self.scenes,
            seeds=range(self.first_seed, self.first_seed + self.seeds),
            num_frames=self.frames,
            reconstruct=reconstruct_with_colmap if self.cameras else None,
        )
        print(f"{self.out / 'report.md'}")
        return 0


@dataclass
class Static:
    """Share of pixels masked on clips where nothing moves."""

    clips: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of images."""
    out: Path = Path("evaluation_static")
    """Folder of the results."""
    method: tuple[MethodName, ...] = ("segmotion",)
    """Methods to score, a row each."""
    cameras: bool = False
    """Reconstruct as well, so that the cameras test the masks (slow)."""
    mask: Annotated[MaskSettings, tyro.conf.arg(name="")] = field(default_factory=MaskSettings)

    def main(self) -> int:
        """Run it."""
        from segmotion_plugin.evaluation.run import evaluate_static

        evaluate_static(self.clips, _methods(self.method, None, self.mask, self.cameras), self.out)
        print(f"{self.out / 'report.md'}")
        return 0


@dataclass
class Benchmarks:
    """Seconds and peak memory per stage, and how each stage grows with the number of frames."""

    out: Path = Path("evaluation_benchmarks")
    """Folder of the results."""
    reports: tuple[Path, ...] = ()
    """Processed folders whose stages are shown as well."""
    frames: tuple[int, ...] = (16, 32, 64)
    """Lengths to measure."""

    def main(self) -> int:
        """Run it."""
        from segmotion_plugin.evaluation.benchmark import evaluate_benchmarks

        evaluate_benchmarks(self.out, reports=self.reports, frames=self.frames)
        print(f"{self.out / 'report.md'}")
        return 0


COMMANDS = (
    Annotated[Davis, tyro.conf.subcommand("davis")]
    | Annotated[Invariance, tyro.conf.subcommand("invariance")]
    | Annotated[Rendered, tyro.conf.subcommand("rendered")]
    | Annotated[Static, tyro.conf.subcommand("static")]
    | Annotated[Benchmarks, tyro.conf.subcommand("benchmarks")]
)
