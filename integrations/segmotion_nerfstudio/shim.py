"""`ns-process-data` itself with `--motion-mask`: a change of nerfstudio's console script that undoes itself byte for byte.

The script keeps working when this package is removed: it then calls nerfstudio's own command. Its original content is stored in its
last line, so that nothing else is left behind, and removing nerfstudio removes it like any script.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import metadata
from pathlib import Path

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import atomic_path

SUPPORTED = "1.1.5"
"""Version of nerfstudio whose command is extended."""

_SCRIPT = "ns-process-data"
_IMPORT = b"from nerfstudio.scripts.process_data import entrypoint\n"
_MARK = b"# segmotion-original sha256="
_REPLACEMENT = b"""\
try:  # 'segmotion nerfstudio disable' restores this script
    from segmotion_nerfstudio.launch import process_data as entrypoint
except ImportError:
    from nerfstudio.scripts.process_data import entrypoint
"""


def nerfstudio_version() -> str | None:
    """Version of the installed nerfstudio; None without one."""
    try:
        return metadata.version("nerfstudio")
    except metadata.PackageNotFoundError:
        return None


def console_script() -> Path:
    """Where the installed nerfstudio has its `ns-process-data`.

    Raises:
        SegmotionError: there is no nerfstudio here, or it has no such script.
    """
    try:
        distribution = metadata.distribution("nerfstudio")
    except metadata.PackageNotFoundError:
        raise SegmotionError("nerfstudio is not installed in this Python environment; pip install nerfstudio==1.1.5") from None
    for file in distribution.files or []:
        if file.name in (_SCRIPT, f"{_SCRIPT}.exe"):
            return Path(str(distribution.locate_file(file))).resolve()
    raise SegmotionError(f"nerfstudio {distribution.version} brings no {_SCRIPT} here; ns-process-data-motion does the same")


def original(script: Path) -> bytes | None:
    """The original content of an extended script; None for one that is not extended.

    Raises:
        SegmotionError: the stored original is damaged.
    """
    content = _read(script)
    head, mark, tail = content.rpartition(_MARK)
    if not mark:
        return None
    digest, _, data = tail.strip().partition(b" ")
    try:
        stored = base64.b64decode(data, validate=True)
    except ValueError:
        stored = b""
    if hashlib.sha256(stored).hexdigest().encode() != digest:
        raise SegmotionError(
            f"{script}: the stored original is damaged; pip install --force-reinstall --no-deps nerfstudio=={SUPPORTED}"
        )
    return stored


def enable(script: Path) -> bool:
    """Let the console script know `--motion-mask`. Returns False when it does already.

    Raises:
        SegmotionError: it is not the script that pip makes, or cannot be written.
    """
    content = _read(script)
    if original(script) is not None:
        return False
    if not content.startswith(b"#!") or content.count(_IMPORT) != 1 or not content.isascii():
        raise SegmotionError(
            f"{script}: not the script that pip makes for nerfstudio {SUPPORTED}; it was left alone.\n"
            "ns-process-data-motion does the same without it."
        )
    ending = b"" if content.endswith(b"\n") else b"\n"
    record = _MARK + hashlib.sha256(content).hexdigest().encode() + b" " + base64.b64encode(content) + b"\n"
    _write(script, content.replace(_IMPORT, _REPLACEMENT) + ending + record)
    return True


def disable(script: Path) -> bool:
    """Put the original console script back, byte for byte. Returns False when it was there already."""
    stored = original(script)
    if stored is None:
        return False
    _write(script, stored)
    return True


def _read(script: Path) -> bytes:
    try:
        return Path(script).read_bytes()
    except OSError as error:
        raise SegmotionError(f"{script}: cannot be read ({error.strerror})") from None


def _write(script: Path, content: bytes) -> None:
    mode = Path(script).stat().st_mode
    try:
        with atomic_path(script) as temporary:
            temporary.write_bytes(content)
        Path(script).chmod(mode)
    except OSError as error:
        raise SegmotionError(f"{script}: cannot be written ({error.strerror}); run this as the owner of the installation") from None
