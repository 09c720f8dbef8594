"""Where a model runs, and what happens when the memory there is too small."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from segmotion_plugin.errors import SegmotionError

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")


def resolve_device(name: str = "auto") -> torch.device:
    """The torch device of a name: `auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        SegmotionError: the name is no device, or this machine does not have it.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SegmotionError(f"'{name}' is no device; use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= (device.index or 0):
            seen = f"torch {torch.__version__} sees {count} CUDA devices"
            raise SegmotionError(f"device '{name}' was asked for, but {seen}; use --device cpu")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise SegmotionError("device 'mps' was asked for, but torch does not see an Apple GPU; use --device cpu")
    return device


@contextlib.contextmanager
def inference(device: torch.device, half: bool = True, wide: bool = False) -> Iterator[None]:
    """No gradients, and half precision on CUDA.

    `wide` takes bfloat16, on the CPU too: SAM 2 stores its memories in it and does not run without.
    """
    import torch

    kind = torch.bfloat16 if wide else torch.float16
    with torch.inference_mode(), torch.autocast(device.type, kind, enabled=wide or (half and device.type == "cuda")):
        yield


def free_bytes(device: torch.device) -> int:
    """Memory that is free on the device; on the CPU what the system can still give, 4 GB where that is unknown."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as handle:
            for line in handle:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 4 << 30


def chunk_size(device: torch.device, bytes_per_item: float, most: int, share: float = 0.4) -> int:
    """How many items of so many bytes go into a share of the free memory, between 1 and `most`."""
    return int(max(1, min(most, share * free_bytes(device) / bytes_per_item)))


def in_chunks(run: Callable[[slice], Result], count: int, chunk: int, what: str) -> list[Result]:
    """Call `run` on consecutive slices of `count` items; a slice that does not fit into memory is tried again in halves.

    The smaller size is kept for what follows.

    Raises:
        SegmotionError: a single item does not fit.
    """
    results: list[Result] = []
    start, chunk = 0, max(1, chunk)
    while start < count:
        part = slice(start, min(start + chunk, count))
        try:
            results.append(run(part))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            _release()
            size = part.stop - part.start
            if size == 1:
                raise SegmotionError(
                    f"out of memory in {what}, even for one item at a time.\nUse smaller frames (--work-size) or --device cpu."
                ) from None
            chunk = size // 2
            continue
        start = part.stop
    return results


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out (torch uses different types on CPU and CUDA)."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _release() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
