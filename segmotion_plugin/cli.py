"""The command `segmotion`: finds the subcommand, loads only what it needs, and turns errors into one clear line."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata

from segmotion_plugin.errors import SegmotionError

# name -> (module:class, one line of help)
_COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("segmotion_plugin.commands:Run", "masks of what moves and the cameras of the rest, from a video or a folder of images"),
    "masks": ("segmotion_plugin.commands:Masks", "only the masks and tracks (a preview before the reconstruction)"),
    "reconstruct": ("segmotion_plugin.commands:Reconstruct", "only the reconstruction, of a folder that has masks"),
    "demo": ("segmotion_plugin.demo:Demo", "render a small world, run the main job on it, and measure the result"),
    "view": ("segmotion_plugin.viewer.command:View", "show cameras, points and moving tracks in the browser"),
    "evaluate": ("segmotion_plugin.evaluation.command:COMMANDS", "measure masks, tracks and cameras against the truth"),
    "train": ("segmotion_plugin.training.command:Train", "train the shipped motion weights anew, from simulation"),
    "doctor": ("segmotion_plugin.doctor:Doctor", "versions, presets that can run, weights and their licences"),
}
_GROUP = "segmotion.commands"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit status: 0 done, 2 for what the user can mend, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        return _dispatch(arguments)
    except KeyboardInterrupt:
        print("\nsegmotion: interrupted; the same command goes on from what is stored", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SegmotionError as error:
        if debug:
            traceback.print_exc()
        print(f"segmotion: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if debug:
            traceback.print_exc()
        where = f"{error.filename}: " if error.filename else ""
        print(f"segmotion: {where}{error.strerror or error} (--debug shows where)", file=sys.stderr)
        return 2


def _dispatch(arguments: list[str]) -> int:
    plugins = {point.name: point for point in metadata.entry_points(group=_GROUP)}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(sorted(plugins)))
        return 0
    if arguments[0] == "--version":
        from segmotion_plugin import __version__

        print(f"segmotion {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name in _COMMANDS:
        module, _, attribute = _COMMANDS[name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
    elif name in plugins:
        command = plugins[name].load()
    else:
        known = ", ".join([*_COMMANDS, *sorted(plugins)])
        raise SegmotionError(f"{name}: no such command.\nCommands: {known}.")
    import tyro

    from segmotion_plugin.memory import keep_freed_memory

    keep_freed_memory()
    return tyro.cli(command, prog=f"segmotion {name}", args=rest).main() or 0


def _usage(plugins: list[str]) -> str:
    lines = ["usage: segmotion COMMAND …   (segmotion COMMAND --help tells more; --debug shows tracebacks)", ""]
    lines += [f"  {name:<12} {text}" for name, (_, text) in _COMMANDS.items()]
    if plugins:
        lines += ["", "from installed integrations:"] + [f"  {name}" for name in plugins]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
