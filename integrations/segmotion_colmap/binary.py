"""COLMAP's command line, 3.8 to 4.x: arguments as lists (no shell), option names as the installed version has them.

Options were renamed in 3.9 (`TwoViewGeometry.max_error`) and 3.13 (`FeatureExtraction.use_gpu`, `FeatureMatching.use_gpu`), without
aliases. Which name is right is read from the help of each subcommand, not guessed from the version.
"""

from __future__ import annotations

import functools
import re
import shlex
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segmotion_colmap.intrinsics import read_intrinsics
from segmotion_plugin.errors import SegmotionError


@dataclass(frozen=True)
class ColmapBinary:
    """An installed COLMAP.

    Attributes:
        command: how it is called, split into arguments.
        version: (major, minor).
    """

    command: tuple[str, ...]
    version: tuple[int, int]

    @classmethod
    def find(cls, command: str = "colmap") -> ColmapBinary | None:
        """The COLMAP that `command` calls; None where there is none.

        Raises:
            SegmotionError: the command runs but is no COLMAP.
        """
        arguments = tuple(shlex.split(command))
        if not arguments or shutil.which(arguments[0]) is None:
            return None
        done = subprocess.run([*arguments, "-h"], capture_output=True, text=True, errors="replace", check=False)
        found = re.search(r"COLMAP\s+(\d+)\.(\d+)", done.stdout + done.stderr)
        if found is None:
            raise SegmotionError(f"{command}: does not answer '-h' as COLMAP does (exit status {done.returncode})")
        return cls(arguments, (int(found[1]), int(found[2])))

    def option(self, subcommand: str, *names: str) -> str:
        """The first of `names` that a subcommand has, with its dashes.

        Raises:
            SegmotionError: it has none of them.
        """
        said = _help((*self.command, subcommand, "-h"))
        for name in names:
            if re.search(rf"--{re.escape(name)}\b", said):
                return f"--{name}"
        raise SegmotionError(f"{' '.join(self.command)} {subcommand}: this COLMAP has no option {' or '.join(names)}")

    @property
    def own_vocabulary_tree(self) -> bool:
        """Whether it brings its own vocabulary tree (3.12 and later; the older format is not read by it)."""
        return self.version >= (3, 12)

    def run(self, subcommand: str, *options: str, verbose: bool = False) -> None:
        """Run one of its commands.

        Raises:
            SegmotionError: it failed; the message ends with what it said last.
        """
        done = subprocess.run(
            [*self.command, subcommand, *options], capture_output=not verbose, text=True, errors="replace", check=False
        )
        if done.returncode != 0:
            said = [line for line in f"{done.stdout or ''}\n{done.stderr or ''}".splitlines() if line.strip()]
            tail = "\n".join(said[-3:]) if said else "it said nothing"
            raise SegmotionError(f"{' '.join(self.command)} {subcommand} failed (exit status {done.returncode}):\n{tail}")

    def extract(
        self,
        database: Path,
        images: Path,
        *,
        camera_model: str,
        mask_dir: Path | None = None,
        camera_mask: Path | None = None,
        gpu: bool = False,
        verbose: bool = False,
    ) -> None:
        """SIFT keypoints of all images, one camera for all, none inside masked pixels. The database is made anew: COLMAP never
        extracts again for images that it holds, whatever their masks."""
        for path in (database, Path(f"{database}-wal"), Path(f"{database}-shm")):
            path.unlink(missing_ok=True)
        options = ["--database_path", str(database), "--image_path", str(images)]
        options += ["--ImageReader.single_camera", "1", "--ImageReader.camera_model", camera_model]
        options += [self.option("feature_extractor", "FeatureExtraction.use_gpu", "SiftExtraction.use_gpu"), str(int(gpu))]
        if mask_dir is not None:
            options += ["--ImageReader.mask_path", str(mask_dir)]
        if camera_mask is not None:
            options += ["--ImageReader.camera_mask_path", str(camera_mask)]
        self.run("feature_extractor", *options, verbose=verbose)

    def match(
        self,
        database: Path,
        method: str,
        *,
        gpu: bool = False,
        tree: Path | None = None,
        tolerance: float | None = None,
        verbose: bool = False,
    ) -> None:
        """Match by `method`: exhaustive, sequential or vocab_tree (`tree` is needed before 3.12). `tolerance` is the inlier distance
        of the two-view geometries in pixels; COLMAP's own when absent."""
        command = f"{method}_matcher"
        options = ["--database_path", str(database), self._use_gpu(command), str(int(gpu))]
        if tree is not None:
            options += ["--VocabTreeMatching.vocab_tree_path", str(tree)]
        if tolerance is not None:
            options += [self.option(command, "TwoViewGeometry.max_error", "SiftMatching.max_error"), str(tolerance)]
        self.run(command, *options, verbose=verbose)

    def _use_gpu(self, command: str) -> str:
        return self.option(command, "FeatureMatching.use_gpu", "SiftMatching.use_gpu")

    def verify(self, database: Path, pairs: Path, *, verbose: bool = False) -> None:
        """Estimate the two-view geometries of the pairs listed in a file (two names a line). COLMAP takes matches that are in the
        database already as they are, and matches only pairs that have none."""
        options = ["--database_path", str(database), "--match_list_path", str(pairs), "--match_type", "pairs"]
        self.run("matches_importer", *options, self._use_gpu("matches_importer"), "0", verbose=verbose)

    def map(self, database: Path, images: Path, sparse: Path, *, tolerance: float | None = None, verbose: bool = False) -> int:
        """Incremental mapping; the largest model becomes `sparse/0`. `tolerance` is the inlier distance in pixels; COLMAP's own when
        absent.

        Returns:
            How many models were found.

        Raises:
            SegmotionError: none was.
        """
        shutil.rmtree(sparse, ignore_errors=True)
        sparse.mkdir(parents=True)
        options = ["--database_path", str(database), "--image_path", str(images), "--output_path", str(sparse)]
        options += ["--Mapper.ba_global_function_tolerance", "1e-6"]
        if tolerance is not None:
            for name in ("init_max_error", "filter_max_reproj_error", "tri_merge_max_reproj_error", "tri_complete_max_reproj_error"):
                options += [f"--Mapper.{name}", str(tolerance)]
        self.run("mapper", *options, verbose=verbose)
        models = sorted(p for p in sparse.iterdir() if (p / "images.bin").is_file())
        if not models:
            raise SegmotionError(
                f"{sparse}: COLMAP found no model; too little of the static world is seen, or the camera hardly moves"
            )
        put_largest_first(models)
        return len(models)

    def refine(self, model: Path, *, verbose: bool = False) -> bool:
        """Bundle adjustment of all intrinsics, principal point too, as ns-process-data does.

        Returns:
            False where it was not taken over, because the focal length ran away: such a clip cannot tell that many intrinsics.
        """
        refined = model.with_name(f"{model.name}.refined")
        shutil.rmtree(refined, ignore_errors=True)
        shutil.copytree(model, refined)
        options = ["--input_path", str(model), "--output_path", str(refined), "--BundleAdjustment.refine_principal_point", "1"]
        self.run("bundle_adjuster", *options, verbose=verbose)
        taken = read_intrinsics(refined).agrees(read_intrinsics(model))
        if taken:
            shutil.rmtree(model)
            refined.rename(model)
        else:
            shutil.rmtree(refined)
        return taken


@functools.lru_cache
def _help(command: tuple[str, ...]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return done.stdout + done.stderr


def put_largest_first(models: Sequence[Path]) -> None:
    """Let the model with most images take the place of the first (COLMAP numbers them as it meets them)."""
    largest = max(models, key=lambda model: (registered_images(model), -models.index(model)))
    if largest != models[0]:
        aside = models[0].with_name(models[0].name + ".aside")
        models[0].rename(aside)
        largest.rename(models[0])
        aside.rename(largest)


def registered_images(model: Path) -> int:
    """Number of images of a binary model (the first eight bytes of its images.bin)."""
    with open(model / "images.bin", "rb") as handle:
        return struct.unpack("<Q", handle.read(8))[0]
