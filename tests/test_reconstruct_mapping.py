"""How long the mapper goes on: matches of a camera with parallax are placed once, those of one without end the run soon."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.files import write_png
from segmotion_plugin.reconstruct import judge, mapping
from segmotion_plugin.reconstruct.shot import SfmOptions, Shot

SIZE, FOCAL, IMAGES, POINTS = (400, 300), 350.0, 14, 250
NAMES = [f"{k:02d}.png" for k in range(IMAGES)]


def write_matches(folder: Path, path_length: float) -> Path:
    """Blank images and a database with their noisy matches: a camera that turns by 16° and moves sideways."""
    rng = np.random.default_rng(0)
    turns = np.radians(np.linspace(-8.0, 8.0, IMAGES))[:, None] * np.array([0.0, 1.0, 0.0])
    rotation = Rotation.from_rotvec(turns).as_matrix()
    centers = np.linspace(-0.5, 0.5, IMAGES)[:, None] * np.array([path_length, 0.0, 0.0])
    poses = np.concatenate([rotation, -np.einsum("kij,kj->ki", rotation, centers)[..., None]], axis=2)
    z = rng.uniform(3.0, 9.0, POINTS)
    points = np.stack([rng.uniform(-0.45, 0.45, POINTS) * z, rng.uniform(-0.4, 0.4, POINTS) * z, z], axis=1)
    for name in NAMES:
        write_png(folder / "images" / name, np.zeros((SIZE[1], SIZE[0]), np.uint8))
    database = folder / "database.db"
    with pycolmap.Database.open(database):
        pass
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "SIMPLE_RADIAL"
    mode = pycolmap.CameraMode.SINGLE
    pycolmap.import_images(database, folder / "images", camera_mode=mode, image_names=NAMES, options=reader)
    order = np.arange(POINTS, dtype=np.uint32)
    with pycolmap.Database.open(database) as opened:
        ids = {image.name: image.image_id for image in opened.read_all_images()}
        for k, name in enumerate(NAMES):
            params = np.array([FOCAL, SIZE[0] / 2, SIZE[1] / 2, 0.0])
            camera = Cameras([name], np.arange(1), *SIZE, "SIMPLE_RADIAL", params, poses[k : k + 1])
            xy = camera.project(points, 0)[0] + 0.3 * rng.standard_normal((POINTS, 2))
            opened.write_keypoints(ids[name], xy.astype(np.float32))
        for step in (1, 2, 4, 8):
            for i in range(IMAGES - step):
                pair = ids[NAMES[i]], ids[NAMES[i + step]]
                matches = np.stack([order, order], axis=1)
                opened.write_matches(*pair, matches)
                geometry = pycolmap.TwoViewGeometry()
                geometry.config = pycolmap.TwoViewGeometryConfiguration.UNCALIBRATED
                geometry.inlier_matches = matches
                opened.write_two_view_geometry(*pair, geometry)
    return database


def run(folder: Path, database: Path, narrow: bool) -> mapping.MapperRun:
    return mapping.run_mapper(
        database,
        folder / "images",
        NAMES,
        folder / "scratch",
        mapper="incremental",
        tolerance=1.6,
        narrow=narrow,
        threads=1,
        seed=0,
    )


def test_with_parallax_every_image_is_placed_once(tmp_path: Path) -> None:
    ran = run(tmp_path, write_matches(tmp_path, 1.5), narrow=False)
    assert ran.model is not None and ran.model.num_reg_images() == IMAGES
    assert ran.placed == IMAGES and not ran.collapsed


class Model:
    """Stands in for a model of COLMAP's manager."""

    def __init__(self, images: int, points: int) -> None:
        self.images, self.points = images, points

    def num_reg_images(self) -> int:
        return self.images

    def num_points3D(self) -> int:  # noqa: N802
        return self.points


def scripted(monkeypatch: pytest.MonkeyPatch, starts: list[tuple[int, int, int]], total: int) -> tuple[int, int, bool]:
    """Let COLMAP's pipeline make models by a script: (images placed, images left, points left) of every start.

    Returns:
        Number of starts that were made, images placed, and whether a model was said to have collapsed.
    """
    models: list[Model] = []
    made: list[int] = []

    class Manager:
        def size(self) -> int:
            return len(models)

        def get(self, index: int) -> Model:
            return models[index]

    class Pipeline:
        def __init__(self, options: pycolmap.IncrementalPipelineOptions, *_: object) -> None:
            self.options, self.callbacks = options, {}

        def add_callback(self, event: int, call: object) -> None:
            self.callbacks[event] = call

        def run(self) -> None:
            events = pycolmap.IncrementalPipelineCallback
            for placed, images, points in starts:
                if len(made) >= self.options.init_num_trials:
                    return
                made.append(placed)
                self.callbacks[int(events.INITIAL_IMAGE_PAIR_REG_CALLBACK)]()
                for _ in range(placed - 2):
                    self.callbacks[int(events.NEXT_IMAGE_REG_CALLBACK)]()
                if images:
                    models.append(Model(images, points))
                self.callbacks[int(events.LAST_IMAGE_REG_CALLBACK)]()

    monkeypatch.setattr(mapping.pycolmap, "IncrementalPipeline", Pipeline)
    monkeypatch.setattr(mapping.pycolmap, "ReconstructionManager", Manager)
    options = pycolmap.IncrementalPipelineOptions()
    options.image_names = [f"{k}.png" for k in range(total)]
    _, placed, collapsed = mapping._run_incremental(options, Path(":memory:"), Path("images"), 2 * total, lambda: None)
    return len(made), placed, collapsed


@pytest.mark.parametrize(
    ("starts", "expected"),
    [
        ([(5, 5, 0)] * 9, (4, 20, False)),  # nothing but small models without points
        ([(5, 5, 0), (5, 5, 400), (65, 62, 5000)] + [(5, 5, 0)] * 9, (3, 75, False)),  # a large one: none can be larger
        ([(40, 0, 0)] + [(50, 50, 900)] * 3, (1, 40, True)),  # many images placed and all lost
        ([(30, 28, 700), (45, 44, 3), (50, 50, 900)], (2, 75, True)),  # many images placed and their points lost
        ([(45, 43, 700), (30, 28, 500)] + [(25, 25, 500)] * 9, (7, 200, False)),  # parts of a clip, up to the budget
    ],
)
def test_no_further_model_is_begun_when_that_cannot_pay(
    monkeypatch: pytest.MonkeyPatch, starts: list[tuple[int, int, int]], expected: tuple[int, int, bool]
) -> None:
    assert scripted(monkeypatch, starts, total=100) == expected


@pytest.mark.parametrize(
    ("view", "ran", "narrow", "reason"),
    [
        ("parallax", mapping.MapperRun(None, 20, False), [False, True, False], "no set of poses"),
        ("parallax", mapping.MapperRun(None, 20, True), [False, False], "hardly any parallax"),
        ("flat", mapping.MapperRun(None, 20, False), [True, True], "hardly any parallax"),
        ("flat", mapping.MapperRun(None, 0, False), [True], "hardly any parallax"),
        ("turn", mapping.MapperRun(None, 0, False), [], "only turns"),
    ],
)
def test_few_runs_are_spent_where_none_comes_to_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: str, ran: mapping.MapperRun, narrow: list[bool], reason: str
) -> None:
    database = write_matches(tmp_path, 0.0)
    monkeypatch.setattr(judge, "view_of", lambda *_: view)
    monkeypatch.setattr(mapping, "run_mapper", lambda *_, **__: ran)
    outcome = Shot(database, tmp_path / "images", NAMES, tmp_path / "scratch", SfmOptions(threads=1), SIZE, None).solve()
    assert outcome.status == "none" and reason in outcome.reason
    assert [candidate.narrow for candidate in outcome.candidates] == narrow
