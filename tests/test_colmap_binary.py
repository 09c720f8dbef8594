"""COLMAP's command line of several versions, and masks of undistorted images."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from segmotion_colmap.binary import ColmapBinary, put_largest_first
from segmotion_colmap.intrinsics import Intrinsics, read_intrinsics, write_intrinsics
from segmotion_colmap.undistort import read_model, undistort_masks

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import write_png
from segmotion_plugin.masks import read_grey

OLD = ["SiftExtraction.use_gpu", "SiftMatching.use_gpu", "SiftMatching.max_error"]
NEW = ["FeatureExtraction.use_gpu", "FeatureMatching.use_gpu", "TwoViewGeometry.max_error"]


def stand_in(folder: Path, version: str, options: list[str]) -> str:
    """A program that answers as COLMAP does and writes down what it was asked for."""
    path = folder / "a colmap" / "colmap"
    path.parent.mkdir(parents=True)
    said = "\n".join([f"COLMAP {version} -- Structure-from-Motion", *(f"  --{name} arg" for name in options)])
    asked = folder / "asked"
    path.write_text(f"#!/bin/sh\ncase \"$*\" in *-h) cat <<'EOF'\n{said}\nEOF\nexit;; esac\nprintf '%s\\n' \"$@\" >> '{asked}'\n")
    path.chmod(0o755)
    return f"'{path}'"


@pytest.mark.parametrize(("version", "options"), [("3.8", OLD), ("4.1.1", NEW)])
def test_options_are_called_as_the_installed_version_has_them(tmp_path, version, options):
    binary = ColmapBinary.find(stand_in(tmp_path, version, options))
    assert binary is not None and binary.version == tuple(int(part) for part in version.split("."))[:2]
    binary.extract(tmp_path / "d b.db", tmp_path / "images", camera_model="OPENCV", mask_dir=tmp_path / "ma sks")
    binary.match(tmp_path / "d b.db", "sequential", tolerance=1.6)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [f"--{name}" in asked for name in options] == [True] * 3
    assert asked[asked.index("--ImageReader.mask_path") + 1] == str(tmp_path / "ma sks")
    assert asked[asked.index(f"--{options[2]}") + 1] == "1.6"
    assert binary.own_vocabulary_tree == (version == "4.1.1")


def test_what_colmap_says_when_it_fails_reaches_the_user(tmp_path):
    binary = ColmapBinary.find(stand_in(tmp_path, "3.8", OLD))
    assert binary is not None
    Path(binary.command[0]).write_text("#!/bin/sh\necho first >&2\necho 'no space left' >&2\nexit 3\n")
    with pytest.raises(SegmotionError, match=r"mapper failed \(exit status 3\):\nfirst\nno space left"):
        binary.run("mapper")
    with pytest.raises(SegmotionError, match="no option"):
        binary.option("mapper", "Mapper.unheard_of")
    with pytest.raises(SegmotionError, match="does not answer"):
        ColmapBinary.find("true")
    assert ColmapBinary.find("no-such-program") is None


def test_the_largest_model_comes_first(tmp_path):
    for number, images in enumerate([3, 14, 5]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "images.bin").write_bytes(struct.pack("<Q", images))
    put_largest_first([tmp_path / "0", tmp_path / "1", tmp_path / "2"])
    counts = [struct.unpack("<Q", (tmp_path / str(k) / "images.bin").read_bytes())[0] for k in range(3)]
    assert counts == [14, 3, 5]


def test_a_simple_camera_is_written_in_the_richer_model(tmp_path):
    import pycolmap

    radial = Intrinsics(1, "SIMPLE_RADIAL", 320, 180, np.array([300.0, 161.0, 92.0, 0.03]))
    write_intrinsics(tmp_path, radial.expanded())
    back = read_intrinsics(tmp_path)
    assert back.model == "OPENCV" and back.focal == (300.0, 300.0)
    points = np.array([[0.3, -0.2, 1.0], [-0.4, 0.1, 1.0]])
    cameras = [pycolmap.Camera(model=c.model, width=320, height=180, params=c.params.tolist()) for c in (radial, back)]
    assert np.allclose(*(np.asarray(camera.img_from_cam(points)) for camera in cameras), atol=1e-9)
    assert Intrinsics(1, "SIMPLE_PINHOLE", 8, 8, np.array([5.0, 4.0, 4.0])).expanded().params.tolist() == [5.0, 5.0, 4.0, 4.0]


def test_a_refinement_that_runs_away_is_told_from_one_that_does_not():
    before = Intrinsics(1, "OPENCV", 320, 180, np.array([300.0, 300.0, 160, 90, 0, 0, 0, 0]))
    near = Intrinsics(1, "OPENCV", 320, 180, np.array([304.0, 298.0, 150, 99, 0, 0, 0, 0]))
    far = Intrinsics(1, "OPENCV", 320, 180, np.array([301.0, 340.0, 160, 90, 0, 0, 0, 0]))
    assert near.agrees(before) and not far.agrees(before)


@pytest.fixture
def distorted(tmp_path) -> Path:
    """A model with strong distortion, and a mask that is also the picture."""
    import pycolmap

    rng = np.random.default_rng(0)
    coarse = (rng.random((9, 16)) > 0.4).astype(np.uint8) * 255
    picture = np.kron(coarse, np.ones((20, 20), np.uint8))
    write_png(tmp_path / "images" / "cam" / "a.png", np.repeat(picture[..., None], 3, axis=2))
    write_png(tmp_path / "masks" / "cam" / "a.png.png", picture)
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(model="SIMPLE_RADIAL", width=320, height=180, params=[260.0, 158.0, 93.0, 0.12], camera_id=1)
    model.add_camera_with_trivial_rig(camera)
    image = pycolmap.Image(name="cam/a.png", keypoints=np.zeros((0, 2)), camera_id=1, image_id=1)
    model.add_image_with_trivial_frame(image, pycolmap.Rigid3d())
    (tmp_path / "sparse").mkdir()
    model.write_binary(tmp_path / "sparse")
    return tmp_path


@pytest.mark.parametrize("given", [False, True])
def test_undistorted_masks_fit_the_images_that_colmap_undistorts(distorted, given):
    import pycolmap

    with pycolmap.ostream():
        pycolmap.undistort_images(distorted / "dense", distorted / "sparse", distorted / "images")
    names = undistort_masks(
        distorted / "sparse", distorted / "masks", distorted / "new", distorted / "dense" / "sparse" if given else None
    )
    assert names == ["cam/a.png"]
    mask = read_grey(distorted / "new" / "cam" / "a.png.png")
    picture = read_grey(distorted / "dense" / "images" / "cam" / "a.png")
    assert mask.shape == picture.shape != (180, 320)
    assert set(np.unique(mask)) == {0, 255}
    # Where COLMAP's bilinear picture is plainly black or white the mask says the same.
    plain = (picture < 60) | (picture > 195)
    assert plain.mean() > 0.85
    assert np.mean((mask > 0)[plain] == (picture > 127)[plain]) > 0.995


def test_masks_of_another_size_and_folders_without_model_are_refused(distorted):
    with pytest.raises(SegmotionError, match="no sparse model"):
        undistort_masks(distorted / "images", distorted / "masks", distorted / "new")
    write_png(distorted / "masks" / "cam" / "a.png.png", np.zeros((90, 160), np.uint8))
    with pytest.raises(SegmotionError, match="160×90 pixels, but the camera of cam/a.png has 320×180"):
        undistort_masks(distorted / "sparse", distorted / "masks", distorted / "new")


def test_models_are_read_as_text_and_damaged_ones_refused(distorted):
    import pycolmap

    (distorted / "text").mkdir()
    pycolmap.Reconstruction(str(distorted / "sparse")).write_text(str(distorted / "text"))
    assert read_model(distorted / "text").num_images() == 1
    data = (distorted / "sparse" / "images.bin").read_bytes()
    (distorted / "sparse" / "images.bin").write_bytes(data[:-5])
    with pytest.raises(SegmotionError, match="images.bin: not a readable COLMAP model"):
        undistort_masks(distorted / "sparse", distorted / "masks", distorted / "new")
    (distorted / "text" / "cameras.txt").write_text("1 NO_SUCH_MODEL 320 180 1\n")
    with pytest.raises(SegmotionError, match="not a readable sparse model"):
        read_model(distorted / "text")
