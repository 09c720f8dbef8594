"""COLMAP's command line, 3.8 to 4.x: option names by version, arguments as lists (no shell)."""

from __future__ import annotations

import re
import shlex
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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

    @property
    def _extraction(self) -> str:
        return "FeatureExtraction" if self.version >= (3, 13) else "SiftExtraction"

    @property
    def _matching(self) -> str:
        return "FeatureMatching" if self.version >= (3, 13) else "SiftMatching"

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
        options += [f"--{self._extraction}.use_gpu", str(int(gpu))]
        if mask_dir is not None:
            options += ["--ImageReader.mask_path", str(mask_dir)]
        if camera_mask is not None:
            options += ["--ImageReader.camera_mask_path", str(camera_mask)]
        self.run("feature_extractor", *options, verbose=verbose)

    def match(self, database: Path, method: str, *, gpu: bool = False, tree: Path | None = None, verbose: bool = False) -> None:
        """Match by `method`: exhaustive, sequential or vocab_tree (`tree` is needed before 3.12)."""
        options = ["--database_path", str(database), f"--{self._matching}.use_gpu", str(int(gpu))]
        if tree is not None:
            options += ["--VocabTreeMatching.vocab_tree_path", str(tree)]
        self.run(f"{method}_matcher", *options, verbose=verbose)

    def verify(self, database: Path, pairs: Path, *, verbose: bool = False) -> None:
        """Estimate the two-view geometries of the pairs listed in a file (two names a line). COLMAP takes matches that are in the
        database already as they are, and matches only pairs that have none."""
        options = ["--database_path", str(database), "--match_list_path", str(pairs), "--match_type", "pairs"]
        self.run("matches_importer", *options, f"--{self._matching}.use_gpu", "0", verbose=verbose)

    def map(self, database: Path, images: Path, sparse: Path, *, verbose: bool = False) -> int:
        """Incremental mapping; the largest model becomes `sparse/0`.

        Returns:
            How many models were found.

        Raises:
            SegmotionError: none was.
        """
        shutil.rmtree(sparse, ignore_errors=True)
        sparse.mkdir(parents=True)
        options = ["--database_path", str(database), "--image_path", str(images), "--output_path", str(sparse)]
        self.run("mapper", *options, "--Mapper.ba_global_function_tolerance", "1e-6", verbose=verbose)
        models = sorted(p for p in sparse.iterdir() if (p / "images.bin").is_file())
        if not models:
            raise SegmotionError(f"{sparse}: COLMAP found no model; too little of the static world is seen, or the camera hardly moves")
        put_largest_first(models)
        return len(models)

    def refine_principal_point(self, model: Path, *, verbose: bool = False) -> None:
        """Bundle adjustment of a model in place with the principal point free, as ns-process-data does."""
        options = ["--input_path", str(model), "--output_path", str(model), "--BundleAdjustment.refine_principal_point", "1"]
        self.run("bundle_adjuster", *options, verbose=verbose)


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
