"""Weights of the foundation models: where they come from, under which licence, and how they are found and checked.

A file is looked for in the folder given with `--weights-dir`, in the Hugging Face cache, then in Segmotion's own cache. What is not
there is downloaded at a pinned revision and its SHA-256 is checked before it is put in place. `HF_HUB_OFFLINE=1` forbids the download.
"""

from __future__ import annotations

import hashlib
import logging
import os
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

_HUB = "https://huggingface.co"
_SAM2 = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/"
_told: set[str] = set()


@dataclass(frozen=True)
class Weights:
    """A pinned set of files that one model needs.

    Attributes:
        name: what the model is called on the command line.
        purpose: the stage it serves.
        licence: of the weights.
        commercial: whether the licence allows commercial use.
        megabytes: to download.
        files: pairs (file name, SHA-256). An empty SHA-256 is checked against the digest that the hub states for the pinned revision.
        repo: repository on the Hugging Face hub, or empty.
        revision: full commit of that repository.
        url: folder of the files when they are not on the hub, with a slash at the end.
    """

    name: str
    purpose: str
    licence: str
    commercial: bool
    megabytes: int
    files: tuple[tuple[str, str], ...]
    repo: str = ""
    revision: str = ""
    url: str = ""

    @property
    def source(self) -> str:
        """Address of the folder that holds the files."""
        return self.url or f"{os.environ.get('HF_ENDPOINT', _HUB).rstrip('/')}/{self.repo}/resolve/{self.revision}/"


def _sam2(size: str, megabytes: int, sha256: str) -> Weights:
    files = ((f"sam2.1_hiera_{size}.pt", sha256),)
    return Weights(f"sam2.1-{size.replace('_', '-')}", "masks", "Apache-2.0", True, megabytes, files, url=_SAM2)


CATALOGUE: dict[str, Weights] = {
    weights.name: weights
    for weights in (
        Weights(
            "cotracker3-offline",
            "tracks",
            "CC-BY-NC-4.0",
            False,
            102,
            (("scaled_offline.pth", "2670d4562ed69326dda775a26e54883925cd11b6fc9b24cb7aa9f8078bce7834"),),
            repo="facebook/cotracker3",
            revision="bf55ea50d4390e1820a267f131cd6587240fb2c5",
        ),
        Weights(
            "cotracker3-online",
            "tracks",
            "CC-BY-NC-4.0",
            False,
            102,
            (("scaled_online.pth", "205d34789f19699d64b22cf93f9b697f15f28d4025240e31532e504109837218"),),
            repo="facebook/cotracker3",
            revision="bf55ea50d4390e1820a267f131cd6587240fb2c5",
        ),
        Weights(
            "bootstapir",
            "tracks",
            "CC-BY-4.0",
            True,
            219,
            (("bootstapir_checkpoint_v2.pt", "8493c7a69e02c85b9382fbb3c7b8b539b36bc08ede744b9e99feb739a0129f4b"),),
            url="https://storage.googleapis.com/dm-tapnet/bootstap/",
        ),
        Weights(
            "depth-anything-v2-small",
            "depth",
            "Apache-2.0",
            True,
            99,
            (
                ("config.json", "c56698d3643dde1f83ea2212759e6b31a22b8f827246a36dd007ee8a22b3ff75"),
                ("model.safetensors", "3152477ce0d8d6978d76b995120de97cb5b928701fd0f817769f59e249a16b70"),
            ),
            repo="depth-anything/Depth-Anything-V2-Small-hf",
            revision="5426e4f0f36572d16453bbda7a8389317b1bef99",
        ),
        Weights(
            "depth-anything-v2-large",
            "depth",
            "CC-BY-NC-4.0",
            False,
            1341,
            (("config.json", ""), ("model.safetensors", "")),
            repo="depth-anything/Depth-Anything-V2-Large-hf",
            revision="7581137eff8d4e94f6e796d3baea0e9fa79b22d2",
        ),
        Weights(
            "dinov2-small",
            "semantics",
            "Apache-2.0",
            True,
            88,
            (
                ("config.json", "1809f83e3bdb1609a501a610ad4a742f4fd8ae44d72ca4aa0df52d1f2ac8628d"),
                ("model.safetensors", "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1"),
            ),
            repo="facebook/dinov2-small",
            revision="ed25f3a31f01632728cabb09d1542f84ab7b0056",
        ),
        Weights(
            "dinov2-base",
            "semantics",
            "Apache-2.0",
            True,
            346,
            (("config.json", ""), ("model.safetensors", "")),
            repo="facebook/dinov2-base",
            revision="f9e44c814b77203eaa57a6bdbbd535f21ede1415",
        ),
        _sam2("tiny", 156, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"),
        _sam2("small", 184, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38"),
        _sam2("base_plus", 324, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5"),
        _sam2("large", 898, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318"),
        Weights(
            "sam2.1-large-transformers",
            "masks",
            "Apache-2.0",
            True,
            898,
            (
                ("config.json", "00446988cf4d617118d2d347eabe2c46aebed744628facdd540508be30b69ec3"),
                ("model.safetensors", "dc407dce21301fd94abb395c5099b4f2c455fdc8a8f261ac3d0ea6d4cd197230"),
            ),
            repo="facebook/sam2.1-hiera-large",
            revision="665f8e2ad61cf5f53d65644ff27c8ee525124610",
        ),
        Weights(
            "seganymo",
            "motion",
            "not stated (code MIT)",
            False,
            14,
            (("moseg.pth", "705445fbf6b2e42cd4e946390c5c6891046e70add8e8377e38f5368f503591d9"),),
            repo="Changearthmore/moseg",
            revision="5ce31c82a80df8ec00ed1e7b1baee72d2b3eecc5",
        ),
    )
}


def folder_of(name: str, weights_dir: str | Path | None = None, download: bool = True) -> Path:
    """Folder that holds all files of a model, each checked.

    Args:
        name: a key of `CATALOGUE`.
        weights_dir: where to look first, and where to put what is downloaded. Files lie there directly or in a folder `name`.
        download: False only looks.

    Raises:
        SegmotionError: unknown name, a file that is missing and cannot be had, or one with the wrong content.
    """
    if name not in CATALOGUE:
        raise SegmotionError(f"no weights are called '{name}'; known are {', '.join(sorted(CATALOGUE))}")
    weights = CATALOGUE[name]
    for folder in _places(weights, weights_dir):
        if all((folder / file).is_file() for file, _ in weights.files):
            for file, sha256 in weights.files:
                _check(folder / file, sha256, f"Delete it, or replace it by {weights.source}{file}")
            return folder
    target = (Path(weights_dir) if weights_dir else _own_cache()) / name
    missing = ", ".join(file for file, _ in weights.files)
    by_hand = f"By hand: put {missing} from {weights.source} into {target} (licence {weights.licence}, {weights.megabytes} MB)."
    if not download or _offline():
        why = "and HF_HUB_OFFLINE forbids the download" if _offline() else "and downloads are off"
        raise SegmotionError(f"the weights '{name}' ({weights.purpose}) are not here, {why}.\n{by_hand}")
    for file, sha256 in weights.files:
        if not (target / file).is_file():
            _download(weights.source + file, target / file, sha256, by_hand)
    return target


def file_of(name: str, weights_dir: str | Path | None = None, download: bool = True) -> Path:
    """The checked file of a model that consists of one file; as `folder_of`."""
    return folder_of(name, weights_dir, download) / CATALOGUE[name].files[-1][0]


@dataclass(frozen=True)
class Status:
    """One line of the table that `segmotion doctor` shows."""

    weights: Weights
    path: Path | None  # None when they are not on this machine


def status(weights_dir: str | Path | None = None) -> list[Status]:
    """For all weights where they lie on this machine, by name only (contents are checked when they are used)."""
    found = []
    for weights in CATALOGUE.values():
        places = (folder for folder in _places(weights, weights_dir) if all((folder / file).is_file() for file, _ in weights.files))
        found.append(Status(weights, next(places, None)))
    return found


def announce(name: str) -> None:
    """Say once per run, in the log, when the weights that are about to be used restrict what one may do with the result."""
    weights = CATALOGUE[name]
    if not weights.commercial and name not in _told:
        _told.add(name)
        logging.getLogger("segmotion").warning("%s weights: licence %s, check it before commercial use.", name, weights.licence)


def load_state(path: str | Path, key: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of a `.pt`/`.pth` or `.safetensors` file without running anything that is in it.

    Args:
        path: the file.
        key: entry of the stored dictionary that holds the tensors; when absent the dictionary itself is taken, or its entry `model`,
            `model_state_dict` or `state_dict` if there is one.

    Raises:
        SegmotionError: no such file, damaged, holding anything but tensors and plain values, or lacking `key`.
    """
    import pickle
    import zipfile

    import torch

    path = Path(path)
    if not path.is_file():
        raise SegmotionError(f"{path}: no such file of weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            with warnings.catch_warnings():  # about a pickle protocol: what is wrong with the file is told below
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise SegmotionError(
                f"{path}: not loaded, it holds program code and not only weights. Get it from its publisher."
            ) from None
        raise SegmotionError(f"{path}: not a file of weights, or damaged. Download it again.") from None
    except (RuntimeError, EOFError, OSError, ValueError, zipfile.BadZipFile, KeyError, IndexError, AttributeError, TypeError) as error:
        raise SegmotionError(f"{path}: not a file of weights, or damaged ({_short(error)}). Download it again.") from None
    except Exception as error:  # safetensors has an error type of its own that is not importable in every version
        if type(error).__name__ != "SafetensorError":
            raise
        raise SegmotionError(f"{path}: damaged ({_short(error)}). Download it again.") from None
    state: Any = content
    if isinstance(content, dict):
        names = (key,) if key else ("model", "model_state_dict", "state_dict")
        state = next((content[name] for name in names if isinstance(content.get(name), dict)), None if key else content)
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise SegmotionError(f"{path}: no weights in it" + (f" under '{key}'" if key else "") + "; is it the right file?")
    return state


def load_into(model: object, path: str | Path, what: str, key: str | None = None) -> None:
    """Load a file of weights into a torch module, strictly.

    Raises:
        SegmotionError: as `load_state`, or the tensors belong to another model.
    """
    state = load_state(path, key)
    try:
        model.load_state_dict(state)  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise SegmotionError(f"{path} does not hold the weights of {what}: {_short(error)}") from None


def _short(error: BaseException) -> str:
    """The first sentence of what a library says."""
    return " ".join(str(error).split()).split(". ")[0][:160]


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in {"1", "TRUE", "YES", "ON"}


def _own_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "segmotion"


def _places(weights: Weights, weights_dir: str | Path | None) -> Iterator[Path]:
    if weights_dir is not None:
        yield Path(weights_dir) / weights.name
        # Files of one model only may lie in the folder itself: several have a file called model.safetensors.
        if len(weights.files) == 1:
            yield Path(weights_dir)
    if weights.repo:
        hub = os.environ.get("HF_HUB_CACHE")
        home = os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
        root = Path(hub) if hub else Path(home) / "hub"
        yield root / f"models--{weights.repo.replace('/', '--')}" / "snapshots" / weights.revision
    yield _own_cache() / weights.name


def _check(path: Path, sha256: str, advice: str) -> None:
    if not sha256:
        return
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise SegmotionError(f"{path}: damaged or another version (SHA-256 {digest.hexdigest()[:12]}…, not {sha256[:12]}…).\n{advice}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: object, **_kwargs: object) -> None:
        return None


def _stated_digest(url: str) -> str:
    """SHA-256 that the hub states for a large file; it stands in the header of the first answer, before the redirection."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        headers = urllib.request.build_opener(_NoRedirect).open(request, timeout=30).headers
    except urllib.error.HTTPError as error:
        headers = error.headers
    digest = (headers.get("X-Linked-Etag") or "").strip('"')
    return digest if len(digest) == 64 else ""


def _download(url: str, path: Path, sha256: str, by_hand: str) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    try:
        expected = sha256 or _stated_digest(url)
        with urllib.request.urlopen(url, timeout=60) as answer, atomic_path(path) as temporary:
            size = int(answer.headers.get("Content-Length") or 0)
            columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            with Progress(*columns, transient=True) as progress, open(temporary, "wb") as handle:
                task = progress.add_task(path.name, total=size or None)
                while block := answer.read(1 << 20):
                    handle.write(block)
                    progress.advance(task, len(block))
            if size and temporary.stat().st_size != size:
                raise SegmotionError(f"{url}: the download broke off after {temporary.stat().st_size:,} of {size:,} bytes. Try again.")
            _check(temporary, expected, f"It was downloaded from {url} and thrown away.")
    except OSError as error:  # urllib's errors are of this type
        reason = getattr(error, "reason", None) or error
        raise SegmotionError(f"{url} could not be downloaded ({_short(Exception(reason))}).\n{by_hand}") from None
