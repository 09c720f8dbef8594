"""What exports cannot do is said in clear words, and nothing is touched then."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from segmotion_4d import FORMATS, export
from segmotion_4d.export_command import Export
from segmotion_4d.writing import NpzStream, destination
from support_4d import FRAMES, HEIGHT, WIDTH, read_png, truth
from support_processed import write_processed

from segmotion_plugin.errors import SegmotionError


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """Masks only, of an image sequence with compositing names."""
    folder = tmp_path_factory.mktemp("bare") / "clip"
    clip, _ = truth("plain")
    write_processed(folder, clip, None, poses=False, sources=[f"shot.{1001 + i}.jpg" for i in range(FRAMES)])
    return folder


@pytest.fixture(scope="module")
def posed(tmp_path_factory) -> Path:
    """Masks, tracks and poses, without depth and 3D tracks: what the builtin preset makes."""
    folder = tmp_path_factory.mktemp("posed") / "clip"
    write_processed(folder, *truth("plain"))
    return folder


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("colmap", ["poses", "segmotion reconstruct"]),
        ("shape-of-motion", ["poses", "depth", "--preset foundation", "tracks", "segmotion masks clip.mp4"]),
        ("tapip3d", ["3D tracks", "segmotion reconstruct"]),
        ("tum", ["poses"]),
    ],
)
def test_missing_parts_are_named_with_the_command_that_makes_them(bare, tmp_path, name, parts):
    with pytest.raises(SegmotionError) as error:
        export(bare, name, tmp_path / "dest")
    assert all(part in str(error.value) for part in parts)
    assert list(tmp_path.iterdir()) == []


def test_missing_depth_alone_is_named_alone(posed, tmp_path):
    with pytest.raises(SegmotionError, match="depth") as error:
        export(posed, "monst3r", tmp_path / "dest")
    assert "poses" not in str(error.value)


def test_disparity_without_depth_asks_for_the_reconstruction_alone(tmp_path):
    write_processed(tmp_path / "clip", *truth("plain"), poses=False)
    folder = tmp_path / "clip" / "motion" / "disparity"
    folder.mkdir()
    np.save(folder / "frame_00001.npy", np.ones((4, 4), np.float16))
    with pytest.raises(SegmotionError, match="depth model ran") as error:
        export(tmp_path / "clip", "monst3r", tmp_path / "dest")
    assert str(error.value).count("segmotion reconstruct") == 2 and "--preset" not in str(error.value)


def test_masks_alone_are_enough_for_mattes_under_the_sources_own_names(bare, tmp_path):
    clip, _ = truth("plain")
    export(bare, "mattes", tmp_path / "mattes")
    assert sorted(p.name for p in (tmp_path / "mattes" / "all").iterdir()) == [f"shot.{1001 + i}.png" for i in range(FRAMES)]
    np.testing.assert_array_equal(read_png(tmp_path / "mattes" / "all" / "shot.1004.png") == 255, clip.labels[3] > 0)


def test_dycheck_without_depth_says_who_will_not_load_it(posed, tmp_path):
    (note,) = export(posed, "dycheck", tmp_path / "dest")
    assert "nerfstudio's dycheck dataparser" in note and "--preset foundation" in note
    assert not (tmp_path / "dest" / "depth").exists()


def test_depth_of_a_models_own_size_is_brought_to_the_images(tmp_path):
    clip, tracks = truth("plain")
    write_processed(tmp_path / "clip", clip, tracks, depth=True)
    for path in (tmp_path / "clip" / "motion" / "depth").iterdir():
        values = np.full((HEIGHT // 2, WIDTH // 2), 3.0, np.float32)
        values[:4] = np.nan
        np.save(path, values)
    export(tmp_path / "clip", "monst3r", tmp_path / "dest")
    depth = np.load(tmp_path / "dest" / "frame_0000.npy")
    assert depth.shape == (HEIGHT, WIDTH) and not depth[:7].any() and (depth[10:] == 3).all()
    (tmp_path / "clip" / "motion" / "depth" / "frame_00002.npy").unlink()
    with pytest.raises(SegmotionError, match="depth of 1 of 10 images"):
        export(tmp_path / "clip", "monst3r", tmp_path / "other")


def test_a_destination_with_content_is_left_alone_until_told_otherwise(posed, tmp_path):
    dest = tmp_path / "dest"
    export(posed, "tum", dest)
    (dest / "more.txt").write_text("mine")
    with pytest.raises(SegmotionError, match="--overwrite"):
        export(posed, "davis", dest)
    with pytest.raises(SegmotionError, match="more.txt: not written by Segmotion"):
        export(posed, "davis", dest, overwrite=True)
    assert (dest / "more.txt").is_file() and (dest / "trajectory.txt").is_file()
    (dest / "more.txt").unlink()
    export(posed, "davis", dest, overwrite=True)
    assert not (dest / "trajectory.txt").exists() and (dest / "JPEGImages").is_dir()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(SegmotionError, match="nothing was touched"):
        export(posed, "tum", foreign, overwrite=True)
    assert [p.name for p in foreign.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("where", ["clip", "clip/exports", "."])
def test_a_destination_in_or_around_the_processed_folder_is_refused(posed, where):
    with pytest.raises(SegmotionError, match="in the processed folder or around it"):
        export(posed, "tum", posed.parent / where, overwrite=True)
    assert (posed / "transforms.json").is_file()


def test_a_failed_export_leaves_nothing(posed, tmp_path):
    with pytest.raises(RuntimeError), destination(tmp_path / "dest", posed, False) as folder:
        (folder / "half").write_text("done")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_names_that_would_collide_are_named(tmp_path):
    clip, _ = truth("plain")
    sources = [f"shot.{1001 + i}.jpg" for i in range(FRAMES - 1)] + ["shot.1001.tif"]
    write_processed(tmp_path / "clip", clip, None, poses=False, sources=sources)
    with pytest.raises(SegmotionError, match=r"shot\.1001\.jpg .* shot\.1001\.tif .* shot\.1001\.png"):
        export(tmp_path / "clip", "mattes", tmp_path / "dest")


@pytest.mark.parametrize("reserved", [254, 255])
def test_what_is_masked_and_yet_no_object_is_not_scored_in_davis_and_has_no_matte(tmp_path, reserved):
    clip, _ = truth("plain")
    labels = np.where(clip.labels == 1, reserved, clip.labels).astype(np.uint8)
    write_processed(tmp_path / "clip", replace(clip, labels=labels), None, poses=False)
    export(tmp_path / "clip", "davis", tmp_path / "davis")
    index = read_png(tmp_path / "davis" / "Annotations" / "480p" / "clip" / "00003.png")
    np.testing.assert_array_equal(index, np.where(clip.labels[3] == 1, 255, clip.labels[3]))
    export(tmp_path / "clip", "mattes", tmp_path / "mattes")
    objects = sorted(set(np.unique(clip.labels).tolist()) - {0, 1})
    assert objects and sorted(p.name for p in (tmp_path / "mattes").glob("object_*")) == [f"object_{k:02d}" for k in objects]
    (matte,) = (tmp_path / "mattes" / "all").glob("*.0004.png")
    np.testing.assert_array_equal(read_png(matte) == 255, clip.labels[3] > 0)


def test_a_clip_where_nothing_moves_exports_empty_masks_and_shape_of_motion_says_no(tmp_path):
    clip, tracks = truth("plain")
    still = replace(clip, labels=np.zeros_like(clip.labels))
    write_processed(tmp_path / "clip", still, replace(tracks, object_id=np.zeros_like(tracks.object_id)), depth=True)
    export(tmp_path / "clip", "mattes", tmp_path / "mattes")
    assert [p.name for p in (tmp_path / "mattes").iterdir() if p.is_dir()] == ["all"]
    assert not read_png(tmp_path / "mattes" / "all" / "clip.0001.png").any()
    with pytest.raises(SegmotionError, match="no track moves"):
        export(tmp_path / "clip", "shape-of-motion", tmp_path / "som")


def test_images_without_a_pose_are_left_out_and_told(tmp_path):
    import pycolmap

    clip, tracks = truth("plain")
    write_processed(tmp_path / "clip", clip, tracks)
    model_path = tmp_path / "clip" / "colmap" / "sparse" / "0"
    model = pycolmap.Reconstruction(model_path)
    lost = next(i for i in model.images.values() if i.name == "frame_00004.png")
    model.deregister_frame(lost.frame_id)
    model.write_binary(model_path)
    (note,) = export(tmp_path / "clip", "deformable-3dgs", tmp_path / "dest")
    assert "1 of 10 images have no pose" in note
    written = sorted(p.name for p in (tmp_path / "dest" / "images").iterdir())
    assert written == [f"{i:05d}.png" for i in range(FRAMES - 1)], "stems count on without gaps"
    assert (tmp_path / "dest" / "images" / "00003.png").samefile(tmp_path / "clip" / "images" / "frame_00005.png")
    (note,) = export(tmp_path / "clip", "colmap", tmp_path / "colmap")
    assert "1 of 10 images have no pose" in note and (tmp_path / "colmap" / "images" / "frame_00004.png").is_file()


def test_a_selection_of_the_frames_keeps_its_times_and_tracks(tmp_path):
    clip, tracks = truth("plain")
    write_processed(tmp_path / "clip", clip, tracks, every=3, tracks_3d=True, depth=True)
    export(tmp_path / "clip", "tum", tmp_path / "tum")
    lines = np.loadtxt(tmp_path / "tum" / "trajectory.txt")
    np.testing.assert_allclose(lines[:, 0], np.arange(0, FRAMES, 3) / clip.fps, atol=1e-5)
    np.testing.assert_allclose(lines[:, 1:4], clip.cameras.centers()[::3], atol=1e-6)
    export(tmp_path / "clip", "tapip3d", tmp_path / "tapip3d")
    with np.load(tmp_path / "tapip3d" / "clip.npz") as data:
        assert data["video"].shape == (4, 3, HEIGHT, WIDTH) and len(data["coords"]) == 4
    (note,) = export(tmp_path / "clip", "mattes", tmp_path / "mattes")
    assert "gaps" in note
    assert sorted(p.name for p in (tmp_path / "mattes" / "all").iterdir()) == [f"clip.{i + 1:04d}.png" for i in range(0, FRAMES, 3)]


def test_damaged_and_foreign_folders_are_refused(posed, tmp_path):
    with pytest.raises(SegmotionError, match="not a folder made by Segmotion"):
        export(tmp_path, "colmap", tmp_path / "dest")
    with pytest.raises(SegmotionError, match="no such format"):
        export(posed, "colmpa", tmp_path / "dest")
    copy = tmp_path / "copy"
    shutil.copytree(posed, copy)
    for name in ("points3D.bin", "images.bin"):  # COLMAP itself would read on for ever
        path = copy / "colmap" / "sparse" / "0" / name
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(SegmotionError, match=f"{name}: not a readable COLMAP model"):
            export(copy, "colmap-undistorted", tmp_path / "dest")
    (copy / "masks" / "frame_00003.png").unlink()
    with pytest.raises(SegmotionError, match="frame_00003.png is missing"):
        export(copy, "davis", tmp_path / "dest")


def test_arrays_streamed_into_an_npz_must_have_the_announced_shape(tmp_path):
    with NpzStream(tmp_path / "a.npz") as stream:
        stream.add("small", np.arange(5, dtype=np.int16))
        stream.add_slices("large", (np.full((2, 3), i, np.float32) for i in range(4)), (4, 2, 3), np.float32)
    with np.load(tmp_path / "a.npz") as data:
        assert data["small"].tolist() == [0, 1, 2, 3, 4] and data["small"].dtype == np.int16
        np.testing.assert_array_equal(data["large"][:, 0, 0], np.arange(4))
    with pytest.raises(ValueError, match="3 slices"), NpzStream(tmp_path / "b.npz") as stream:
        stream.add_slices("large", (np.zeros((2, 3)) for _ in range(3)), (4, 2, 3), np.float32)


def test_the_command_lists_formats_and_takes_the_destination_last(posed, tmp_path, capsys):
    import tyro

    assert tyro.cli(Export, args=["--list"]).main() == 0
    listed = capsys.readouterr().out
    for form in FORMATS.values():
        assert form.name in listed and form.polarity.split(":")[0] in listed
    assert tyro.cli(Export, args=[str(posed), "--format", "tum", str(tmp_path / "dest"), "--quiet"]).main() == 0
    assert (tmp_path / "dest" / "trajectory.txt").is_file()
    with pytest.raises(SegmotionError, match="segmotion export OUT --format F DEST"):
        tyro.cli(Export, args=[str(posed)]).main()


def test_the_example_writes_what_the_clip_has(posed, tmp_path, capsys):
    import runpy

    example = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "06_export_shape_of_motion.py"))
    example["main"](posed, tmp_path / "without")
    assert "--preset foundation" in capsys.readouterr().out
    assert (tmp_path / "without" / "sparse" / "0" / "images.bin").is_file()
    write_processed(tmp_path / "clip", *truth("plain"), depth=True)
    example["main"](tmp_path / "clip", tmp_path / "with")
    assert "dynamic: 255 = moves" in capsys.readouterr().out
    assert (tmp_path / "with" / "droid_recon" / "clip.npy").is_file()
