"""Models of the transformers library from a folder, checked more strictly than that library does by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segmotion_plugin.errors import SegmotionError

# Used in training only; published folders may leave it out.
_NOT_NEEDED = ("mask_token",)


def load_pretrained(kind: str, folder: str | Path, what: str, oldest: str = "4.57") -> Any:
    """Build a model of transformers from `config.json` and `model.safetensors` in a folder; no code of the folder is run.

    The library fills what a file lacks with random numbers and a warning; here that is an error.

    Args:
        kind: name of the class in transformers.
        folder: where the files lie.
        what: name of the model for messages.
        oldest: version of transformers that has the class.

    Raises:
        SegmotionError: transformers is missing or too old, or the files are damaged or belong to another model.
    """
    try:
        import transformers

        builder = getattr(transformers, kind)
    except (ImportError, AttributeError):
        raise SegmotionError(f"{what} needs transformers {oldest} or newer: pip install 'segmotion-plugin[foundation]'") from None
    try:
        with _quiet(transformers):
            model, found = builder.from_pretrained(folder, local_files_only=True, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        if "size mismatch" in str(error) or "mismatched" in str(error):
            raise SegmotionError(f"{folder} does not hold the weights of {what}: its tensors have other shapes.") from None
        why = f"a file is damaged or of another model ({_short(error)})"
        raise SegmotionError(f"{folder}: {what} cannot be built from it, {why}.") from None
    except Exception as error:  # safetensors has an error type of its own that is not importable in every version
        if type(error).__name__ != "SafetensorError":
            raise
        raise SegmotionError(f"{folder}/model.safetensors: damaged ({_short(error)}). Download it again.") from None
    lacking = sorted(key for key in found["missing_keys"] if not key.endswith(_NOT_NEEDED))
    if lacking:
        first = f"{len(lacking)} tensors are missing, the first {lacking[0]}"
        raise SegmotionError(f"{folder} does not hold the weights of {what}: {first}.")
    return model


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """The library's own report of what did not fit is left out; ours is one line."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
