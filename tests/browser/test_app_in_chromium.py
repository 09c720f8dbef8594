"""The standalone viewer, operated in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from browsing import Browser, browser, changed, count
from support_viewer import FRAMES, processed
from support_waiting import until

from segmotion_plugin.viewer.app import ViewerApp
from segmotion_plugin.viewer.scene import load_scene


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewerApp]:
    viewer = ViewerApp(load_scene(processed(tmp_path_factory.mktemp("app") / "out")), port=18700)
    yield viewer
    viewer.stop()


def test_timeline_switches_still_and_leaving(app: ViewerApp, tmp_path: Path) -> None:
    first = app.scene.objects[0].colour
    with browser(app.url, tmp_path) as tab:
        tab.control("Frame", "[role=slider]")
        assert until(lambda: len(app.server.get_clients()) == 1)
        tab.tick("Masks on the images")
        start = tab.shot_when("app_first", lambda p: count(p, first) > 100)
        tab.press("Frame", "End")
        assert until(lambda: app.frame == FRAMES - 1)
        second = app.scene.objects[1].colour
        # New nodes appear a moment after old ones went.
        later = tab.shot_when("app_last", lambda p: count(p, first) > 100 and count(p, second) > 40 and changed(p, start) > 0.01)
        tab.tick("object 1")
        off = tab.shot_when("app_object_off", lambda p: count(p, first) < 0.3 * count(later, first))
        assert count(off, second) > 0.5 * count(later, second)
        _still(tab, app)
    assert until(lambda: not app.server.get_clients())
    app.goto(2)
    assert app.frame == 2


def _still(tab: Browser, app: ViewerApp) -> None:
    with tab.page.expect_download() as download:
        tab.page.get_by_text("Save a still image").evaluate("e => e.closest('button').click()")
    target = tab.folder / "still.png"
    download.value.save_as(target)
    assert download.value.suggested_filename == "segmotion_frame_00012.png"
    picture = cv2.imread(str(target))
    assert picture.shape[0] == 720 and picture.std() > 5
