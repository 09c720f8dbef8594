"""One shot: mapper runs from several focal length priors, judged against each other, and the best one refined."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pycolmap

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.reconstruct import database as db
from segmotion_plugin.reconstruct import judge, mapping

# Prior focal lengths over the longer image side: COLMAP's own, then those of wider and longer lenses.
FOCAL_PRIORS = (1.2, 0.83, 0.6, 1.8)
# Models whose focal lengths and paths differ by less than this are one model.
SAME_FOCAL = 0.05
SAME_PATH = 0.01
# Up to this many images a second run is always made; above, only when the first is in doubt.
SECOND_OPINION_UP_TO = 60
# Images that one mapper run, and all runs of a shot, may place, in images of the shot: bounds of the work that no clock
# enters, so that results repeat. A sound run takes one or two.
RUN_BUDGET = 2.0
SHOT_BUDGET = 6.0
# Median triangulation angle below which depths deserve a warning.
LITTLE_PARALLAX_DEG = 3.0


@dataclass
class SfmOptions:
    """How cameras are found."""

    camera_model: Literal["OPENCV", "SIMPLE_RADIAL", "RADIAL", "PINHOLE", "SIMPLE_PINHOLE"] = "SIMPLE_RADIAL"
    """Model of the result, shared by all images. The mapper runs with one focal length and one distortion term; more
    freedom in the end costs accuracy where the pixels are square (on three rendered clips OPENCV took the trajectory
    error up by 12 to 25 %), and pays where a lens needs it."""
    mapper: Literal["incremental", "global"] = "incremental"
    """COLMAP's incremental mapper, or its global one (faster on long sequences)."""
    matching: Literal["auto", "sequential", "exhaustive"] = "auto"
    """auto: sequential for sequences, exhaustive for small or unordered sets."""
    ordered: bool = True
    """The images follow each other in time."""
    groups: list[list[str]] | None = None
    """Image names of each shot, in order; shots are matched and reconstructed apart. One shot when absent."""
    overlap: int = 10
    """Steps of sequential matching: pairs 1, 2, 4, 8, … images apart."""
    max_features: int = 4096
    """Keypoints per image; more are detected where much is masked."""
    focal: float | None = None
    """Known focal length in pixels; from the EXIF tags, or several guesses, when absent."""
    principal_point: bool = False
    """Adjust the principal point as well in the end."""
    max_runs: int = 4
    """Mapper runs per shot at most."""
    threads: int = -1
    """-1 takes all cores. With 1 the whole reconstruction repeats exactly."""
    seed: int = 0
    """Of everything random in COLMAP."""


@dataclass
class Candidate:
    """One mapper run and what it is judged by; lengths in pixels, angles in degrees. Zeros and None: no model.

    `placed` and `collapsed` as of `mapping.MapperRun`.
    """

    prior_focal: float
    known_focal: bool
    seed: int
    narrow: bool = False
    registered: int = 0
    focal: float = 0.0
    epipolar_error: float | None = None
    reprojection_error: float = 0.0
    points: int = 0
    observations: int = 0
    track_length: float = 0.0
    angle_deg: float = 0.0
    placed: int = 0
    collapsed: bool = False
    seconds: float = 0.0


@dataclass
class ShotResult:
    """Outcome for one shot: status "ok" or "none" with the reason, and the runs that were tried."""

    status: str
    reason: str
    images: int
    names: list[str] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    chosen: int = -1
    agreement: float | None = None
    warnings: list[str] = field(default_factory=list)


class Shot:
    """The mapper runs of one shot; `solve` makes them, `write` stores the chosen model."""

    def __init__(
        self,
        database: Path,
        image_dir: Path,
        names: list[str],
        scratch: Path,
        options: SfmOptions,
        size: tuple[int, int],
        progress: db.Progress | None,
    ) -> None:
        self.database, self.image_dir, self.names, self.scratch = database, image_dir, names, scratch
        self.options, self.progress = options, progress
        self.size, self.longer_side = size, max(size)
        self.tolerance = db.pixel_tolerance(*size)
        self.matches = judge.read_matches(database, names)
        self.outcome = ShotResult("none", "", len(names))
        self.narrow = False
        self.placed = 0
        self.models: list[pycolmap.Reconstruction | None] = []
        self.cameras: list[Cameras | None] = []

    def solve(self) -> ShotResult:
        """Run the mapper until two runs agree, or one is beyond doubt, or `max_runs` are made; then judge the best."""
        outcome = self.outcome
        if len(self.names) < 3:
            outcome.reason = f"a reconstruction needs three or more images, and there are {len(self.names)}"
            return outcome
        view = judge.view_of(self.matches, len(self.names), self.size, self.tolerance)
        outcome.reason = judge.NO_MODEL[view]
        if view in ("scattered", "still", "turn"):
            return outcome
        self.narrow = view == "flat"
        for run, (focal, known) in enumerate(self._priors()[: self.options.max_runs]):
            outcome.candidates.append(self._run(run, focal, known))
            if run == 0 and not self.narrow and self._lacks_images():
                # Too little parallax may be why images are missing: keep points of small angles.
                self.narrow = True
                outcome.candidates.append(self._run(run, focal, known))
                # Where that did not help, other priors are tried with the angles that cost less.
                self.narrow = self._weakness(len(self.models) - 1) is None
            best, outcome.agreement = self._best()
            if self._weakness(best) is not None:
                # A prior far from the truth may hide what is there, but two of them hardly do.
                if run >= 1 or (view == "flat" and self.placed == 0):
                    break
            elif self._settled(outcome.candidates[best], known):
                break
            if self.placed > (SHOT_BUDGET - RUN_BUDGET) * len(self.names):
                break
        best, outcome.agreement = self._best()
        weak = self._weakness(best)
        if weak is not None:
            if view == "parallax" and any(candidate.collapsed for candidate in outcome.candidates):
                outcome.reason = judge.NO_MODEL["collapsed"]
            outcome.reason = f"{weak}; {outcome.reason}" if weak else outcome.reason
            return outcome
        model = self.models[best]
        assert model is not None
        outcome.reason = ""
        outcome.status, outcome.chosen = "ok", best
        self._finish(model)
        outcome.names = self.final_cameras.names
        self._warn(outcome.candidates[best])
        return outcome

    def _priors(self) -> list[tuple[float, bool]]:
        """Focal lengths in pixels to begin with, and whether they are known rather than guessed."""
        known = self.options.focal or db.exif_focal(self.image_dir, self.names)
        guesses = [(factor * self.longer_side, False) for factor in FOCAL_PRIORS]
        return [(known, True), *guesses] if known else guesses

    def _lacks_images(self) -> bool:
        """Whether the first run placed too few images, and smaller angles could help: not where its model collapsed."""
        first = self.outcome.candidates[0]
        return first.registered < 0.95 * len(self.names) and not first.collapsed

    def _weakness(self, best: int) -> str | None:
        """Why a run's model is not worth keeping; None for one that is, an empty string where there is no model."""
        model = self.models[best] if best >= 0 else None
        if model is None:
            return ""
        return judge.weakness(model, self.matches, len(self.names), self.outcome.candidates[best].narrow)

    def _run(self, run: int, focal: float, known: bool) -> Candidate:
        options, began = self.options, time.perf_counter()
        candidate = Candidate(round(focal, 3), known, options.seed + run, self.narrow)
        db.set_prior_focal(self.database, focal, known)
        done = 0

        def registered() -> None:
            nonlocal done
            done = min(done + 1, len(self.names))
            if self.progress is not None:
                self.progress("mapping", done, len(self.names))

        ran = mapping.run_mapper(
            self.database,
            self.image_dir,
            self.names,
            self.scratch,
            mapper=options.mapper,
            tolerance=self.tolerance,
            narrow=self.narrow,
            threads=options.threads,
            seed=candidate.seed,
            budget=round(RUN_BUDGET * len(self.names)),
            on_image=registered,
        )
        model, cameras = ran.model, None
        self.placed += ran.placed
        candidate.placed, candidate.collapsed = ran.placed, ran.collapsed
        if model is not None:
            model = mapping.refine(
                model,
                self.database,
                self.image_dir,
                self.scratch,
                tolerance=self.tolerance,
                narrow=self.narrow,
                threads=options.threads,
                seed=options.seed,
            )
            if model.num_points3D() < mapping.MIN_POINTS:
                model = None  # the mapper's points were those of a focal length that ran away
        if model is not None:
            cameras = mapping.cameras_from_reconstruction(model, self.names)
            candidate.registered = len(cameras)
            candidate.focal = round(cameras.focal[0], 3)
            candidate.epipolar_error = judge.epipolar_error(self.matches, cameras, self.tolerance)
            candidate.reprojection_error = float(model.compute_mean_reprojection_error())
            candidate.points = int(model.num_points3D())
            candidate.observations = int(model.compute_num_observations())
            candidate.track_length = float(model.compute_mean_track_length())
            candidate.angle_deg = judge.triangulation_angle_deg(model)
        self.models.append(model)
        self.cameras.append(cameras)
        candidate.seconds = round(time.perf_counter() - began, 3)
        return candidate

    def _best(self) -> tuple[int, float | None]:
        """Run with the smallest epipolar error, and how far from it the run that is nearest to it ended."""
        found = [k for k, camera in enumerate(self.cameras) if camera is not None]
        if not found:
            return -1, None
        best = min(found, key=lambda k: self._error(self.outcome.candidates[k]))
        chosen = self.cameras[best]
        assert chosen is not None
        gaps: list[float] = []
        for k in found:
            other = self.cameras[k]
            if k == best or other is None or len(other) < 0.9 * len(chosen):
                continue
            gap = judge.disagreement(other, chosen)
            gaps.append(max(gap, SAME_PATH * abs(np.log(other.focal[0] / chosen.focal[0])) / SAME_FOCAL))
        return best, min(gaps) if gaps else None

    def _error(self, candidate: Candidate) -> float:
        return self.tolerance if candidate.epipolar_error is None else candidate.epipolar_error

    def _settled(self, best: Candidate, known: bool) -> bool:
        """Whether no further run is needed: two agree (long or calibrated clips: one is enough, if not in doubt)."""
        if self.outcome.agreement is not None and self.outcome.agreement < SAME_PATH:
            return True
        enough = known or len(self.names) > SECOND_OPINION_UP_TO
        return enough and len(self.outcome.candidates) <= 1 + self.narrow and not self._doubtful(best)

    def _doubtful(self, candidate: Candidate) -> bool:
        low, high = judge.PLAUSIBLE_FOCAL
        return (
            candidate.registered < 0.95 * len(self.names)
            or not low <= candidate.focal / self.longer_side <= high
            or candidate.angle_deg < judge.least_median_angle(candidate.narrow)
            or self._error(candidate) > 0.5 * self.tolerance
        )

    def _finish(self, model: pycolmap.Reconstruction) -> None:
        """Bring the chosen model into the wanted camera model, adjust once more and colour the points."""
        mapping.change_camera_model(model, self.options.camera_model)
        self.model = mapping.refine(
            model,
            self.database,
            self.image_dir,
            self.scratch,
            tolerance=self.tolerance,
            narrow=self.outcome.candidates[self.outcome.chosen].narrow,
            threads=self.options.threads,
            seed=self.options.seed,
            retriangulate=False,
            principal_point=self.options.principal_point,
        )
        self.model.extract_colors_for_all_images(self.image_dir, self.options.threads)
        self.final_cameras = mapping.cameras_from_reconstruction(self.model, self.names)

    def _warn(self, candidate: Candidate) -> None:
        outcome = self.outcome
        if len(outcome.names) < 0.9 * len(self.names):
            outcome.warnings.append(f"only {len(outcome.names)} of {len(self.names)} images were registered")
        if candidate.angle_deg < LITTLE_PARALLAX_DEG:
            outcome.warnings.append(
                f"little parallax (median triangulation angle {candidate.angle_deg:.1f}°): depths are uncertain"
            )
        low, high = judge.PLAUSIBLE_FOCAL
        if not low <= candidate.focal / self.longer_side <= high:
            outcome.warnings.append(
                f"the focal length that was found ({candidate.focal / self.longer_side:.2f} × the longer side) is "
                "unusual: the poses may be wrong"
            )
        alike = sum(other.narrow == candidate.narrow for other in outcome.candidates)
        if alike > 1 and (outcome.agreement is None or outcome.agreement > 2 * SAME_PATH):
            gap = (
                "" if outcome.agreement is None else f" (the nearest two differ by {outcome.agreement:.1%} of the path)"
            )
            outcome.warnings.append(
                f"runs with other focal length priors did not agree{gap}: focal length and poses are uncertain"
            )

    def write(self, folder: Path) -> Path:
        """Store the chosen model in COLMAP's binary form, complete or not at all."""
        temporary = folder.with_name(f".tmp-{folder.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        self.model.write(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        return folder
