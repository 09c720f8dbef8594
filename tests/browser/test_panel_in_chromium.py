"""The panel in nerfstudio's real viewer, operated in a browser."""

from __future__ import annotations

from pathlib import Path

from browsing import browser, count, leftmost
from support_panel import GradientPipeline, open_viewer
from support_viewer import FRAMES, processed
from support_waiting import until


def test_timeline_and_switches_in_nerfstudios_viewer(tmp_path: Path) -> None:
    out = processed(tmp_path / "out")
    pipeline = GradientPipeline(out)
    panel = pipeline.motion_panel
    assert panel is not None
    viewer = open_viewer(pipeline, out, 18800)
    try:
        drawing = panel.drawing
        assert drawing is not None
        first = panel._scene.objects[0].colour
        with browser(f"http://127.0.0.1:{viewer.viser_server.get_port()}", tmp_path) as tab:
            tab.control("Show tracks", "input[type=checkbox]")
            assert until(lambda: len(viewer.viser_server.get_clients()) == 1)
            tab.tick("Current image")
            viewer.set_camera_visibility(False)  # nerfstudio's own pictures stand in the way of a view from a training camera
            client = next(iter(viewer.viser_server.get_clients().values()))
            wxyz, position = drawing.camera_pose(0)
            with client.atomic():
                client.camera.wxyz, client.camera.position = wxyz, position
            start = tab.shot_when("panel_first", lambda p: count(p, first) > 100)
            tab.press("Frame", "End")
            assert until(lambda: drawing.frame == FRAMES - 1)
            # The car has driven to the left; the rendered background changes by itself.
            later = tab.shot_when("panel_last", lambda p: count(p, first) > 100 and leftmost(p, first) < leftmost(start, first) - 30)
            tab.tick("object 1")
            assert until(lambda: not drawing._groups[1].visible)
            tab.shot_when("panel_object_off", lambda p: count(p, first) < 0.3 * count(later, first))
    finally:
        panel.detach()
        viewer.viser_server.stop()
