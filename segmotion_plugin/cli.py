"""The command `segmotion`: finds the subcommand, loads only what it needs, and turns errors into one clear line."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
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
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit status: 0 done, 1 a fault of ours, 2 what the user can mend, 130 interrupted.

    From the shell (without `argv`) the work is done in a child process, so that a library which crashes on damaged input takes
    that one down and not the words about it.
    """
    if argv is None and hasattr(os, "fork"):
        return contained(lambda: run(sys.argv[1:]))
    return run(list(sys.argv[1:] if argv is None else argv))


def contained(work: Callable[[], int]) -> int:
    """Do some work in a forked child and return its exit status; a child that is ended by a signal is told of in one line."""
    asked = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, asked)  # until both know what to do with them
    child = os.fork()  # before anything heavy is imported, so it costs milliseconds and no thread is there to be lost
    if child == 0:
        status = 1
        try:
            # A group of its own, so that Ctrl-C reaches it once, through us; and it must not outlive us.
            os.setpgid(0, 0)
            _die_with_parent()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, asked)
            status = work()
        except SystemExit as stop:  # of the parser of arguments, which has said why
            status = stop.code if isinstance(stop.code, int) else 1 if stop.code else 0
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    for one in asked:
        signal.signal(one, lambda number, _: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, asked)
    _, ended = os.waitpid(child, 0)
    if os.WIFEXITED(ended):
        return os.WEXITSTATUS(ended)
    number = os.WTERMSIG(ended)
    if number in (signal.SIGINT, signal.SIGTERM):
        print("\nsegmotion: interrupted; the same command goes on from what is stored", file=sys.stderr)
        return 130
    why = (
        "most likely the memory did not suffice; --target-frames and --work-size take less"
        if number == signal.SIGKILL
        else "a library crashed, most often on a damaged file; leave out files that other programs cannot read either"
    )
    print(f"segmotion: the work was ended by signal {number} ({signal.strsignal(number)}): {why}", file=sys.stderr)
    return 2


def _die_with_parent() -> None:
    """Have the kernel end this process when its parent is killed, where it can (Linux's prctl); the lock on OUT goes with it."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run(arguments: list[str]) -> int:
    """Run one command in this process; see `main`."""
    plain = [a for a in arguments if a != "--debug"]
    return guarded(lambda: _dispatch(plain), plain, debug="--debug" in arguments)


def guarded(work: Callable[[], int], arguments: list[str], debug: bool = False) -> int:
    """Do some work and turn every error into one line and an exit status; a fault of ours leaves a report to send.

    Args:
        work: returns the exit status.
        arguments: of the command, for the report.
        debug: print tracebacks as well.
    """
    try:
        return work()
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
    except MemoryError:
        print("segmotion: the memory does not suffice; --target-frames and --work-size take less", file=sys.stderr)
        return 2
    except Exception as error:
        if debug:
            traceback.print_exc()
        report = _fault_report(arguments)
        print(f"segmotion: a fault of ours ({type(error).__name__}: {error}); please report it with {report}", file=sys.stderr)
        return 1


def _fault_report(arguments: list[str]) -> str:
    """Write what is known about the exception that is being handled into a file of its own; its path."""
    from segmotion_plugin import __version__

    told = f"segmotion {__version__}, Python {sys.version}, {sys.platform}\narguments: {arguments}\n\n{traceback.format_exc()}"
    handle, path = tempfile.mkstemp(prefix="segmotion-fault-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
        file.write(told)
    return path


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
