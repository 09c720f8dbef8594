"""CPU seconds and peak memory of the SegAnyMo network with fused and with plain attention.

    python -m segmotion_plugin.motion.seganymo_benchmark --tracks 5000 --frames 100

Each version runs in a process of its own, so that the peak is its own. The plain version keeps the weights of one frame's attention
at a time; computing all frames at once, as the authors' code does, would take 4 bytes x 4 heads x L x N^2 (40 GB for 5,000 x 100).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time


def run(tracks: int, frames: int, fused: bool) -> tuple[float, float]:
    """CPU seconds and peak additional memory (GB) of one pass with random weights and inputs, on one thread."""
    import torch

    from segmotion_plugin.motion.seganymo import SegAnyMo

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    model = SegAnyMo(fused=fused)
    shape = (1, 1, tracks, frames)
    inputs = {
        "traj": torch.rand((1, 2, tracks, frames), generator=generator) * 2 - 1,
        "mask": torch.zeros(shape),  # all visible: the most work
        "depth": torch.rand((1, 1, 60, 107, frames), generator=generator),
        "visib_value": torch.rand(shape, generator=generator),
        "confi_value": torch.rand(shape, generator=generator),
        "dino": torch.randn((1, 768, tracks, 1), generator=generator),
    }
    model(**{name: value[:, :, :8] if name != "depth" else value for name, value in inputs.items()})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    model(**inputs)
    seconds = time.process_time() - start
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20


def main() -> None:
    """Print a table for the sizes given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=5000)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--only", choices=("fused", "plain"), help="run one version in this process")
    options = parser.parse_args()
    if options.only:
        seconds, gigabytes = run(options.tracks, options.frames, options.only == "fused")
        print(f"{seconds:.3f} {gigabytes:.3f}")
        return
    rows = {}
    for version in ("fused", "plain"):
        sizes = ["--tracks", str(options.tracks), "--frames", str(options.frames)]
        command = [sys.executable, "-m", "segmotion_plugin.motion.seganymo_benchmark", *sizes, "--only", version]
        rows[version] = [float(word) for word in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()]
        print(f"{version}: {rows[version][0]:8.1f} s {rows[version][1]:8.2f} GB", flush=True)
    ratios = [plain / max(fused, 1e-9) for plain, fused in zip(rows["plain"], rows["fused"], strict=True)]
    print(f"plain / fused: {ratios[0]:.1f} x the time, {ratios[1]:.1f} x the memory")


if __name__ == "__main__":
    main()
