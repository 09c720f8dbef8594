"""The panel in nerfstudio's viewer: gathered by it, in its world, and quiet where there is nothing to show."""

from __future__ import annotations

import importlib
import os
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from support_viewer import FRAMES, processed

# A folder of tests has the same name, so that looking for a module would find that.
if list(metadata.distributions(name="nerfstudio")) or os.environ.get("SEGMOTION_REQUIRE_ALL") == "1":
    from support_panel import GradientPipeline, open_viewer
    from test_viewer_app import until

    from segmotion_plugin.tracks import load_tracks

    @pytest.fixture(scope="module")
    def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
        return processed(tmp_path_factory.mktemp("panel") / "out")

    def test_points_lie_on_the_scene_in_every_training_camera(out: Path) -> None:
        from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO

        pipeline = GradientPipeline(out)
        panel = pipeline.motion_panel
        assert panel is not None
        viewer = open_viewer(pipeline, out)
        try:
            drawing = panel.drawing
            assert drawing is not None and not drawing._cloud.visible
            outputs = pipeline.datamanager.train_dataparser_outputs
            tracks, _, _ = load_tracks(out / "motion" / "tracks.npz")
            assert len(outputs.image_filenames) > 5
            for index, path in enumerate(outputs.image_filenames):
                k = int(path.stem[-5:]) - 1
                camera = outputs.cameras
                c2w = camera.camera_to_worlds[index].double().numpy()
                local = (drawing.positions(k) / VISER_NERFSTUDIO_SCALE_RATIO - c2w[:, 3]) @ c2w[:, :3]
                assert (local[:, 2] < 0).all()  # OpenGL axes look along -z
                x = float(camera.fx[index]) * local[:, 0] / -local[:, 2] + float(camera.cx[index])
                y = float(camera.fy[index]) * local[:, 1] / local[:, 2] + float(camera.cy[index])
                lifted = panel._scene.tracks
                rows = np.concatenate([np.flatnonzero((lifted.object_id == n) & lifted.visible[:, k]) for n in (1, 2)])
                apart = np.linalg.norm(np.stack([x, y], axis=1) - tracks.xy[lifted.track_index[rows], k], axis=1)
                assert np.median(apart) <= 2.0 and np.quantile(apart, 0.95) <= 2.0
        finally:
            panel.detach()
            viewer.viser_server.stop()

    def test_the_viewer_gathers_timeline_and_switches(out: Path) -> None:
        pipeline = GradientPipeline(out)
        panel = pipeline.motion_panel
        assert panel is not None and not list(panel.parameters()) and not panel.state_dict()
        viewer = open_viewer(pipeline, out)
        try:
            names = [element.name for path, element in viewer.viewer_elements if path.startswith("Custom Elements/motion_panel")]
            assert names[:4] == ["Show tracks", "Frame", "Play", "Frames per second"]
            assert [n for n in names if n.startswith("object ")] == [o.title for o in panel._scene.objects]
            drawing = panel.drawing
            assert drawing is not None and drawing.frame == 0
            elements = {element.name: element for _, element in viewer.viewer_elements}
            elements["Frame"].value = 7
            assert until(lambda: drawing.frame == 7)
            first = next(name for name in names if name.startswith("object 1"))
            elements[first].value = False
            assert until(lambda: not drawing._groups[1].visible) and drawing._groups[2].visible
            elements["Tail (frames)"].value = 2
            assert until(lambda: drawing.tail == 2)
            elements["Static points"].value = True
            assert until(lambda: drawing._cloud.visible)
            elements["Frames per second"].value = 60
            elements["Play"].value = True
            assert until(lambda: drawing.frame == FRAMES - 1) and until(lambda: drawing.frame == 1)
            elements["Play"].value = False
            assert until(lambda: elements["Frame"].value == drawing.frame)
        finally:
            panel.detach()
            viewer.viser_server.stop()

    def test_a_dataset_without_tracks_has_no_panel_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = processed(tmp_path / "out")
        (folder / "motion" / "tracks_3d.npz").unlink()
        pipeline = GradientPipeline(folder)
        assert pipeline.motion_panel is None
        assert "No motion panel" in capsys.readouterr().out

else:

    def test_the_library_needs_no_nerfstudio() -> None:
        import segmotion_plugin.viewer.drawing

        assert segmotion_plugin.viewer.drawing.TrackDrawing
        with pytest.raises(ModuleNotFoundError, match="nerfstudio"):
            importlib.import_module("segmotion_nerfstudio.panel")
