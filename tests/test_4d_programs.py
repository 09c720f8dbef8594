"""Exports by program, read as that program's own loader reads them: names, sizes, polarity, defaults. Points lie on their pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
from PIL import Image
from segmotion_4d import FORMATS, export
from segmotion_4d.formats.splats import shrunk_keep
from support_4d import FRAMES, HEIGHT, KINDS, WIDTH, _points, dynamic_truth, positions, read_png, truth
from support_processed import write_processed

from segmotion_plugin.files import write_png

PROGRAMS = ("gsplat", "3dgs", "nerfstudio-colmap", "brush", "lichtfeld", "postshot", "3dgrut", "fvdb")


@pytest.fixture(scope="module", params=KINDS)
def clip(request, tmp_path_factory):
    """(kind, simulated clip, folder with the processed clip and an export per program)."""
    folder = tmp_path_factory.mktemp(request.param)
    simulated, tracks = truth(request.param)
    write_processed(folder / "clip", simulated, tracks)
    for name in PROGRAMS:
        export(folder / "clip", name, folder / name)
    return request.param, simulated, folder


def check(simulated, frame: int, picture: np.ndarray, matrix: np.ndarray, pose: np.ndarray, moving: np.ndarray, factor: int = 1):
    """Points of the truth lie within half a pixel of the shrunk picture from where it shows them, and its mask (True = moves) fits."""
    assert moving.shape == picture.shape[:2] and moving.dtype == bool
    xyz = _points(simulated, frame)
    camera = xyz @ pose[:3, :3].T + pose[:3, 3]
    xy = (camera @ matrix.T)[:, :2] / camera[:, 2:]
    inside = ((xy > 1) & (xy < np.array(picture.shape[1::-1]) - 1)).all(axis=1)
    # A picture that is black on what moves tells no positions there.
    shown = positions(picture, xy[inside])
    solid = shown.min(axis=1) > 2
    error = np.abs(shown - simulated.cameras.project(xyz, frame)[0][inside])[solid] / factor
    assert solid.sum() > 60 and np.percentile(error, 95) < 0.5 and np.median(error) < 0.15
    row, column = np.indices(moving.shape).reshape(2, -1)
    reach = cv2.erode((simulated.labels[frame] == 0).astype(np.uint8), np.ones((4 * factor + 1, 4 * factor + 1), np.uint8))
    place = picture[row, column, :2].astype(np.float32) / 2
    visible = place.min(axis=1) > 0.4
    sure, _ = dynamic_truth(simulated.labels[frame], place)
    assert moving[row, column][sure & visible].all()
    x, y = np.clip(place.astype(int), 0, (WIDTH - 1, HEIGHT - 1)).T
    static = (reach[y, x] > 0) & visible
    assert static.any() and not moving[row, column][static].any()
    assert moving.any()


def model_of(folder: Path) -> tuple[pycolmap.Reconstruction, pycolmap.Camera]:
    model = pycolmap.Reconstruction(folder)
    (camera,) = model.cameras.values()
    assert camera.model_name == "PINHOLE" and model.num_points3D() > 30
    return model, camera


def by_name(model) -> list:
    return sorted(model.images.values(), key=lambda image: image.name)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_gsplat_finds_its_shrunk_pictures_and_our_masks_fit_them(clip, factor):
    """examples/datasets/colmap.py: K / factor, sizes rounded down, images_F by sorted order, K again by the picture's real size."""
    _, simulated, folder = clip
    root = folder / "gsplat"
    model, camera = model_of(root / "sparse" / "0")
    suffix = "" if factor == 1 else f"_{factor}"
    full, small = (sorted(p.name for p in (root / f"images{s}").iterdir()) for s in ("", suffix))
    assert len(full) == len(small) == FRAMES and small[0].endswith(".png")
    for image in (by_name(model)[0], by_name(model)[-1]):
        frame = int(image.name[6:11]) - 1
        picture = read_png(root / f"images{suffix}" / dict(zip(full, small, strict=True))[image.name])
        matrix = camera.calibration_matrix()
        matrix[:2] /= factor
        size = np.array([camera.width // factor, camera.height // factor])
        scale = np.array(picture.shape[1::-1]) / size
        np.testing.assert_array_equal(scale, 1)
        keep = read_png(root / f"masks{suffix}" / f"{Path(image.name).stem}.png")
        check(simulated, frame, picture, matrix, image.cam_from_world().matrix(), keep == 0, factor)


def test_3dgs_multiplies_by_the_alpha_of_pictures_that_are_black_under_it(clip):
    """scene/cameras.py and train.py: a picture of four channels gives its mask; the render is multiplied by it, the picture is not."""
    _, simulated, folder = clip
    model, camera = model_of(folder / "3dgs" / "sparse" / "0")
    for image in (by_name(model)[0], by_name(model)[-1]):
        with Image.open(folder / "3dgs" / "images" / image.name) as stored:
            assert stored.mode == "RGBA" and stored.size == (camera.width, camera.height)
            rgba = np.asarray(stored)
        alpha = rgba[..., 3] / 255.0
        assert set(np.unique(alpha)) == {0.0, 1.0} and not rgba[alpha == 0][:, :3].any()
        # The field of view is all that is read, so the axis must be the picture's centre.
        fov = 2 * np.arctan(np.array([camera.width, camera.height]) / (2 * camera.params[:2]))
        focal = np.array([camera.width, camera.height]) / (2 * np.tan(fov / 2))
        matrix = np.array([[focal[0], 0, camera.width / 2], [0, focal[1], camera.height / 2], [0, 0, 1]])
        check(simulated, int(image.name[6:11]) - 1, rgba[..., :3], matrix, image.cam_from_world().matrix(), alpha == 0)


def test_nerfstudio_colmap_finds_model_and_masks_by_its_defaults(clip):
    """colmap_dataparser.py: colmap/sparse/0; masks_path / name with .png; shrunk ones in folders _F, same names, sizes floored."""
    _, simulated, folder = clip
    root = folder / "nerfstudio-colmap"
    model, camera = model_of(root / "colmap" / "sparse" / "0")
    for factor in (1, 2, 4, 8):
        suffix = "" if factor == 1 else f"_{factor}"
        for image in model.images.values():
            picture = read_png(root / f"images{suffix}" / image.name)
            keep = read_png((root / f"masks{suffix}" / image.name).with_suffix(".png"))
            assert picture.shape[:2] == keep.shape == (camera.height // factor, camera.width // factor)
        matrix = camera.calibration_matrix() * np.array([[1 / factor], [1 / factor], [1]])
        check(simulated, int(image.name[6:11]) - 1, picture, matrix, image.cam_from_world().matrix(), keep == 0, factor)


def test_brush_finds_one_mask_for_every_picture_and_its_first_channel_is_alpha(clip):
    """formats/mod.rs and load_image.rs: a file below `masks` whose stem is the picture's name or stem; images are not."""
    _, simulated, folder = clip
    root = folder / "brush"
    files = [p.relative_to(root) for p in root.rglob("*") if p.is_file()]
    model, camera = model_of(root / "sparse" / "0")
    assert not [p for p in files if p.suffix == ".ply"], "a ply would replace the points of the model"
    for image in model.images.values():
        found = min(p for p in files if str(p).endswith(image.name) and "masks" not in p.parts)
        masks = [p for p in files if p.stem in (found.name, found.stem, f"{found.stem}.mask") and "masks" in p.parts]
        assert found == Path("images") / image.name and len(masks) == 1
    with Image.open(root / masks[0]) as stored:
        assert stored.mode == "L", "with an alpha channel that would be taken instead"
        alpha = np.asarray(stored)
    picture = read_png(root / found)
    check(
        simulated,
        int(image.name[6:11]) - 1,
        picture,
        camera.calibration_matrix(),
        image.cam_from_world().matrix(),
        alpha == 0,
    )


@pytest.mark.parametrize("name", ["lichtfeld", "fvdb"])
def test_lichtfeld_and_fvdb_look_for_masks_by_stem_and_leave_out_what_is_dark(clip, name):
    """filesystem_utils.hpp: masks/STEM.png among others; _load_colmap_scene.py: masks/NAME, then masks/STEM.png."""
    _, simulated, folder = clip
    root = folder / name
    model, camera = model_of(root / "sparse" / "0")
    for image in model.images.values():
        candidates = [root / "masks" / image.name, (root / "masks" / image.name).with_suffix(".png")]
        keep = read_png(next(p for p in candidates if p.exists()))
        assert keep.shape == (camera.height, camera.width) and set(np.unique(keep)) <= {0, 255}
    check(
        simulated,
        int(image.name[6:11]) - 1,
        read_png(root / "images" / image.name),
        camera.calibration_matrix(),
        image.cam_from_world().matrix(),
        keep < 128,
    )


def test_postshot_occluder_masks_are_white_on_what_moves_under_the_pictures_own_base_name(clip):
    _, simulated, folder = clip
    root = folder / "postshot"
    model, camera = model_of(root / "sparse" / "0")
    assert sorted(p.stem for p in (root / "images").iterdir()) == sorted(p.stem for p in (root / "occluder_masks").iterdir())
    image = by_name(model)[3]
    occluder = read_png(root / "occluder_masks" / f"{Path(image.name).stem}.png")
    picture = read_png(root / "images" / image.name)
    check(simulated, 3, picture, camera.calibration_matrix(), image.cam_from_world().matrix(), occluder == 255)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_3dgrut_reads_masks_beside_its_pictures(clip, factor):
    """dataset_colmap.py: images_F / name, the same with _mask.png; the calibration is divided by the rounded ratio of heights."""
    _, simulated, folder = clip
    root = folder / "3dgrut"
    model, camera = model_of(root / "sparse" / "0")
    for image in (by_name(model)[0], by_name(model)[-1]):
        path = root / ("images" if factor == 1 else f"images_{factor}") / image.name
        picture = read_png(path)
        assert picture.dtype == np.uint8 and picture.shape[2] == 3
        ratio = int(round(camera.height / picture.shape[0]))
        assert ratio == factor and abs(camera.width / ratio - picture.shape[1]) <= 1
        mask = np.asarray(Image.open(path.with_name(f"{path.stem}_mask.png")).convert("L")) / 255.0 > 0.5
        matrix = camera.calibration_matrix() * np.array([[1 / ratio], [1 / ratio], [1]])
        check(simulated, int(image.name[6:11]) - 1, picture, matrix, image.cam_from_world().matrix(), ~mask, factor)


def test_files_that_need_no_change_are_links(clip):
    kind, _, folder = clip
    if kind == "plain":
        for name in PROGRAMS:
            picture = folder / name / "images" / "frame_00002.png"
            assert picture.samefile(folder / "clip" / "images" / "frame_00002.png") == (name != "3dgs")
        for name in ("gsplat", "brush", "lichtfeld", "fvdb", "nerfstudio-colmap"):
            assert (folder / name / "masks" / "frame_00002.png").samefile(folder / "clip" / "masks" / "frame_00002.png")
    else:
        assert not (folder / "gsplat" / "images" / "frame_00002.png").samefile(folder / "clip" / "images" / "frame_00002.png")


def test_a_shrunk_mask_keeps_a_pixel_only_where_all_of_it_is_static():
    keep = np.full((5, 7), 255, np.uint8)
    keep[3, 2] = 0
    np.testing.assert_array_equal(shrunk_keep(keep, 2), [[255, 255, 255], [255, 0, 255]])


def test_points_on_movers_are_in_no_cloud(tmp_path):
    simulated, tracks = truth("plain")
    write_processed(tmp_path / "clip", simulated, tracks)
    model_path = tmp_path / "clip" / "colmap" / "sparse" / "0"
    before = pycolmap.Reconstruction(model_path)
    # The masks are made anew after the reconstruction, and what point 1 shows now counts as moving.
    point = before.points3D[min(before.points3D)]
    for element in point.track.elements:
        image = before.images[element.image_id]
        x, y = np.floor(image.points2D[element.point2D_idx].xy).astype(int)
        path = tmp_path / "clip" / "motion" / "objects" / f"{Path(image.name).stem}.png"
        labels = read_png(path).copy()
        labels[y, x] = 1
        write_png(path, labels)
    for name, model in (("colmap", "sparse/0"), ("gsplat", "sparse/0"), ("nerfstudio-colmap", "colmap/sparse/0")):
        export(tmp_path / "clip", name, tmp_path / name)
        left = np.array([p.xyz for p in pycolmap.Reconstruction(tmp_path / name / model).points3D.values()])
        assert 0 < len(left) < before.num_points3D()
        assert np.abs(left - point.xyz).max(axis=1).min() > 1e-9
    export(tmp_path / "clip", "dycheck", tmp_path / "dycheck")
    assert len(np.load(tmp_path / "dycheck" / "points.npy")) == len(left)
    assert before.num_points3D() == pycolmap.Reconstruction(model_path).num_points3D(), "the clip itself is left alone"


def test_every_export_says_what_becomes_of_its_masks_and_what_to_type(clip):
    _, _, folder = clip
    for name in PROGRAMS:
        text = (folder / name / "README.txt").read_text()
        assert f"masks: {FORMATS[name].use}" in text and str(folder / name) in text and "DEST" not in text
    assert FORMATS["gsplat"].use == FORMATS["colmap-undistorted"].use == "ignored by this program"
    assert "08_gsplat_masked" in FORMATS["gsplat"].advice and "segmotion-splatfacto" in FORMATS["4dgaussians"].advice


@pytest.mark.parametrize("mode", ["I;16", "CMYK"])
def test_alpha_exports_of_16_bit_and_cmyk_pictures_are_8_bit_rgba(tmp_path, mode):
    simulated, tracks = truth("plain")
    write_processed(tmp_path / "clip", simulated, tracks)
    out = tmp_path / "clip"
    if mode == "I;16":
        for path in (out / "images").iterdir():
            write_png(path, read_png(path).astype(np.uint16) * 257)
    else:
        _rename_to_jpeg(out)
    export(out, "3dgs", tmp_path / "3dgs")
    for name in ("frame_00001.png", f"frame_{FRAMES:05d}.png"):
        with Image.open(tmp_path / "3dgs" / "images" / name) as stored:
            assert stored.mode == "RGBA"
            rgba = np.asarray(stored).astype(int)
        original = simulated.frames[int(name[6:11]) - 1].astype(int)
        static = rgba[..., 3] == 255
        assert np.abs(rgba[..., :3] - original)[static].mean() < 4


def _rename_to_jpeg(out: Path) -> None:
    """Make the pictures CMYK JPEGs, as the folder would hold had they come so."""
    from segmotion_plugin.files import read_json, write_json

    frames = read_json(out / "motion" / "frames.json")
    for entry in frames["images"]:
        path = out / "images" / entry["name"]
        entry["name"] = path.with_suffix(".jpg").name
        Image.fromarray(255 - np.dstack([read_png(path), np.full((HEIGHT, WIDTH), 255, np.uint8)]), "CMYK").save(
            path.with_suffix(".jpg"), quality=100, subsampling=0
        )
        path.unlink()
    write_json(out / "motion" / "frames.json", frames)
    folder = out / "colmap" / "sparse" / "0"
    model = pycolmap.Reconstruction(folder)
    for image in model.images.values():
        image.name = image.name.replace(".png", ".jpg")
    model.write_binary(folder)


@pytest.mark.parametrize("factor", [1, 4])
def test_the_gsplat_example_reads_pictures_masks_and_cameras_that_fit(clip, factor):
    """All that needs no CUDA: what it hands to gsplat, whose pixels have their centres at 0.5, and its loss."""
    import runpy

    import torch

    _, simulated, folder = clip
    example = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "08_gsplat_masked.py"))
    views, splats = example["load"](folder / "gsplat", factor)
    assert len(views) == FRAMES
    for frame in (0, FRAMES - 1):
        image, keep, matrix, pose = (part.numpy() for part in views[frame])
        assert image.dtype == matrix.dtype == pose.dtype == np.float32 and pose.shape == (4, 4)
        check(simulated, frame, np.round(image * 255).astype(np.uint8), matrix, pose[:3], ~keep, factor)
    count = len(splats["means"])
    shapes = {"means": (count, 3), "scales": (count, 3), "colors": (count, 3), "quats": (count, 4), "opacities": (count,)}
    assert {key: tuple(value.shape) for key, value in splats.items()} == shapes
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in splats.values())
    # What is rendered on movers counts for nothing, and static pixels all the same.
    image, keep, _, _ = views[0]
    render = image.clone().requires_grad_()
    loss = example["masked_loss"](render + torch.where(keep, 0.25, 9.0)[..., None], image, keep)
    loss.backward()
    assert loss.item() == pytest.approx(0.25, abs=1e-5)
    assert (render.grad[~keep] == 0).all() and (render.grad[keep] > 0).all()
