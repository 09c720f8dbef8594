"""A headless Chromium with software WebGL that operates viser's controls by their labels."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import ElementHandle, Page, sync_playwright

WIDTH, HEIGHT = 900, 500
PANEL = 345  # pixels that the controls take on the right
AXES = 70  # and the little axes at the bottom
_PATIENCE = 240.0  # seconds; software rendering on a busy machine is slow
_FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
# From a label to the control in the same row.
_FIND = """([text, kind]) => {
    const label = Array.from(document.querySelectorAll('label')).find(e => e.innerText.trim().startsWith(text));
    for (let e = label; e; e = e.parentElement) {
        const found = e.querySelector(kind);
        if (found) return found;
    }
    return null;
}"""


class Browser:
    """One tab.

    Args:
        page: Playwright's page.
        folder: where screenshots are kept.
    """

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self.folder = page, folder

    def control(self, label: str, kind: str) -> ElementHandle:
        """The control (a CSS selector of its kind) beside a label."""
        handle = self.page.wait_for_function(_FIND, arg=[label, kind])
        element = handle.as_element()
        assert element is not None
        return element

    def press(self, label: str, *keys: str) -> None:
        """Press keys on a slider."""
        slider = self.control(label, "[role=slider]")
        for key in keys:
            slider.press(key)

    def tick(self, label: str) -> None:
        """Click a checkbox."""
        self.control(label, "input[type=checkbox]").evaluate("e => e.click()")

    def shot(self, name: str) -> np.ndarray:
        """Screenshot of the part that controls and axes leave free, H×W×3 RGB; kept as `name`.png."""
        data = self.page.screenshot(timeout=1e3 * _PATIENCE)
        (self.folder / f"{name}.png").write_bytes(data)
        kept = os.environ.get("SEGMOTION_SCREENSHOTS")
        if kept:
            Path(kept).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / f"{name}.png", Path(kept) / f"{name}.png")
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        return picture[: HEIGHT - AXES, : WIDTH - PANEL]

    def shot_when(self, name: str, ready: Callable[[np.ndarray], bool]) -> np.ndarray:
        """The first screenshot that satisfies a condition."""
        end = time.monotonic() + _PATIENCE
        while True:
            picture = self.shot(name)
            if ready(picture):
                return picture
            if time.monotonic() > end:
                raise AssertionError(f"{self.folder / name}.png never became what it must be")
            time.sleep(0.3)


@contextlib.contextmanager
def browser(url: str, folder: Path) -> Iterator[Browser]:
    """Open a page in a fresh Chromium."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=_FLAGS)
        page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(1e3 * _PATIENCE)
        page.goto(url)
        page.add_style_tag(content=".mantine-Notifications-root { display: none }")
        try:
            yield Browser(page, folder)
        finally:
            chromium.close()


def count(picture: np.ndarray, rgb: tuple[int, int, int], tolerance: int = 60) -> int:
    """Pixels of about a colour."""
    return int((np.abs(picture.astype(int) - rgb).max(axis=2) < tolerance).sum())


def leftmost(picture: np.ndarray, rgb: tuple[int, int, int], tolerance: int = 60) -> int:
    """First column that holds about a colour; the width where none does."""
    columns = (np.abs(picture.astype(int) - rgb).max(axis=2) < tolerance).any(axis=0)
    return int(columns.argmax()) if columns.any() else picture.shape[1]


def changed(picture: np.ndarray, other: np.ndarray) -> float:
    """Share of the pixels that differ visibly."""
    return float((np.abs(picture.astype(int) - other).max(axis=2) > 30).mean())
