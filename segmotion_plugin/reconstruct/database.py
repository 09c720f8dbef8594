"""COLMAP's database: features outside of masked pixels, image pairs, matches, focal length priors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin.errors import SegmotionError

# Images per shot up to which every pair is matched, whatever their order.
EXHAUSTIVE_UP_TO = 16
# Unordered sets above this size would take n²/2 matchings; a sequence of neighbours in name order is matched instead.
UNORDERED_EXHAUSTIVE_UP_TO = 200
# COLMAP reports nothing while it works; these portions are the steps of the progress bar.
IMAGES_AT_ONCE = 16
PAIRS_AT_ONCE = 200

# Called with the name of the step, how much is done and how much there is.
Progress = Callable[[str, int, int], None]


@contextlib.contextmanager
def quiet_colmap() -> Iterator[None]:
    """Keep COLMAP's log lines off standard error; what fails raises, or shows in the database and the models."""
    import pycolmap

    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before


def pixel_tolerance(width: int, height: int) -> float:
    """Inlier distance of a model's observations in pixels: COLMAP's 4 px at 1600 px and above, less for small images.

    Matching keeps COLMAP's 4 px at all sizes: a narrower band around two-view geometries of so little parallax selects
    the matches that fit their error (on a rendered clip of 426 px, 1.6 px took the trajectory from 0.02 % to 0.09 %).
    """
    return 4.0 * float(np.clip(max(width, height) / 1600.0, 0.4, 1.0))


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) as stored, orientation tags ignored, from the header alone.

    Raises:
        SegmotionError: missing, or no image.
    """
    from PIL import Image, UnidentifiedImageError
    from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH

    try:
        with Image.open(path) as image:
            tags = getattr(image, "tag_v2", None)  # Pillow gives the size of a TIFF after the turn that its tag asks for
            return image.size if tags is None else (int(tags[IMAGEWIDTH]), int(tags[IMAGELENGTH]))
    except FileNotFoundError:
        raise SegmotionError(f"{path}: no such image") from None
    except (UnidentifiedImageError, OSError) as error:
        raise SegmotionError(f"{path}: not a readable image ({error})") from None


def mask_file(mask_dir: Path, name: str) -> Path:
    """COLMAP's name of an image's keep mask: the image's full name and `.png` (the form that every version reads)."""
    return Path(mask_dir) / f"{name}.png"


def check_masks(image_dir: Path, names: Sequence[str], mask_dir: Path) -> np.ndarray:
    """Share of pixels that each keep mask leaves.

    COLMAP drops an image without a mask, and every keypoint beyond the extent of a mask that is too small, both in
    silence; so both are errors here.

    Returns:
        N float64 in 0..1, in the order of `names`.

    Raises:
        SegmotionError: a mask is missing, or not as large as its image.
    """
    from segmotion_plugin.masks import read_grey

    missing = [name for name in names if not mask_file(mask_dir, name).is_file()]
    if missing:
        raise SegmotionError(
            f"{mask_file(mask_dir, missing[0])}: no such mask ({len(missing)} of {len(names)} images have none)\n"
            "every image needs a keep mask named <image name>.png; a white one where nothing is masked"
        )
    shares = np.zeros(len(names))
    for k, name in enumerate(names):
        keep = read_grey(mask_file(mask_dir, name))
        width, height = image_size(Path(image_dir) / name)
        if keep.shape != (height, width):
            raise SegmotionError(
                f"{mask_file(mask_dir, name)}: {keep.shape[1]}×{keep.shape[0]} pixels, its image has {width}×{height}\n"
                "make masks at the full size of the images"
            )
        shares[k] = np.count_nonzero(keep) / keep.size
    return shares


def extract(
    database: Path,
    image_dir: Path,
    names: Sequence[str],
    mask_dir: Path | None,
    *,
    camera_model: str,
    max_features: int,
    threads: int,
    seed: int,
    progress: Progress | None = None,
) -> None:
    """Make the database anew: SIFT keypoints (on the CPU) of `names` outside of masked pixels, one camera for all.

    Images are entered (in the order of their names as text) before extraction, so that COLMAP's ids do not hang on the
    threads.
    """
    import pycolmap

    for path in (database, Path(f"{database}-wal"), Path(f"{database}-shm")):
        path.unlink(missing_ok=True)
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = camera_model
    if mask_dir is not None:
        reader.mask_path = str(mask_dir)
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu = False
    options.num_threads = threads
    options.sift.max_num_features = max_features
    pycolmap.set_random_seed(seed)
    with pycolmap.Database.open(database):  # makes the file, which importing wants
        pass
    with quiet_colmap():
        pycolmap.import_images(
            database, image_dir, camera_mode=pycolmap.CameraMode.SINGLE, image_names=list(names), options=reader
        )
        for start in range(0, len(names), IMAGES_AT_ONCE):
            pycolmap.extract_features(
                database,
                image_dir,
                image_names=list(names[start : start + IMAGES_AT_ONCE]),
                camera_mode=pycolmap.CameraMode.SINGLE,
                reader_options=reader,
                extraction_options=options,
                device=pycolmap.Device.cpu,
            )
            if progress is not None:
                progress("features", min(start + IMAGES_AT_ONCE, len(names)), len(names))


def estimate_dropped(
    database: Path, image_dir: Path, names: Sequence[str], shares: np.ndarray, max_features: int, sample: int = 3
) -> int:
    """Estimate how many keypoints the masks removed, from a few images detected again without masks.

    The images with the most masked pixels in each third of the clip are taken; their removed keypoints per masked pixel
    hold for all.

    Args:
        shares: share of pixels that each image keeps.
    """
    import tempfile

    masked = 1.0 - np.asarray(shares)
    if not masked.any():
        return 0
    parts = np.array_split(np.arange(len(names)), min(sample, len(names)))
    chosen = [int(part[np.argmax(masked[part])]) for part in parts]
    kept = keypoint_counts(database)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "database.db"
        some = [names[k] for k in chosen]
        extract(path, image_dir, some, None, camera_model="SIMPLE_RADIAL", max_features=max_features, threads=1, seed=0)
        free = keypoint_counts(path)
    removed = sum(max(free[name] - kept.get(name, 0), 0) for name in some)
    return round(removed * float(masked.sum() / max(masked[chosen].sum(), 1e-12)))


def keypoint_counts(database: Path) -> dict[str, int]:
    """Number of keypoints of every image in the database."""
    import pycolmap

    with pycolmap.Database.open(database) as db:
        return {image.name: int(db.num_keypoints_for_image(image.image_id)) for image in db.read_all_images()}


def check_no_keypoint_masked(database: Path, mask_dir: Path) -> int:
    """Number of keypoints that lie in masked pixels, or beyond their mask (0 where masks reached COLMAP).

    Args:
        database: COLMAP's database.
        mask_dir: keep masks, named `<image name>.png`.
    """
    import pycolmap

    from segmotion_plugin.masks import read_grey

    count = 0
    with pycolmap.Database.open(database) as db:
        for image in db.read_all_images():
            keep = read_grey(mask_file(mask_dir, image.name))
            xy = np.floor(np.asarray(db.read_keypoints(image.image_id))[:, :2]).astype(int)
            inside = (xy >= 0).all(axis=1) & (xy[:, 0] < keep.shape[1]) & (xy[:, 1] < keep.shape[0])
            count += int(np.count_nonzero(~inside))
            count += int(np.count_nonzero(keep[xy[inside, 1], xy[inside, 0]] == 0))
    return count


def pairs_of(count: int, matching: str, overlap: int) -> list[tuple[int, int]]:
    """Index pairs to match among images in order.

    Args:
        count: number of images.
        matching: "exhaustive", or "sequential": neighbours 1, 2, 4, 8, … apart (COLMAP's quadratic overlap), which
            costs little and holds long sequences together.
        overlap: how many of these steps.
    """
    if matching == "exhaustive":
        return [(i, j) for i in range(count) for j in range(i + 1, count)]
    steps = [2**k for k in range(overlap)]
    return [(i, i + step) for i in range(count) for step in steps if i + step < count]


def choose_matching(count: int, matching: str, ordered: bool) -> str:
    """ "auto" resolved: every pair where that is cheap or the images are in no order, neighbours otherwise."""
    if matching != "auto":
        return matching
    return "exhaustive" if count <= (EXHAUSTIVE_UP_TO if ordered else UNORDERED_EXHAUSTIVE_UP_TO) else "sequential"


def match(
    database: Path,
    name_pairs: Sequence[tuple[str, str]],
    *,
    threads: int,
    seed: int,
    progress: Progress | None = None,
) -> None:
    """Match the descriptors of the given image pairs and verify them geometrically."""
    import pycolmap

    options = pycolmap.FeatureMatchingOptions()
    options.use_gpu = False
    options.num_threads = threads
    pairs_path = database.with_name("pairs.txt")
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = seed
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = str(pairs_path)
    pycolmap.set_random_seed(seed)
    try:
        with _aliases(database) as alias, quiet_colmap():
            for start in range(0, len(name_pairs), PAIRS_AT_ONCE):
                portion = name_pairs[start : start + PAIRS_AT_ONCE]
                pairs_path.write_text("".join(f"{alias[a]} {alias[b]}\n" for a, b in portion), encoding="utf-8")
                pycolmap.match_image_pairs(
                    database,
                    matching_options=options,
                    pairing_options=pairing,
                    verification_options=verification,
                    device=pycolmap.Device.cpu,
                )
                if progress is not None:
                    progress("matches", min(start + PAIRS_AT_ONCE, len(name_pairs)), len(name_pairs))
    finally:
        pairs_path.unlink(missing_ok=True)


@contextlib.contextmanager
def _aliases(database: Path) -> Iterator[dict[str, str]]:
    """Give the images plain names for a while, because COLMAP's list of pairs takes none with spaces."""
    import pycolmap

    with pycolmap.Database.open(database) as db:
        alias = {image.name: f"{image.image_id:08d}" for image in db.read_all_images()}
    _rename(database, alias)
    try:
        yield alias
    finally:
        _rename(database, {short: name for name, short in alias.items()})


def _rename(database: Path, new_names: dict[str, str]) -> None:
    import pycolmap

    with pycolmap.Database.open(database) as db:
        for image in db.read_all_images():
            image.name = new_names[image.name]
            db.update_image(image)


def set_prior_focal(database: Path, focal: float, known: bool) -> None:
    """Set the focal length (pixels) of every camera in the database; `known` says that it is more than a guess."""
    import pycolmap

    with pycolmap.Database.open(database) as db:
        for camera in db.read_all_cameras():
            params: Any = np.array(camera.params)
            params[list(camera.focal_length_idxs())] = focal
            camera.params = params
            camera.has_prior_focal_length = known
            db.update_camera(camera)


def exif_focal(image_dir: Path, names: Sequence[str]) -> float | None:
    """Median focal length in pixels of up to nine images whose EXIF tags tell it; None where fewer than half do."""
    import pycolmap

    chosen = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, 9).astype(int))]
    found: list[float] = []
    for name in chosen:
        with quiet_colmap():
            camera: Any = pycolmap.infer_camera_from_image(Path(image_dir) / name)
        if camera.has_prior_focal_length:
            found.append(float(camera.mean_focal_length()))
    return float(np.median(found)) if 2 * len(found) >= len(chosen) else None
