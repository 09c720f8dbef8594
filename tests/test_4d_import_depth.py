"""Depth made elsewhere is aligned to the model and serves the exports that need depth."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from segmotion_4d import export, import_results
from support_4d import FRAMES, HEIGHT, WIDTH, textured
from support_processed import write_processed

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import write_png
from segmotion_plugin.reconstruct.lifting import lift_folder
from segmotion_plugin.settings import MaskSettings

SETTINGS = MaskSettings(dilate=0, quiet=True, motion="geometric")


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """Folder with the shot, its masks, its tracks as TAPIP3D stores them, and the true model."""
    folder = tmp_path_factory.mktemp("given")
    clip, tracks = textured()
    for t, frame in enumerate(clip.frames):
        write_png(folder / "shot" / f"shot.{1001 + t}.png", frame)
        write_png(folder / "masks" / f"shot.{1001 + t}.png", np.where(clip.labels[t] > 0, 255, 0).astype(np.uint8))
    write_processed(folder / "clip", clip, tracks, depth=True, tracks_3d=True)
    export(folder / "clip", "tapip3d", folder / "tapip3d")
    export(folder / "clip", "monst3r", folder / "monst3r")
    return folder


def write_depth(folder: Path, format: str, kind: str) -> None:
    """The true depth in other units and at another size, with holes of every sort."""
    rng = np.random.default_rng(0)
    maps = []
    for depth in textured()[0].depth:
        small = cv2.resize(
            np.where(np.isfinite(depth), depth, 0).astype(np.float32), (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_NEAREST
        )
        small *= rng.uniform(2, 5)
        small[:3] = 0
        maps.append(small)
    folder.mkdir()
    if format in ("npy", "png16"):
        for t, values in enumerate(maps):
            shown = np.divide(700, values, out=np.zeros_like(values), where=values > 0) if kind == "disparity" else values
            if format == "npy":
                np.save(folder / f"shot.{1001 + t}.npy", np.where(shown > 0, shown, (np.nan, np.inf, 0, -1)[t % 4]))
            else:
                write_png(folder / f"{t:05d}.png", np.clip(shown * (50 if kind == "disparity" else 300), 0, 65535).astype(np.uint16))
    elif format == "megasam":
        np.savez(folder / "shot_sgd_cvd_hr.npz", depths=np.clip(np.stack(maps), 1e-3, 1e2).astype(np.float16), cam_c2w=np.eye(4))
        np.savez(folder / "other.npz", unrelated=np.zeros(3))
    else:
        np.savez(folder / "results.npz", depth=np.stack(maps), conf=np.ones(3))


@pytest.mark.parametrize(
    ("format", "kind"),
    [
        ("npy", "depth"),
        ("npy", "disparity"),
        ("png16", "depth"),
        ("png16", "disparity"),
        ("megasam", "depth"),
        ("da3", "depth"),
        ("monst3r", "depth"),
    ],
)
def test_depth_of_every_form_is_brought_to_the_models_scale(given, tmp_path, format, kind):
    clip, _ = textured()
    source = given / "monst3r"
    if format != "monst3r":
        source = tmp_path / "depth"
        write_depth(source, format, kind)
    out = tmp_path / "out"
    import_results(
        given / "shot", out, masks=given / "masks", masks_format="dynamic", tracks=given / "tapip3d" / "clip.npz",
        depth=source, depth_format=format, depth_kind=kind, settings=SETTINGS, reconstruct=False,
    )  # fmt: skip
    shutil.copytree(given / "clip" / "colmap", out / "colmap", dirs_exist_ok=True)
    assert lift_folder(out)["status"] == "ok"
    for t in (0, 1, FRAMES - 1):
        found = np.load(out / "motion" / "depth" / f"frame_{t + 1:05d}.npy")
        found = cv2.resize(found, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
        known = np.isfinite(clip.depth[t]) & np.isfinite(found)
        assert known.mean() > 0.75
        assert np.median(np.abs(found - clip.depth[t])[known] / clip.depth[t][known]) < 0.03
    for name in ("tapip3d", "monst3r", "shape-of-motion"):
        export(out, name, tmp_path / name)


def test_depth_alone_leaves_masks_and_tracks_to_the_pipeline(given, tmp_path):
    write_depth(tmp_path / "depth", "npy", "depth")
    import_results(
        given / "shot", tmp_path / "out", depth=tmp_path / "depth", depth_format="npy", settings=SETTINGS, reconstruct=False
    )
    assert (tmp_path / "out" / "motion" / "tracks.npz").is_file()
    assert len(list((tmp_path / "out" / "motion" / "disparity").iterdir())) == FRAMES


def spoil_size(folder: Path) -> None:
    np.save(folder / "shot.1003.npy", np.ones((HEIGHT, HEIGHT)))


def spoil_values(folder: Path) -> None:
    np.save(folder / "shot.1003.npy", np.full((HEIGHT, WIDTH), np.nan))


def spoil_number(folder: Path) -> None:
    (folder / "shot.1003.npy").unlink()


def spoil_type(folder: Path) -> None:
    np.save(folder / "shot.1003.npy", np.zeros((HEIGHT, WIDTH), bool))


def spoil_file(folder: Path) -> None:
    (folder / "shot.1003.npy").write_bytes(b"nothing")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_size, r"shot\.1003\.npy: 64×64 has other proportions than the images \(96×64\)"),
        (spoil_values, r"shot\.1003\.npy: holds no known value"),
        (spoil_number, "9 depth maps, but there are 10 frames"),
        (spoil_type, "no depth map"),
        (spoil_file, r"shot\.1003\.npy: not a readable depth map"),
    ],
)
def test_depth_that_does_not_fit_is_named_and_nothing_is_left(given, tmp_path, spoil, words):
    write_depth(tmp_path / "depth", "npy", "depth")
    spoil(tmp_path / "depth")
    with pytest.raises(SegmotionError, match=words):
        import_results(
            given / "shot", tmp_path / "out", masks=given / "masks", masks_format="dynamic", tracks=given / "tapip3d" / "clip.npz",
            depth=tmp_path / "depth", depth_format="npy", settings=SETTINGS, reconstruct=False,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_forms_of_depth_are_told_apart(given, tmp_path):
    def attempt(words: str, path: Path, **options) -> None:
        with pytest.raises(SegmotionError, match=words):
            import_results(given / "shot", tmp_path / "out", depth=path, settings=SETTINGS, reconstruct=False, **options)

    write_png(tmp_path / "png8" / "0.png", np.ones((HEIGHT, WIDTH), np.uint8))
    attempt("belong together", given)
    attempt("no such file or folder", tmp_path / "none", depth_format="npy")
    attempt("no npy depth maps", tmp_path / "png8", depth_format="npy")
    attempt("holds 0 files that are an npz file with depths", tmp_path / "png8", depth_format="megasam")
    attempt("leave --depth-kind out", given / "monst3r", depth_format="monst3r", depth_kind="disparity")
    for t in range(1, FRAMES):
        write_png(tmp_path / "png8" / f"{t}.png", np.ones((HEIGHT, WIDTH), np.uint8))
    attempt("no 16-bit grey PNG", tmp_path / "png8", depth_format="png16")
