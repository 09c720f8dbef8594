"""Look at cameras, points and moving tracks: in the browser, or as a picture.

    python examples/05_view_tracks.py OUT                    opens the viewer (Ctrl-C ends it)
    python examples/05_view_tracks.py OUT --picture a.png    renders without a browser

OUT is a folder made by `segmotion run` or `segmotion masks`.
"""

from __future__ import annotations

from pathlib import Path

import tyro

from segmotion_plugin.viewer.scene import load_scene
from segmotion_plugin.viewer.snapshot import write_snapshot


def main(out: Path, /, picture: Path | None = None, frame: int | None = None, port: int = 8080) -> None:
    """Look at a processed clip.

    Args:
        out: the folder.
        picture: render this PNG instead of opening the viewer.
        frame: time step of the picture, from 0; the middle of the clip when absent.
        port: where the viewer listens on 127.0.0.1.
    """
    scene = load_scene(out)
    for info in scene.objects:
        print(info.title)
    if scene.tracks is not None:
        # xyz is N×K×3 in the world of the reconstruction; `source` tells how the depth of each track was found.
        seen = scene.tracks.xyz[scene.tracks.visible]
        print(f"{len(scene.tracks)} moving tracks between {seen.min(axis=0).round(2)} and {seen.max(axis=0).round(2)}")
    if picture is not None:
        step = write_snapshot(scene, picture, frame)
        print(f"{picture}: {scene.names[step]}")
        return
    from segmotion_plugin.viewer.app import ViewerApp

    app = ViewerApp(scene, port=port)
    print(f"open {app.url}")
    try:
        app.run()
    except KeyboardInterrupt:
        app.stop()


if __name__ == "__main__":
    tyro.cli(main)
