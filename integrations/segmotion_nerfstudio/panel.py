"""Moving tracks in nerfstudio's own viewer: a panel of public viewer elements that hangs on the pipeline."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from nerfstudio.viewer.viewer_elements import ViewerCheckbox, ViewerControl, ViewerElement, ViewerSlider
from torch import nn

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.viewer.drawing import TrackDrawing
from segmotion_plugin.viewer.geometry import Similarity
from segmotion_plugin.viewer.scene import Scene, load_scene

# New nodes per batch: a step of the timeline does not wait for long tails, see `TrackDrawing.set_frame`.
_MOST_NEW = 10


def similarity_of(transform: np.ndarray, scale: float) -> Similarity:
    """From COLMAP's world to the one that nerfstudio's viewer shows.

    Args:
        transform: 3×4 `dataparser_transform`; nerfstudio folds `applied_transform` of transforms.json into it.
        scale: `dataparser_scale`.
    """
    factor = float(scale) * VISER_NERFSTUDIO_SCALE_RATIO
    return Similarity(factor, np.asarray(transform[:3, :3], np.float64), factor * np.asarray(transform[:3, 3], np.float64))


def motion_panel(pipeline: Any) -> MotionPanel | None:
    """The panel for a pipeline's dataset; None, with a word about why, where there are no cameras or tracks to show."""
    outputs = pipeline.datamanager.train_dataparser_outputs
    data = Path(pipeline.datamanager.get_datapath())
    root = data if data.is_dir() else data.parent
    try:
        scene = load_scene(root)
        if scene.cameras is None or scene.tracks is None:
            raise SegmotionError(" ".join(scene.notes) or "there are no moving tracks")
    except (SegmotionError, OSError) as error:
        CONSOLE.print(f"[yellow]No motion panel in the viewer: {error}[/yellow]")
        return None
    return MotionPanel(scene, similarity_of(outputs.dataparser_transform.numpy(), outputs.dataparser_scale))


class MotionPanel(nn.Module):
    """Timeline, tails and switches for the moving objects of a dataset.

    An attribute of the pipeline whose name does not begin with `_`: nerfstudio's viewer gathers elements and controls from there, and
    names the folder after the attribute. It has no parameters.

    Args:
        scene: what to draw.
        similarity: from the scene's world to the viewer's.
    """

    def __init__(self, scene: Scene, similarity: Similarity) -> None:
        super().__init__()
        self._scene, self._similarity = scene, similarity
        self._drawing: TrackDrawing | None = None
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._player: threading.Thread | None = None
        last = max(len(scene) - 1, 1)
        self._frame = ViewerSlider("Frame", 0, 0, last, 1, cb_hook=lambda e: self.goto(int(e.value)), hint="Image of the clip")
        self._playing = ViewerCheckbox("Play", False, cb_hook=lambda e: None if e.value else self._pause())
        self._speed = ViewerSlider("Frames per second", int(np.clip(round(scene.fps), 1, 60)), 1, 60, 1)
        tail = min(16, last)
        elements: list[ViewerElement] = [
            ViewerCheckbox("Show tracks", True, cb_hook=self._switch(lambda d, v: d.show(v))),
            self._frame,
            self._playing,
            self._speed,
            ViewerSlider("Tail (frames)", tail, 0, last, 1, cb_hook=self._switch(lambda d, v: d.set_tail(int(v), _MOST_NEW))),
            ViewerSlider("Line width", 2.0, 0.5, 8.0, 0.5, cb_hook=self._switch(lambda d, v: d.set_line_width(v))),
            ViewerCheckbox("Current image", True, cb_hook=self._switch(lambda d, v: d.show_current(v))),
            ViewerCheckbox("Masks on the image", True, cb_hook=self._switch(lambda d, v: d.show_masks(v))),
            ViewerCheckbox("Static points", False, cb_hook=self._switch(lambda d, v: d.show_points(v))),
        ]
        for info in scene.objects:
            elements.append(ViewerCheckbox(info.title, True, cb_hook=self._switch(lambda d, v, k=info.id: d.show_object(k, v))))
        # The viewer takes elements in the alphabetical order of the attributes' names.
        for number, element in enumerate(elements):
            setattr(self, f"element_{number:03d}", element)
        self.control = _Attachment(self)

    @property
    def drawing(self) -> TrackDrawing | None:
        """The nodes in the viewer's scene; None before a viewer has taken the panel in."""
        return self._drawing

    @property
    def similarity(self) -> Similarity:
        """From COLMAP's world to the viewer's."""
        return self._similarity

    def goto(self, frame: int) -> None:
        """Show a time step."""
        with self._lock:
            if self._drawing is not None and frame != self._drawing.frame:
                self._drawing.set_frame(frame, most_new=_MOST_NEW)

    def attach(self, viewer: Viewer) -> None:
        """Draw into a viewer's scene; the viewer calls this once, through our control."""
        server = viewer.viser_server
        with self._lock:
            atomic = getattr(server, "atomic", contextlib.nullcontext)
            self._drawing = TrackDrawing(server.scene, self._scene, similarity=self._similarity, atomic=atomic, frustums=False)
            self._drawing.show_points(False)
            self._drawing.set_frame(0)
        self._player = threading.Thread(target=self._play, daemon=True)
        self._player.start()

    def detach(self) -> None:
        """Stop playing for good."""
        self._stopped.set()
        if self._player is not None:
            self._player.join(timeout=5)

    def _switch(self, call: Callable[..., None]) -> Callable[[Any], None]:
        """Hook of an element that hands its value to the drawing."""

        def hook(element: Any) -> None:
            with self._lock:
                if self._drawing is not None:
                    call(self._drawing, element.value)

        return hook

    def _pause(self) -> None:
        if self._drawing is not None:
            self._frame.value = self._drawing.frame

    def _play(self) -> None:
        """Step on while playing. The slider follows at the pause only: each of its changes makes nerfstudio render anew."""
        while not self._stopped.wait(1.0 / float(self._speed.value) if self._playing.value else 0.1):
            if self._playing.value and self._drawing is not None:
                self.goto((self._drawing.frame + 1) % len(self._scene))
            while not self._fill_tails() and not self._stopped.is_set():
                time.sleep(0.001)  # lets the controls have the lock

    def _fill_tails(self) -> bool:
        """Send pieces of the tails that a step left out; True when nothing more is lacking."""
        with self._lock:
            return self._drawing is None or self._drawing.fill(_MOST_NEW)


class _Attachment(ViewerControl):
    """How the panel learns of the viewer."""

    def __init__(self, panel: MotionPanel) -> None:
        self._panel = panel

    def _setup(self, viewer: Viewer) -> None:
        super()._setup(viewer)
        self._panel.attach(viewer)
