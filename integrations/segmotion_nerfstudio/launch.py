"""What the console scripts call: light, and clear where nerfstudio is absent or of another version."""

from __future__ import annotations

import sys

from segmotion_nerfstudio.shim import SUPPORTED, nerfstudio_version


def _extended() -> int:
    from segmotion_nerfstudio.process_data import entrypoint

    return entrypoint()


def process_data() -> int:
    """`ns-process-data` and `ns-process-data-motion`."""
    version = nerfstudio_version()
    if version is None:
        print("nerfstudio is not installed in this Python environment; pip install nerfstudio==1.1.5", file=sys.stderr)
        return 2
    if version.split("+")[0] == SUPPORTED:
        from segmotion_plugin.cli import guarded

        return guarded(_extended, sys.argv[1:])
    word = f"Segmotion extends ns-process-data of nerfstudio {SUPPORTED}; here is {version}"
    if any(argument.replace("_", "-").startswith("--motion-mask") for argument in sys.argv[1:]):
        advice = "Make the dataset without --motion-mask, then run 'segmotion nerfstudio add-masks DATASET --rerun-sfm'."
        print(f"{word}. {advice}", file=sys.stderr)
        return 2
    print(f"{word}, which runs unchanged.", file=sys.stderr)
    from nerfstudio.scripts.process_data import entrypoint as stock

    stock()
    return 0
