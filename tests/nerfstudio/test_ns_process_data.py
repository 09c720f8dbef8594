"""`ns-process-data` with --motion-mask: frames, masks and transforms.json, with the cameras of a model that is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from nerfstudio.scripts import process_data as stock
from segmotion_nerfstudio import process_data
from segmotion_nerfstudio.options import MotionMaskOptions
from segmotion_nerfstudio.process_data import MotionImages, MotionVideo
from support_processed import write_processed

from segmotion_plugin.clip import read_rgb
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import read_json, write_png
from segmotion_plugin.masks import read_grey
from segmotion_plugin.simulation import SimulatedClip, render, scenes

FRAMES, WIDTH, HEIGHT = 12, 98, 66


@pytest.fixture(scope="module")
def clip() -> SimulatedClip:
    return render(scenes.build("walker", seed=3, num_frames=FRAMES, width=WIDTH, height=HEIGHT))


@pytest.fixture(scope="module")
def model(clip, tmp_path_factory) -> Path:
    """A COLMAP model of the images as the user calls them."""
    import pycolmap

    folder = tmp_path_factory.mktemp("truth") / "processed"
    write_processed(folder, clip, None)
    model = pycolmap.Reconstruction(folder / "colmap" / "sparse" / "0")
    for image in model.images.values():
        image.name = f"shot {int(image.name[6:11]) - 1}.png"
    model.write_binary(folder / "colmap" / "sparse" / "0")
    return folder / "colmap"


@pytest.fixture(scope="module")
def video(clip, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / "walk.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt, stream.options = WIDTH, HEIGHT, "yuv420p", {"crf": "8"}
        for frame in clip.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return path


def truth(clip: SimulatedClip, frame: int) -> np.ndarray:
    return np.where(clip.labels[frame] > 0, np.uint8(0), np.uint8(255))


def exact(folder: Path, clip: SimulatedClip, names: dict[str, int]) -> Path:
    for name, frame in names.items():
        write_png(folder / f"{name}.png", truth(clip, frame))
    return folder


def test_a_video_gives_evenly_spaced_frames_with_their_own_masks(clip, video, tmp_path):
    own = exact(tmp_path / "own", clip, {f"frame_{k + 1:05d}": round(k * 11 / 4) for k in range(5)})
    out = tmp_path / "out"
    MotionVideo(
        video,
        out,
        num_frames_target=5,
        motion_mask=True,
        motion_mask_method="none",
        motion_mask_extra=own,
        skip_colmap=True,
        num_downscales=2,
    ).main()
    entries = read_json(out / "motion" / "frames.json")["images"]
    assert [e["number"] for e in entries] == [0, 3, 6, 8, 11]
    assert [e["name"] for e in entries] == [f"frame_{k:05d}.png" for k in range(1, 6)]
    for entry in entries:
        frame = entry["number"]
        image = read_rgb(out / "images" / entry["name"]).astype(int)
        off = [np.abs(image - clip.frames[k].astype(int)).mean() for k in range(FRAMES)]
        assert np.argmin(off) == frame
        assert np.array_equal(read_grey(out / "masks" / entry["name"]), truth(clip, frame))
        assert np.array_equal(read_grey(out / "colmap_masks" / f"{entry['name']}.png"), truth(clip, frame))
        for factor in (2, 4):
            small = read_grey(out / f"masks_{factor}" / entry["name"])
            assert small.shape == read_grey(out / f"images_{factor}" / entry["name"]).shape == (HEIGHT // factor, WIDTH // factor)
            assert set(np.unique(small)) <= {0, 255}
    assert not (out / "transforms.json").exists() and not list(out.glob(".segmotion-*"))
    assert (out / "motion" / "overview.png").is_file()


def test_what_is_cut_off_the_pictures_is_cut_off_masks_and_tracks(clip, video, tmp_path):
    from segmotion_plugin.tracks import load_tracks

    out = tmp_path / "out"
    MotionVideo(
        video, out, num_frames_target=12, motion_mask=True, motion_mask_classifier="geometric", motion_mask_dilate=0.0,
        crop_factor=(0.0, 0.25, 0.1, 0.0), skip_colmap=True, num_downscales=1, percent_radius_crop=0.9,
    ).main()  # fmt: skip
    left, bottom = int(WIDTH * 0.1), int(HEIGHT * 0.75)
    image = read_rgb(out / "images" / "frame_00003.png").astype(int)
    assert np.abs(image - clip.frames[2][:bottom, left : left + image.shape[1]]).mean() < 6
    objects = read_grey(out / "motion" / "objects" / "frame_00003.png")
    keep = read_grey(out / "masks" / "frame_00003.png")
    assert image.shape[:2] == objects.shape == keep.shape
    rows, columns = np.mgrid[: keep.shape[0], : keep.shape[1]]
    radius = int(0.9 * np.hypot(*keep.shape) / 2)
    circle = (columns - keep.shape[1] // 2) ** 2 + (rows - keep.shape[0] // 2) ** 2 <= radius**2
    assert not circle.all() and np.array_equal(keep > 0, circle & (objects == 0))
    tracks, _, size = load_tracks(out / "motion" / "tracks.npz")
    assert size == (keep.shape[1], keep.shape[0])
    ids, xy = tracks.observations_at(2)
    assert len(ids) and (xy >= 0).all() and (xy < size).all()


@pytest.fixture
def photos(clip, tmp_path) -> Path:
    """Names without leading zeros: nerfstudio sorts them 0, 1, 10, 11, 2 …"""
    for k, frame in enumerate(clip.frames):
        write_png(tmp_path / "data" / f"shot {k}.png", frame)
    return tmp_path / "data"


def names_of(folder: Path) -> dict[str, int]:
    """ns-process-data's name of every shot."""
    order = sorted(int(p.stem.split()[1]) for p in folder.iterdir())
    lexicographic = sorted(order, key=lambda k: f"shot {k}.png")
    return {f"frame_{n:05d}": k for n, k in enumerate(lexicographic, start=1)}


def test_images_keep_their_masks_through_renaming(clip, photos, model, tmp_path):
    own = exact(tmp_path / "own", clip, {f"shot {k}": k for k in range(FRAMES)})
    out = tmp_path / "out"
    shutil.copytree(model, out / "colmap")
    MotionImages(
        photos, out, motion_mask=True, motion_mask_method="none", motion_mask_extra=own, skip_colmap=True, num_downscales=1
    ).main()
    frames = read_json(out / "transforms.json")["frames"]
    assert len(frames) == FRAMES
    for name, k in names_of(photos).items():
        assert np.array_equal(read_rgb(out / "images" / f"{name}.png"), clip.frames[k])
        assert np.array_equal(read_grey(out / "masks" / f"{name}.png"), truth(clip, k))
    assert {f["mask_path"] for f in frames} == {f"masks/{name}.png" for name in names_of(photos)}
    assert all(Path(f["mask_path"]).stem == Path(f["file_path"]).stem for f in frames)
    entries = read_json(out / "motion" / "frames.json")["images"]
    assert [e["source"] for e in entries] == [f"shot {k}.png" for k in range(FRAMES)]


def test_without_the_flag_the_dataset_is_nerfstudios(photos, model, tmp_path):
    results = []
    for kind, out in ((stock.ImagesToNerfstudioDataset, tmp_path / "stock"), (MotionImages, tmp_path / "ours")):
        shutil.copytree(model, out / "colmap")
        kind(photos, out, skip_colmap=True, num_downscales=1, percent_radius_crop=0.8).main()
        results.append({p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()})
    assert results[0] == results[1]
    assert "masks/mask.png" in results[0]


def test_all_of_nerfstudios_subcommands_are_there():
    def names(union) -> list[str]:
        return sorted(member.__metadata__[0].name for member in union.__args__)

    assert names(process_data._commands()) == names(stock.Commands)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"camera_type": "equirectangular"}, "equirectangular"),
        ({"sfm_tool": "hloc"}, "hloc takes no masks"),
        ({"feature_type": "superpoint"}, "hloc takes no masks"),
        ({"random_seed": 3}, "--random-seed"),
        ({"skip_image_processing": True}, "--skip-image-processing"),
        ({"crop_factor": (0.6, 0.5, 0.0, 0.0)}, "--crop-factor"),
        ({"motion_mask_sensitivity": 2.0}, "--motion-mask-sensitivity 2.0"),
        ({"motion_mask_extra": Path("no such folder")}, "--motion-mask-extra"),
        ({"sfm_tool": "colmap", "colmap_cmd": "no-such-colmap"}, "no such program"),
        ({"sfm_tool": "pycolmap", "camera_type": "fisheye"}, "needs the COLMAP binary"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(video, tmp_path, options, word):
    with pytest.raises(SegmotionError, match=word):
        MotionVideo(video, tmp_path / "out", motion_mask=True, **options)
    assert not (tmp_path / "out").exists()


def test_every_flag_reaches_the_setting_of_its_name(tmp_path):
    given = {
        "preset": "seganymo", "sensitivity": 0.7, "dilate": 2.0, "device": "cpu", "weights_dir": tmp_path,
        "tracker_source": tmp_path / "tapnet", "tracker_weights": tmp_path / "w.pt", "seed": 4,
    }  # fmt: skip
    options = MotionMaskOptions(**{f"motion_mask_{name}": value for name, value in given.items()})
    settings = options.mask_settings(target_frames=9)
    assert {name: getattr(settings, name) for name in given} == given and settings.target_frames == 9


def test_masks_of_the_user_are_not_replaced(photos, tmp_path):
    write_png(tmp_path / "out" / "masks" / "mine.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(SegmotionError, match="mine.png: not written by Segmotion"):
        MotionImages(photos, tmp_path / "out", motion_mask=True)
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["mine.png"]


def test_masks_of_another_size_leave_no_masks_behind(video, tmp_path, capsys):
    write_png(tmp_path / "own" / "frame_00002.png", np.zeros((10, 10), np.uint8))
    arguments = ["video", "--data", str(video), "--output-dir", str(tmp_path / "out"), "--num-frames-target", "3", "--skip-colmap"]
    arguments += ["--motion-mask", "--motion-mask-method", "none", "--motion-mask-extra", str(tmp_path / "own")]
    assert process_data.entrypoint(arguments) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "10×10 pixels, but frame_00002.png has 98×66" in said
    assert not (tmp_path / "out" / "masks").exists() and not list((tmp_path / "out").glob(".segmotion-*"))


def test_maps_of_a_depth_model_follow_their_images_and_are_cut_with_them(clip, tmp_path):
    from segmotion_colmap.clip_masks import ClipMasks
    from segmotion_nerfstudio import placing

    done, out = tmp_path / "processed", tmp_path / "dataset"
    write_processed(done, clip, None)
    out.mkdir()
    found = [f"frame_{k + 1:05d}.png" for k in range(FRAMES)]
    half = np.arange(HEIGHT // 2)[:, None] * 100.0 + np.arange(WIDTH // 2)[None]  # at half the size of the images
    (done / "motion" / "disparity").mkdir()
    for k, name in enumerate(found):
        np.save(done / "motion" / "disparity" / f"{Path(name).stem}.npy", half + k)
    names = [f"frame_train_{k + 1:05d}.png" for k in range(FRAMES)]
    clips = [placing.DatasetClip(names, found, ClipMasks(done, found, {"size": [WIDTH, HEIGHT]}))]
    placing.place(out, clips, extra=None, box=(10, 4, 90, 66))
    for k, name in enumerate(names):
        kept = np.load(out / "motion" / "disparity" / f"{Path(name).stem}.npy")
        np.testing.assert_allclose(kept, half[2:33, 5:45] + k, rtol=1e-3)
