"""COLMAP's mappers over a matched database, and a refinement that wrong matches do not bend."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.reconstruct.database import quiet_colmap

# Angle in degrees below which a point's rays say nothing about its depth (COLMAP's own default).
MIN_ANGLE_DEG = 1.5
# The same for views with little parallax, when with the angle above too few points are left to place all images by.
NARROW_ANGLE_DEG = 0.4
# Least median angle between the rays of the first two images. COLMAP's 16° is rare in hand-held video; with a wrong
# focal length prior it then finds no first pair at all, after trying them all.
INIT_ANGLE_DEG = 4.0
NARROW_INIT_ANGLE_DEG = 2.0
# A run is given up when this many starts came to no model of this share of the images, or when one start placed so many
# images and lost them or all their points again: there is no parallax to begin from.
MAX_BARREN_STARTS = 4
BARREN_SHARE = 0.25
# Least number of points of a model that counts as one.
MIN_POINTS = 30
# Observations farther off than this many medians are dropped between rounds of bundle adjustment.
OUTLIER_MEDIANS = 4.0


@dataclass(frozen=True)
class MapperRun:
    """What a run of the mapper came to.

    Attributes:
        model: its largest model; None without one of three or more images.
        placed: images placed, over all models that the run began (0 for the global mapper).
        collapsed: a model of many images lost them or all their points again, as it happens where a focal length that
            runs away explains the matches as well as any other.
    """

    model: pycolmap.Reconstruction | None
    placed: int = 0
    collapsed: bool = False


def run_mapper(
    database: Path,
    image_dir: Path,
    names: Sequence[str],
    scratch: Path,
    *,
    mapper: str,
    tolerance: float,
    narrow: bool,
    threads: int,
    seed: int,
    budget: int | None = None,
    on_image: Callable[[], None] = lambda: None,
) -> MapperRun:
    """Run COLMAP's incremental or global mapper on some images and give its largest model.

    Args:
        database: features, matches and the prior focal length.
        image_dir: the images (COLMAP wants the path; pixels are not read).
        names: images of one shot.
        scratch: folder for COLMAP's own output; emptied and removed.
        mapper: "incremental" or "global" (GLOMAP: Pan et al., "Global Structure-from-Motion Revisited", ECCV 2024).
        tolerance: inlier distance in pixels.
        narrow: keep points with rays of a small angle, for views with little parallax.
        threads: -1 for all cores.
        seed: of RANSAC and of the mapper's random choices.
        budget: number of images placed, over all models that the run begins, after which it begins no other (incremental
            only). A count and not a time, so that runs repeat exactly.
        on_image: called after every image that was registered (incremental only).
    """
    pycolmap.set_random_seed(seed)
    with quiet_colmap():
        if mapper == "global":
            models = _run_global(database, image_dir, names, scratch, threads, seed)
            placed, collapsed = 0, False
        else:
            options = _incremental_options(names, tolerance, narrow, threads, seed)
            models, placed, collapsed = _run_incremental(options, database, image_dir, budget, on_image)
    sized = [m for m in models if m.num_reg_images() >= 3 and m.num_points3D() >= MIN_POINTS]
    best = max(sized, key=lambda m: (m.num_reg_images(), m.compute_num_observations()), default=None)
    return MapperRun(best, placed, collapsed)


def _incremental_options(
    names: Sequence[str], tolerance: float, narrow: bool, threads: int, seed: int
) -> pycolmap.IncrementalPipelineOptions:
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = seed
    options.mapper.random_seed = seed
    options.triangulation.random_seed = seed
    options.num_threads = threads
    options.image_names = list(names)
    options.min_model_size = 3
    options.extract_colors = False
    # The refinement that follows makes frequent and exact global adjustments here superfluous.
    options.ba_global_function_tolerance = 1e-5
    options.ba_global_frames_ratio = 1.4
    options.ba_global_points_ratio = 1.4
    options.ba_global_max_refinements = 2
    # A sound model needs a dozen; one whose focal length runs away takes as many as there are.
    options.ba_global_max_num_iterations = 25
    options.mapper.init_min_tri_angle = NARROW_INIT_ANGLE_DEG if narrow else INIT_ANGLE_DEG
    options.mapper.filter_min_tri_angle = options.triangulation.min_angle = least_angle(narrow)
    if narrow:
        options.mapper.abs_pose_min_num_inliers = 15
        options.mapper.abs_pose_min_inlier_ratio = 0.1
    options.mapper.init_max_error = tolerance
    options.mapper.filter_max_reproj_error = tolerance
    options.triangulation.merge_max_reproj_error = tolerance
    options.triangulation.complete_max_reproj_error = tolerance
    return options


def _run_incremental(
    options: pycolmap.IncrementalPipelineOptions,
    database: Path,
    image_dir: Path,
    budget: int | None,
    on_image: Callable[[], None],
) -> tuple[list[pycolmap.Reconstruction], int, bool]:
    """COLMAP's incremental pipeline, which begins no further model when that cannot pay.

    Left to itself COLMAP begins up to 200 models. On views without parallax each begins at another pair, places some
    images and loses all its points again, for many minutes.

    Returns:
        Its models, the number of images placed and whether a model collapsed (see `MapperRun`).
    """
    options.image_path = image_dir
    total, starts, placed, collapsed = len(options.image_names), 0, 0, False
    before, models_before = 0, 0
    manager = pycolmap.ReconstructionManager()

    def begun() -> None:
        nonlocal placed
        placed += 2

    def registered() -> None:
        nonlocal placed
        placed += 1
        on_image()

    def ended() -> None:
        nonlocal starts, before, models_before, collapsed
        starts += 1
        found = _models(manager)
        left = found[-1].num_points3D() if len(found) > models_before else 0
        collapsed = collapsed or (left < MIN_POINTS and placed - before >= BARREN_SHARE * total)
        before, models_before = placed, len(found)
        largest = max((m.num_reg_images() for m in found if m.num_points3D() >= MIN_POINTS), default=0)
        barren = largest < BARREN_SHARE * total and starts >= MAX_BARREN_STARTS
        # Models share at most so many images, so none that begins now can become larger than this one.
        unsurpassed = 2 * largest >= total + options.max_model_overlap
        if collapsed or barren or unsurpassed or (budget is not None and placed >= budget):
            options.init_num_trials = 0

    events = pycolmap.IncrementalPipelineCallback
    with pycolmap.Database.open(database) as opened:
        pipeline = pycolmap.IncrementalPipeline(options, opened, manager)
        pipeline.add_callback(int(events.INITIAL_IMAGE_PAIR_REG_CALLBACK), begun)
        pipeline.add_callback(int(events.NEXT_IMAGE_REG_CALLBACK), registered)
        pipeline.add_callback(int(events.LAST_IMAGE_REG_CALLBACK), ended)
        pipeline.run()
    return _models(manager), placed, collapsed


def _models(manager: pycolmap.ReconstructionManager) -> list[pycolmap.Reconstruction]:
    return [manager.get(k) for k in range(manager.size())]


def _run_global(
    database: Path, image_dir: Path, names: Sequence[str], scratch: Path, threads: int, seed: int
) -> list[pycolmap.Reconstruction]:
    options = pycolmap.GlobalPipelineOptions()
    options.random_seed = seed
    options.num_threads = threads
    options.image_names = list(names)
    shutil.rmtree(scratch, ignore_errors=True)
    output = scratch / "models"
    output.mkdir(parents=True)
    try:
        # The global mapper trusts relative poses, which need calibrated pairs: it works on a copy in which the focal
        # length of every pair was estimated from its fundamental matrix.
        copy = scratch / "database.db"
        shutil.copyfile(database, copy)
        calibration = pycolmap.ViewGraphCalibrationOptions()
        calibration.random_seed = seed
        pycolmap.calibrate_view_graph(copy, calibration)
        return list(pycolmap.global_mapping(copy, image_dir, output, options).values())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def refine(
    model: pycolmap.Reconstruction,
    database: Path,
    image_dir: Path,
    scratch: Path,
    *,
    tolerance: float,
    narrow: bool,
    threads: int,
    seed: int,
    retriangulate: bool = True,
    principal_point: bool = False,
) -> pycolmap.Reconstruction:
    """Adjust with a robust loss and drop far observations; then make all points anew from these poses, and again.

    The mapper's own adjustment is a plain least squares over everything within its inlier distance. On short or narrow
    views the few wrong matches in there bend focal length and poses together; models begun from different priors come
    to the same end after this refinement.

    Args:
        model: is changed in place by the first rounds.
        narrow: as of `run_mapper`.
        retriangulate: False adjusts what there is.
        principal_point: adjust it as well.
    """
    _adjust(model, tolerance, narrow, threads, principal_point, rounds=1)
    if not retriangulate:
        return model
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = seed
    options.triangulation.random_seed = seed
    options.num_threads = threads
    options.extract_colors = False
    options.ba_global_max_refinements = 1
    options.ba_global_max_num_iterations = 5
    options.mapper.filter_max_reproj_error = tolerance
    options.mapper.filter_min_tri_angle = options.triangulation.min_angle = least_angle(narrow)
    options.triangulation.merge_max_reproj_error = tolerance
    options.triangulation.complete_max_reproj_error = tolerance
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    pycolmap.set_random_seed(seed)
    try:
        with quiet_colmap():
            model = pycolmap.triangulate_points(model, database, image_dir, scratch, options=options)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _adjust(model, tolerance, narrow, threads, principal_point, rounds=2)
    return model


def least_angle(narrow: bool) -> float:
    """Least angle between the rays of a point, degrees."""
    return NARROW_ANGLE_DEG if narrow else MIN_ANGLE_DEG


def _adjust(
    model: pycolmap.Reconstruction, tolerance: float, narrow: bool, threads: int, principal_point: bool, rounds: int
) -> None:
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_principal_point = principal_point
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.solver_options.num_threads = threads
    options.ceres.solver_options.function_tolerance = 1e-5
    options.ceres.solver_options.max_num_iterations = 30
    for _ in range(rounds):
        if model.num_points3D() == 0:
            return
        spread = median_error(model)
        options.ceres.loss_function_scale = float(np.clip(2.0 * spread, 0.1, tolerance))
        with quiet_colmap():
            # pycolmap.bundle_adjustment() would do the same, but its log lines cannot be kept off standard error.
            config = pycolmap.BundleAdjustmentConfig()
            for image_id in model.reg_image_ids():
                config.add_image(image_id)
            config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
            pycolmap.create_default_bundle_adjuster(options, config, model).solve()
            model.update_point_3d_errors()
            limit = float(np.clip(OUTLIER_MEDIANS * median_error(model), 0.5, tolerance))
            pycolmap.ObservationManager(model).filter_all_points3D(limit, least_angle(narrow))
            model.update_point_3d_errors()


def median_error(model: pycolmap.Reconstruction) -> float:
    """Median over points of their mean reprojection error, pixels (0 for a model without points)."""
    errors = [point.error for point in model.points3D.values()]
    return float(np.median(errors)) if errors else 0.0


def change_camera_model(model: pycolmap.Reconstruction, name: str) -> None:
    """Write the cameras' parameters in the form of another COLMAP model; distortion that it cannot hold is dropped."""
    for camera in model.cameras.values():
        if camera.model_name == name:
            continue
        old = Cameras([], np.zeros(0, int), camera.width, camera.height, camera.model_name, camera.params, np.zeros(0))
        (fx, fy), matrix, distortion = old.focal, old.intrinsics(), old.distortion()
        cx, cy = matrix[0, 2], matrix[1, 2]
        params = {
            "SIMPLE_PINHOLE": [(fx * fy) ** 0.5, cx, cy],
            "PINHOLE": [fx, fy, cx, cy],
            "SIMPLE_RADIAL": [(fx * fy) ** 0.5, cx, cy, distortion[0]],
            "RADIAL": [(fx * fy) ** 0.5, cx, cy, distortion[0], distortion[1]],
            "OPENCV": [fx, fy, cx, cy, *distortion],
        }[name]
        camera.model = getattr(pycolmap.CameraModelId, name)
        camera.params = np.array(params, dtype=np.float64)


def cameras_from_reconstruction(
    model: pycolmap.Reconstruction, names: Sequence[str], frame_index: Sequence[int] | np.ndarray | None = None
) -> Cameras:
    """Poses and intrinsics of the registered images of a COLMAP model.

    Args:
        model: reconstruction with one camera.
        names: all image names of the clip, in frame order; they are the join (COLMAP's ids are in no order).
        frame_index: frame of the clip that each of `names` is; their positions when absent.

    Raises:
        SegmotionError: the camera's model is none of those that `Cameras` holds.
    """
    index = range(len(names)) if frame_index is None else frame_index
    posed = {image.name: image for image in model.images.values() if image.has_pose}
    kept = [(name, int(at)) for name, at in zip(names, index, strict=True) if name in posed]
    camera = posed[kept[0][0]].camera if kept else next(iter(model.cameras.values()))
    return Cameras(
        names=[name for name, _ in kept],
        frame_index=np.array([at for _, at in kept], dtype=np.int64),
        width=int(camera.width),
        height=int(camera.height),
        model=camera.model_name,
        params=np.array(camera.params),
        cam_from_world=np.array([posed[name].cam_from_world().matrix() for name, _ in kept]).reshape(-1, 3, 4),
    )
