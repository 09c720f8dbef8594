"""Masks and tracks made elsewhere become a processed folder, whatever their polarity and layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from segmotion_4d import export, import_results
from segmotion_4d.formats.davis import write_palette_png
from segmotion_4d.import_command import Import
from support_4d import FRAMES, HEIGHT, WIDTH, read_png, textured
from support_processed import write_processed

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import write_png
from segmotion_plugin.settings import MaskSettings
from segmotion_plugin.tracks import load_tracks

SETTINGS = MaskSettings(dilate=0, quiet=True, motion="geometric")


@pytest.fixture(scope="module")
def shot(tmp_path_factory) -> Path:
    """The clip as a folder of images shot.1001.png …"""
    folder = tmp_path_factory.mktemp("source") / "shot"
    for t, frame in enumerate(textured()[0].frames):
        write_png(folder / f"shot.{1001 + t}.png", frame)
    return folder


@pytest.fixture(scope="module")
def tracks(tmp_path_factory) -> Path:
    """Its exact tracks as TAPIP3D stores them."""
    folder = tmp_path_factory.mktemp("tracks")
    write_processed(folder / "clip", *textured(), depth=True, tracks_3d=True)
    export(folder / "clip", "tapip3d", folder / "export")
    return folder / "export" / "clip.npz"


def write_masks(folder: Path, kind: str) -> str:
    """Write the true masks in one of the forms they come in; gives the name of the format."""
    folder.mkdir()
    for t, labels in enumerate(textured()[0].labels):
        stem, keep = f"shot.{1001 + t}", np.where(labels > 0, 0, 255).astype(np.uint8)
        if kind == "colmap":
            write_png(folder / f"{stem}.png.png", keep)
        elif kind == "nerfstudio":
            write_png(folder / f"{stem}.png", keep)
        elif kind == "dynamic":
            write_png(folder / f"{stem}.png", 255 - keep)
        elif kind == "dynamic-jpeg":
            Image.fromarray(255 - keep).resize((4 * WIDTH, 4 * HEIGHT), Image.Resampling.NEAREST).save(
                folder / f"{stem}.jpg", quality=70
            )
        elif kind == "davis":
            write_palette_png(folder / f"{t:05d}.png", labels)
        elif kind == "davis-2016":
            write_png(folder / f"{t:05d}.png", 255 - keep)
        elif kind == "davis-colours":
            write_png(folder / f"{t:05d}.png", np.array([[0, 0, 0], [250, 3, 9], [7, 200, 1]], np.uint8)[labels])
    return kind.split("-")[0]


@pytest.mark.parametrize("kind", ["colmap", "nerfstudio", "dynamic", "dynamic-jpeg", "davis", "davis-2016", "davis-colours"])
def test_masks_of_every_form_mean_the_same(shot, tracks, tmp_path, kind):
    clip, _ = textured()
    form = write_masks(tmp_path / "masks", kind)
    out = tmp_path / "out"
    report = import_results(
        shot, out, masks=tmp_path / "masks", masks_format=form, tracks=tracks, settings=SETTINGS, reconstruct=False
    )
    several = kind in ("davis", "davis-colours")
    for t in range(FRAMES):
        objects = read_png(out / "motion" / "objects" / f"frame_{t + 1:05d}.png")
        if several:
            assert len(np.unique(objects)) == len(np.unique(clip.labels[t]))
        np.testing.assert_array_equal(objects > 0, clip.labels[t] > 0)
        np.testing.assert_array_equal(read_png(out / "masks" / f"frame_{t + 1:05d}.png") == 0, clip.labels[t] > 0)
        assert (out / "colmap_masks" / f"frame_{t + 1:05d}.png.png").is_file()
    assert (out / "motion" / "overview.png").is_file()
    assert report["masks"]["moving_share"] == pytest.approx((clip.labels > 0).mean(), abs=1e-4)
    assert any("in order" in w for w in report["warnings"]) == kind.startswith("davis")
    assert any("resized" in w for w in report["warnings"]) == (kind == "dynamic-jpeg")
    # The folder is one like any other: exports take it.
    export(out, "mattes", tmp_path / "mattes")
    assert (tmp_path / "mattes" / "all" / "shot.1001.png").is_file()


def test_tracks_of_tapip3d_land_on_their_pixels_and_on_their_objects(shot, tracks, tmp_path):
    _, truth = textured()
    form = write_masks(tmp_path / "masks", "davis")
    import_results(
        shot, tmp_path / "out", masks=tmp_path / "masks", masks_format=form, tracks=tracks, settings=SETTINGS, reconstruct=False
    )
    found, motion, size = load_tracks(tmp_path / "out" / "motion" / "tracks.npz")
    assert size == (WIDTH, HEIGHT)
    ids = np.flatnonzero(truth.visible.any(axis=1))
    assert len(found) == len(ids)
    np.testing.assert_array_equal(found.visible, truth.visible[ids])
    assert np.abs(found.xy - truth.xy[ids])[truth.visible[ids]].max() < 0.1
    assert (motion.object_id == truth.object_id[ids]).mean() > 0.97


def test_masks_alone_get_tracks_that_follow_them(shot, tmp_path):
    form = write_masks(tmp_path / "masks", "davis")
    out = tmp_path / "out"
    report = import_results(shot, out, masks=tmp_path / "masks", masks_format=form, settings=SETTINGS, reconstruct=False)
    tracks, motion, _ = load_tracks(out / "motion" / "tracks.npz")
    assert report["masks"]["moving_tracks"] == (motion.object_id > 0).sum() > 20
    clip, _ = textured()
    for t in (0, FRAMES - 1):
        ids, xy = tracks.observations_at(t)
        labels = clip.labels[t][xy[:, 1].astype(int), xy[:, 0].astype(int)]
        assert ((labels > 0) == (motion.object_id[ids] > 0)).mean() > 0.9


def test_tracks_alone_get_masks(shot, tracks, tmp_path):
    out = tmp_path / "out"
    report = import_results(shot, out, tracks=tracks, settings=SETTINGS, reconstruct=False)
    found, motion, _ = load_tracks(out / "motion" / "tracks.npz")
    assert report["masks"]["tracks"] == len(found) == len(motion.probability)
    keep = read_png(out / "masks" / "frame_00001.png")
    assert keep.shape == (HEIGHT, WIDTH) and set(np.unique(keep)) <= {0, 255}


def test_the_wrong_polarity_is_suspected(shot, tracks, tmp_path):
    write_masks(tmp_path / "masks", "dynamic")
    report = import_results(
        shot,
        tmp_path / "out",
        masks=tmp_path / "masks",
        masks_format="nerfstudio",
        tracks=tracks,
        settings=SETTINGS,
        reconstruct=False,
    )
    assert any("polarity" in warning for warning in report["warnings"])


def test_the_command_goes_on_to_the_reconstruction(shot, tracks, tmp_path):
    import json

    import tyro

    form = write_masks(tmp_path / "masks", "colmap")
    arguments = [str(shot), str(tmp_path / "out"), "--masks", str(tmp_path / "masks"), "--masks-format", form, "--tracks", str(tracks)]
    assert tyro.cli(Import, args=[*arguments, "--dilate", "0", "--quiet"]).main() == 0
    report = json.loads((tmp_path / "out" / "motion" / "report.json").read_text())
    assert report["imported"]["masks_format"] == "colmap"
    assert "status" in report["reconstruction"]


def spoil_size(folder: Path, tracks: Path) -> None:
    write_png(folder / "shot.1004.png", np.zeros((HEIGHT, 2 * WIDTH), np.uint8))


def spoil_missing(folder: Path, tracks: Path) -> None:
    (folder / "shot.1004.png").unlink()


def spoil_names(folder: Path, tracks: Path) -> None:
    for path in sorted(folder.iterdir())[1:]:
        path.rename(folder / f"x{path.name}")
    next(folder.glob("shot.1001.png")).unlink()


def spoil_picture(folder: Path, tracks: Path) -> None:
    (folder / "shot.1004.png").write_bytes(b"not a picture")


def spoil_tracks_length(folder: Path, tracks: Path) -> None:
    with np.load(tracks) as data:
        np.savez(tracks, **{key: data[key][: FRAMES - 2] for key in ("coords", "extrinsics", "intrinsics", "visibs", "video")})


def spoil_tracks_keys(folder: Path, tracks: Path) -> None:
    np.savez(tracks, tracks=np.zeros(3))


def spoil_tracks_file(folder: Path, tracks: Path) -> None:
    tracks.write_bytes(tracks.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_size, r"shot\.1004\.png: 192×64 pixels, but the images have 96×64"),
        (spoil_missing, r"no mask for shot\.1004\.png"),
        (spoil_names, "9 masks, and none is named after one of the 10 frames"),
        (spoil_picture, r"shot\.1004\.png: not a readable image"),
        (spoil_tracks_length, "tracks over 8 frames, but the clip has 10"),
        (spoil_tracks_keys, "lacks coords, extrinsics, intrinsics, visibs"),
        (spoil_tracks_file, "not a readable track file"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_left(shot, tracks, tmp_path, spoil, words):
    form = write_masks(tmp_path / "masks", "dynamic")
    own = tmp_path / "tracks.npz"
    own.write_bytes(tracks.read_bytes())
    spoil(tmp_path / "masks", own)
    with pytest.raises(SegmotionError, match=words):
        import_results(
            shot, tmp_path / "out", masks=tmp_path / "masks", masks_format=form, tracks=own, settings=SETTINGS, reconstruct=False
        )
    assert not (tmp_path / "out").exists()


def test_more_objects_than_ids_are_refused(shot, tracks, tmp_path):
    (tmp_path / "masks").mkdir()
    for t in range(FRAMES):
        Image.fromarray(np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16) // 4).save(tmp_path / "masks" / f"{t}.png")
    with pytest.raises(SegmotionError, match="1535 objects; 253 is the most"):
        import_results(
            shot, tmp_path / "out", masks=tmp_path / "masks", masks_format="davis", tracks=tracks, settings=SETTINGS, reconstruct=False
        )


def test_the_meaning_of_masks_must_be_told(shot, tmp_path):
    with pytest.raises(SegmotionError, match="nothing to import"):
        import_results(shot, tmp_path / "out")
    with pytest.raises(SegmotionError, match="--masks-format"):
        import_results(shot, tmp_path / "out", masks=shot)
    assert not (tmp_path / "out").exists()
