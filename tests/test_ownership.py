"""Nothing of the user's is lost: what may be replaced, what stops a command, and who works in a folder."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from segmotion_4d.import_command import import_results
from segmotion_colmap.images import write_image_masks
from support_user_files import leaf_commands, many

from segmotion_plugin import SegmotionError, pipeline
from segmotion_plugin.files import read_json, write_json, write_png
from segmotion_plugin.masks import read_grey
from segmotion_plugin.ownership import MANIFEST, Manifest, contains, staged_folder
from segmotion_plugin.settings import MaskSettings
from segmotion_plugin.workspace import Workspace

PLAIN = MaskSettings(masks="none", quiet=True)


def pictures(folder: Path, count: int = 3, shade: int = 0) -> Path:
    """A folder of small pictures with texture."""
    noise = np.random.default_rng(shade).integers(0, 255, (48, 64 + count, 3), np.uint8)
    for index in range(count):
        write_png(folder / f"frame_{index + 1:05d}.png", noise[:, index : index + 64])
    return folder


def content(*folders: Path) -> dict[Path, bytes]:
    """All files below some folders."""
    return {path: path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()}


def old_dataset(root: Path) -> Path:
    """A nerfstudio dataset as version 0.1.0 left it after add-masks: the user's images, and our mark."""
    pictures(root / "images")
    write_json(root / "transforms.json", {"frames": []})
    names = [path.name for path in sorted((root / "images").iterdir())]
    stages = {"images": {"key": "nerfstudio", "info": {"names": names}}}
    write_json(root / "motion" / "state.json", {"made_by": "segmotion", "stages": stages})
    write_json(root / "motion" / "report.json", {})
    return root


@pytest.mark.parametrize("source", ["images", "../other"])
def test_images_of_a_dataset_that_got_masks_are_not_ours(tmp_path: Path, source: str) -> None:
    dataset = old_dataset(tmp_path / "dataset")
    pictures(tmp_path / "other", 5, 1)
    before = content(tmp_path)
    with pytest.raises(SegmotionError, match="the input .* lies in it|not written by Segmotion"):
        pipeline.masks(dataset / source, dataset, PLAIN)
    assert content(tmp_path) == before


def test_the_images_of_our_own_folder_are_no_input_for_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    pipeline.masks(pictures(tmp_path / "in"), out, PLAIN)
    before = content(tmp_path)
    with pytest.raises(SegmotionError, match="give another folder for the results"):
        pipeline.masks(out / "images", out, PLAIN)
    with pytest.raises(SegmotionError, match="no images in this folder"):
        pipeline.masks(out, out, PLAIN)
    assert content(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("target", ["project/images", "project", "project/images/sub/..", "link"])
def test_masks_for_colmap_never_take_the_place_of_images(tmp_path: Path, target: str, overwrite: bool) -> None:
    images = pictures(tmp_path / "project" / "images")
    (images / "sub").mkdir()
    (tmp_path / "link").symlink_to(images)
    before = content(tmp_path / "project")
    with pytest.raises(SegmotionError):
        write_image_masks(images, tmp_path / target, PLAIN, overwrite=overwrite)
    with pytest.raises(SegmotionError):
        write_image_masks(images, tmp_path / "masks", PLAIN, overwrite=overwrite, motion=tmp_path / target)
    assert content(tmp_path / "project") == before and not (tmp_path / "masks").exists()


def test_a_folder_for_motion_keeps_what_the_user_has_in_it(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    with pytest.raises(SegmotionError, match="nothing was touched"):
        write_image_masks(images, tmp_path / "masks", PLAIN, overwrite=True, motion=tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "mine" and not (tmp_path / "masks").exists()


def test_masks_among_the_images_are_not_taken_for_images(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images")
    for _ in range(2):
        done = write_image_masks(images, images / "masks", PLAIN, overwrite=True)
        assert len(done.names) == 3
        assert sorted(p.name for p in (images / "masks").glob("*.png")) == [f"frame_{k:05d}.png.png" for k in (1, 2, 3)]


def test_a_file_put_into_our_folder_survives_and_stops_a_rerun(tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in"), tmp_path / "out"
    pipeline.masks(source, out, PLAIN)
    (out / "notes.txt").write_text("beside the results: no harm")
    (out / "images" / "cat.png").write_bytes(b"mine")
    before = content(out)
    with pytest.raises(SegmotionError, match="cat.png: not written by Segmotion"):
        pipeline.masks(source, out, MaskSettings(masks="none", quiet=True, every=2))
    assert content(out) == before
    (out / "images" / "cat.png").unlink()
    pipeline.masks(source, out, MaskSettings(masks="none", quiet=True, every=2))
    assert (out / "notes.txt").exists() and len(list((out / "images").iterdir())) == 2


def test_a_mask_painted_by_hand_is_the_users(tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in"), tmp_path / "out"
    pipeline.masks(source, out, PLAIN)
    write_png(out / "masks" / "frame_00002.png", np.zeros((48, 64), np.uint8))
    with pytest.raises(SegmotionError, match="frame_00002.png: changed since Segmotion wrote it"):
        pipeline.masks(source, out, PLAIN)
    assert (read_grey(out / "masks" / "frame_00002.png") == 0).all()
    pipeline.reconstruct(out, quiet=True)  # takes painted masks as they are, and leaves them the user's
    with pytest.raises(SegmotionError, match="changed since|not written by"):
        pipeline.masks(source, out, PLAIN)


def test_a_copy_of_our_folder_is_ours_too(tmp_path: Path) -> None:
    source, out, copy = pictures(tmp_path / "in"), tmp_path / "out", tmp_path / "copy"
    pipeline.masks(source, out, PLAIN)
    shutil.copytree(out, copy, copy_function=shutil.copyfile)  # other times
    pipeline.masks(source, copy, MaskSettings(masks="none", quiet=True, every=2))
    assert len(list((copy / "images").iterdir())) == 2


def test_what_belongs_to_other_masks_goes_when_masks_change(tmp_path: Path) -> None:
    out = tmp_path / "out"
    pipeline.masks(pictures(tmp_path / "a"), out, PLAIN)
    space = Workspace.open(out, write=True)
    derived = ["transforms.json", "sparse_pc.ply", "motion/tracks_3d.npz", "colmap/sparse/0/images.bin", "masks_2/frame_00001.png"]
    of_images = ["images_2/frame_00001.png", "colmap/database.db"]
    for name in derived + of_images:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"of the first clip")
    report = read_json(out / "motion" / "report.json")
    write_json(out / "motion" / "report.json", {**report, "reconstruction": {"status": "ok"}})
    space.listed()
    pipeline.masks(tmp_path / "a", out, PLAIN)  # nothing changes, so all stays
    assert all((out / name).is_file() for name in derived + of_images)
    assert read_json(out / "motion" / "report.json")["reconstruction"] == {"status": "ok"}
    own = tmp_path / "own"
    write_png(own / "mask.png", np.pad(np.zeros((20, 20), np.uint8), ((0, 28), (0, 44)), constant_values=255))
    pipeline.masks(tmp_path / "a", out, MaskSettings(masks="none", quiet=True, extra_masks=own))
    assert not any((out / name).exists() for name in derived) and all((out / name).is_file() for name in of_images)
    assert "reconstruction" not in read_json(out / "motion" / "report.json")
    pipeline.masks(pictures(tmp_path / "b", 4, 1), out, PLAIN)
    assert not any((out / name).exists() for name in of_images)


def test_features_of_a_killed_run_are_not_used_for_another_clip(walker_folder: Path, tmp_path: Path, monkeypatch) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    other.mkdir()
    for path in sorted(walker_folder.iterdir())[4:8]:
        shutil.copy(path, other)
    small = tmp_path / "small"
    small.mkdir()
    for path in sorted(walker_folder.iterdir())[:4]:
        shutil.copy(path, small)
    masks = tmp_path / "masks"
    for path in sorted(small.iterdir()):
        write_png(masks / path.name, np.full((180, 320), 255, np.uint8))
    settings = MaskSettings(quiet=True, work_size=160)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("segmotion_4d.import_command.write_masks", killed)
        with pytest.raises(KeyboardInterrupt):
            import_results(small, out, masks=masks, masks_format="colmap", settings=settings, reconstruct=False)
    keys = []
    finish = Workspace.finish

    def noted(self: Workspace, stage: str, key: str, info: dict | None = None) -> None:
        keys.append((stage, key))
        finish(self, stage, key, info)

    monkeypatch.setattr(Workspace, "finish", noted)
    renamed = {path.name: other_path for path, other_path in zip(sorted(small.iterdir()), sorted(other.iterdir()), strict=True)}
    for name, path in renamed.items():
        write_png(masks / path.name, read_grey(masks / name))
        (masks / name).unlink()
    import_results(other, out, masks=masks, masks_format="colmap", settings=settings, reconstruct=False)
    assert any(stage == "features" for stage, _ in keys)  # described anew


def test_two_commands_do_not_work_in_one_folder(tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in"), tmp_path / "out"
    pipeline.masks(source, out, PLAIN)
    before = content(out)
    with Workspace.create(out, source).locked():
        for command in (lambda: pipeline.masks(source, out, PLAIN), lambda: pipeline.reconstruct(out, quiet=True)):
            with pytest.raises(SegmotionError, match="another command is working in this folder"):
                command()
        assert {k: v for k, v in content(out).items() if k.name != "files.json"} == {
            k: v for k, v in before.items() if k.name != "files.json"
        }
    pipeline.masks(source, out, PLAIN)


@pytest.mark.parametrize("left", ["motion", "both", "empty state", "half a state", "temporary file"])
def test_a_run_killed_at_its_very_start_goes_on(tmp_path: Path, left: str) -> None:
    source, out = pictures(tmp_path / "in"), tmp_path / "out"
    if left in ("empty state", "half a state"):
        pipeline.masks(source, out, PLAIN)
        (out / "motion" / "state.json").write_text("" if left == "empty state" else '{"made_by": "segm')
    else:
        (out / "motion").mkdir(parents=True)
        if left == "both":
            (out / ".segmotion").mkdir()
        if left == "temporary file":
            (out / "motion" / ".tmp-abc.json").write_text("")
    pipeline.masks(source, out, PLAIN)
    assert len(list((out / "masks").iterdir())) == 3


def test_a_folder_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in"), tmp_path / "out"
    pipeline.masks(source, out, PLAIN)
    (out / "motion" / "files.json").unlink()
    state = read_json(out / "motion" / "state.json")
    state.pop("format")
    state["stages"].pop("masks")
    write_json(out / "motion" / "state.json", state)
    pipeline.masks(source, out, MaskSettings(masks="none", quiet=True, every=2))
    assert len(list((out / "images").iterdir())) == 2
    for wrong in ("2", None, []):
        write_json(out / "motion" / "state.json", state | {"format": wrong})
        with pytest.raises(SegmotionError, match="state.json: damaged"):
            pipeline.masks(source, out, PLAIN)
    state["format"] = 99
    write_json(out / "motion" / "state.json", state)
    with pytest.raises(SegmotionError, match="made by a newer Segmotion"):
        pipeline.masks(source, out, PLAIN)


def test_a_folder_in_which_a_run_was_cut_short_is_not_read(tmp_path: Path) -> None:
    out = tmp_path / "out"
    pipeline.masks(pictures(tmp_path / "in"), out, PLAIN)
    Workspace.open(out).forget("masks")
    with pytest.raises(SegmotionError, match="a run was cut short here"):
        pipeline.reconstruct(out, quiet=True)


def test_names_of_our_temporary_files_do_not_hide_those_of_the_user(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "target") as folder:
        (folder / "a.txt").write_text("ours")
    assert (tmp_path / "target" / MANIFEST).is_file()
    (tmp_path / "target" / "b.txt").write_text("mine")
    with pytest.raises(SegmotionError, match="b.txt: not written by Segmotion"), staged_folder(tmp_path / "target", overwrite=True):
        raise AssertionError("the block must not begin")
    (tmp_path / "target" / "b.txt").unlink()
    with pytest.raises(RuntimeError), staged_folder(tmp_path / "target", overwrite=True) as folder:
        raise RuntimeError("half-way")
    assert (tmp_path / "target" / "a.txt").read_text() == "ours" and sorted(p.name for p in tmp_path.iterdir()) == ["target"]


def test_files_that_await_their_place_are_ours_before_and_after_the_swap(tmp_path: Path) -> None:
    staging, root = tmp_path / "staging", tmp_path / "root"
    (root / "masks").mkdir(parents=True)
    (root / "masks" / "a.png").write_bytes(b"old")
    manifest = Manifest(root)
    manifest.finish("masks")
    (staging / "masks").mkdir(parents=True)
    (staging / "masks" / "a.png").write_bytes(b"new")
    manifest.swap_in(staging, "masks")
    assert Manifest(root).foreign("masks") is None and (root / "masks" / "a.png").read_bytes() == b"new"
    (root / "masks" / "a.png").write_bytes(b"painted")
    assert Manifest(root).foreign("masks") == root / "masks" / "a.png"


def test_containment_sees_through_links_and_other_spellings(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert contains(tmp_path / "link", tmp_path / "a" / "b") and contains(tmp_path / "a", tmp_path / "link" / "b" / "new")
    assert contains(tmp_path / "a", tmp_path / "a") and not contains(tmp_path / "a" / "b", tmp_path / "a")
    assert not contains(tmp_path / "a", tmp_path / "ab")


def test_a_database_with_a_live_log_stays_whole(tmp_path: Path) -> None:
    from segmotion_colmap.database import _put_back

    database, copy = tmp_path / "database.db", tmp_path / "copy.db"
    for path, value in ((database, "old"), (copy, "new")):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE t (v TEXT)")
            connection.executemany("INSERT INTO t VALUES (?)", [(value,)] * 500)
            connection.commit()
    with closing(sqlite3.connect(database)) as viewer:  # a program that has it open, with a log beside it
        viewer.execute("PRAGMA journal_mode=WAL")
        viewer.execute("UPDATE t SET v = 'newer'")
        viewer.commit()
        assert os.path.getsize(f"{database}-wal") > 0
        _put_back(copy, database)
        assert viewer.execute("SELECT DISTINCT v FROM t").fetchall() == [("new",)]
        assert viewer.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        viewer.execute("BEGIN IMMEDIATE")
        with pytest.raises(SegmotionError, match="another program is using it"):
            _put_back(copy, database)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_no_command_touches_files_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert many(tmp_path, range(40), monkeypatch) == 40


def test_a_folder_of_0_1_0_is_read_and_taken_over(tmp_path: Path) -> None:
    from segmotion_4d.export_command import export

    from segmotion_plugin.tracks import load_tracks
    from segmotion_plugin.viewer.scene import load_scene

    out = tmp_path / "out"
    shutil.copytree(Path(__file__).parent / "data" / "processed_0_1_0", out)
    export(out, "davis", tmp_path / "davis")
    assert len(list((tmp_path / "davis" / "JPEGImages").rglob("*.*"))) == 6
    assert len(load_scene(out)) == 6 and load_tracks(out / "motion" / "tracks.npz")[0].num_frames == 6
    pipeline.reconstruct(out, quiet=True)
    pictures(tmp_path / "in", 4)
    pipeline.masks(tmp_path / "in", out, PLAIN)
    assert len(list((out / "images").iterdir())) == 4 and not (out / "motion" / "tracks.npz").exists()


@pytest.mark.parametrize("what", ["davis", "invariance"])
def test_an_evaluation_does_not_write_over_a_report_of_the_user(tmp_path: Path, what: str) -> None:
    root = tmp_path / "root"
    pictures(root / "clip" / "images")
    for index in range(3):
        write_png(root / "clip" / "masks" / f"frame_{index + 1:05d}.png", np.zeros((48, 64), np.uint8))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "report.md").write_text("mine")
    before = content(tmp_path / "thesis")
    with pytest.raises(SegmotionError, match="holds other content and nothing of it was touched"):
        leaf_commands()[f"evaluate {what}"]((root,), out=tmp_path / "thesis", mask=PLAIN).main()
    assert content(tmp_path / "thesis") == before
