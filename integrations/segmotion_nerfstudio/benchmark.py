"""The integration measured with the real commands, on rendered clips whose truth is known.

    python -m segmotion_nerfstudio.benchmark images video rate train switch

images, video: `ns-process-data` as nerfstudio has it, with --motion-mask, and with the true masks, on a clip with a large mover.
rate: masks of a sixth of the frames of a long video against masks of all of them.
train: `ns-train segmotion-nerfacto` twice with one seed, the second time with every masked pixel repainted; `ns-eval` of the first;
`ns-train nerfacto … segmotion-data`. Networks are small and trained for a few steps on the CPU.
switch: `segmotion nerfstudio enable` and `disable`; every file of nerfstudio's installation must hash as before.

Nothing is downloaded: where AlexNet is not at hand, nerfstudio's own nerfacto gets one with random weights for its LPIPS metric.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from segmotion_colmap.database import keypoints, masked_keypoints

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.clip import read_rgb
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation.poses import trajectory_error
from segmotion_plugin.files import read_json, write_png
from segmotion_plugin.masks import read_grey
from segmotion_plugin.simulation import SimulatedClip, render, scenes

# nerfstudio's own module for each of its console scripts, so that the benchmark needs no PATH.
_STOCK = "nerfstudio.scripts.process_data"
_OURS = "segmotion_nerfstudio.process_data"


@dataclass(frozen=True)
class Options:
    """What is rendered."""

    scene: str = "large_mover"
    seed: int = 1
    width: int = 480
    height: int = 270
    frames: int = 16


def _must(module: str, arguments: Sequence[str], log: Path) -> None:
    """Run a module as a program, its words to `log`.

    Raises:
        SegmotionError: it failed.
    """
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "COLUMNS": "160"}
    # What the entry points of the installed package say, for a run from a checkout.
    plugin = "segmotion_nerfstudio.plugin"
    environment["NERFSTUDIO_METHOD_CONFIGS"] = f"segmotion-nerfacto={plugin}:segmotion_nerfacto"
    environment["NERFSTUDIO_DATAPARSER_CONFIGS"] = f"segmotion-data={plugin}:segmotion_data"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as words:
        command = [sys.executable, "-m", module, *arguments]
        status = subprocess.run(command, env=environment, stdout=words, stderr=subprocess.STDOUT, check=False).returncode
    if status != 0:
        tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-5:])
        raise SegmotionError(f"{module} {' '.join(arguments[:2])} failed; see {log}\n{tail}")


def write_video(path: Path, frames: np.ndarray, fps: int = 24) -> None:
    """Frames T×H×W×3 uint8 as H.264, hardly compressed."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.options = frames.shape[2], frames.shape[1], "yuv420p", {"crf": "8"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def keep_mask(clip: SimulatedClip, frame: int) -> np.ndarray:
    """True keep mask H×W uint8 of a frame: 0 on everything that moves at some time."""
    return np.where(clip.labels[frame] > 0, np.uint8(0), np.uint8(255))


def frame_of(images: Sequence[Path], clip: SimulatedClip) -> dict[str, int]:
    """Which frame of the clip each image is, by its content: nerfstudio's own sampling of a video does not tell."""
    small = clip.frames[:, ::8, ::8].astype(np.int16)
    return {path.name: int(np.abs(small - read_rgb(path)[::8, ::8]).mean(axis=(1, 2, 3)).argmin()) for path in images}


def judge(out: Path, clip: SimulatedClip) -> str:
    """A row of the table: images, share registered, keypoints on movers and in masks, trajectory error in percent of the path."""
    import pycolmap

    from segmotion_plugin.reconstruct.mapping import cameras_from_reconstruction

    images = sorted((out / "images").glob("*.png"))
    number = frame_of(images, clip)
    names = sorted(number, key=number.__getitem__)
    frames = np.array([number[name] for name in names])
    masks = out / "true_masks"
    for name in names:
        write_png(masks / f"{name}.png", keep_mask(clip, number[name]))
    total = sum(len(xy) for xy in keypoints(out / "colmap" / "database.db").values())
    moving = sum(masked_keypoints(out / "colmap" / "database.db", masks).values())
    inside = "-"
    if (out / "colmap_masks").is_dir():
        inside = str(sum(masked_keypoints(out / "colmap" / "database.db", out / "colmap_masks").values()))
    start = f"{len(images):6}"
    model = out / "colmap" / "sparse" / "0"
    words = f"{100 * moving / max(total, 1):8.1f}% {inside:>8}"
    if not (model / "images.bin").is_file():
        return f"{start} {'0':>10} {words} {'no model':>11}"
    truth = clip.cameras
    known = Cameras(names, frames, truth.width, truth.height, truth.model, truth.params, truth.cam_from_world[frames])
    try:
        errors = trajectory_error(cameras_from_reconstruction(pycolmap.Reconstruction(model), names), known)
    except SegmotionError as error:
        return f"{start} {'few':>10} {words} {str(error).splitlines()[0][:40]:>11}"
    return f"{start} {errors.num_compared:10} {words} {100 * errors.trajectory_fraction:10.3f}%"


_HEADER = f"{'command':34} {'images':>6} {'registered':>10} {'on mover':>9} {'in masks':>8} {'trajectory':>11}"


def images(work: Path, options: Options) -> list[str]:
    """`ns-process-data images` with COLMAP's binary."""
    clip = render(scenes.build(options.scene, options.seed, options.frames, options.width, options.height))
    for k, frame in enumerate(clip.frames):
        write_png(work / "data" / f"shot_{k:03d}.png", frame)
        write_png(work / "truth" / f"shot_{k:03d}.png", keep_mask(clip, k))
    common = ["images", "--data", str(work / "data"), "--no-gpu", "--matching-method", "exhaustive", "--num-downscales", "1"]
    own = ["--motion-mask-method", "none", "--motion-mask-extra", str(work / "truth")]
    lines = []
    for name, module, extra in (
        ("images, stock", _STOCK, []),
        ("images --motion-mask", _OURS, ["--motion-mask"]),
        ("images, true masks", _OURS, ["--motion-mask", *own]),
    ):
        out = work / name.replace(",", "").replace(" ", "_").replace("--", "")
        _must(module, [*common, "--output-dir", str(out), *extra], work / f"{out.name}.log")
        lines.append(f"{name:34} {judge(out, clip)}")
    return lines


def video(work: Path, options: Options) -> list[str]:
    """`ns-process-data video`, every second frame taken: stock with COLMAP's binary, ours with pycolmap."""
    clip = render(scenes.build(options.scene, options.seed, 2 * options.frames, options.width, options.height))
    write_video(work / "clip.mp4", clip.frames)
    count = options.frames
    chosen = np.unique(np.round(np.linspace(0, len(clip.frames) - 1, count)).astype(int)).tolist()
    for number, k in enumerate(chosen, start=1):
        write_png(work / "truth" / f"frame_{number:05d}.png", keep_mask(clip, k))
    common = ["video", "--data", str(work / "clip.mp4"), "--no-gpu", "--num-frames-target", str(count), "--num-downscales", "1"]
    own = ["--motion-mask-method", "none", "--motion-mask-extra", str(work / "truth")]
    lines = []
    for name, module, extra in (
        ("video, stock", _STOCK, ["--matching-method", "exhaustive"]),
        ("video --motion-mask, pycolmap", _OURS, ["--motion-mask", "--sfm-tool", "pycolmap"]),
        ("video, true masks, pycolmap", _OURS, ["--motion-mask", "--sfm-tool", "pycolmap", *own]),
    ):
        out = work / name.replace(",", "").replace(" ", "_").replace("--", "")
        _must(module, [*common, "--output-dir", str(out), *extra], work / f"{out.name}.log")
        lines.append(f"{name:34} {judge(out, clip)}")
    return lines


def rate(work: Path, options: Options, total: int = 900, selected: int = 150) -> list[str]:
    """J of the masks of some frames of a long video, against those of all frames, and against those of the few frames alone.

    The video is a clip of 76 frames played forward and backward: long, and as fast as usual.
    """
    clip = render(scenes.build("multi_movers", options.seed, 76, 320, 180))
    forth = np.arange(76)
    order = np.resize(np.concatenate([forth, forth[-2:0:-1]]), total)
    frames, moving = clip.frames[order], clip.labels[order] > 0
    write_video(work / "long.mp4", frames)
    chosen = np.unique(np.round(np.linspace(0, total - 1, selected)).astype(int))
    for number, k in enumerate(chosen.tolist()):
        write_png(work / "few" / f"{number:05d}.png", frames[k])
    common = ["--motion-mask", "--skip-colmap", "--num-downscales", "0"]
    lines = [f"{'masks of':44} {'frames':>6} {'J, those frames':>15} {'J, the selected':>15}"]
    whole = ["video", "--data", str(work / "long.mp4"), "--num-frames-target"]
    for name, arguments, numbers in (
        ("all frames", [*whole, str(total)], np.arange(total)),
        ("selected frames, tracked at the full rate", [*whole, str(selected)], chosen),
        ("selected frames, the others unknown", ["images", "--data", str(work / "few"), "--motion-mask-order", "sequence"], chosen),
    ):
        out = work / f"rate{len(lines)}"
        _must(_OURS, [*arguments, "--output-dir", str(out), *common], work / f"{out.name}.log")
        found = np.array([read_grey(path) > 0 for path in sorted((out / "motion" / "objects").glob("*.png"))])
        scores = {k: _jaccard(moving[k], mask) for k, mask in zip(numbers.tolist(), found, strict=True)}
        few = np.mean([scores[k] for k in chosen.tolist()])
        lines.append(f"{name:44} {len(found):6} {np.mean(list(scores.values())):15.4f} {few:15.4f}")
    return lines


def _jaccard(truth: np.ndarray, found: np.ndarray) -> float:
    union = (truth | found).sum()
    return 1.0 if union == 0 else float((truth & found).sum() / union)


_SMALL = [
    "--machine.device-type", "cpu", "--machine.seed", "7", "--mixed-precision", "False", "--vis", "tensorboard",
    "--logging.local-writer.enable", "False", "--logging.steps-per-log", "1", "--timestamp", "run",
    "--pipeline.datamanager.train-num-rays-per-batch", "256", "--pipeline.datamanager.eval-num-rays-per-batch", "256",
    "--pipeline.model.implementation", "torch", "--pipeline.model.log2-hashmap-size", "12",
    "--pipeline.model.num-nerf-samples-per-ray", "16", "--pipeline.model.num-proposal-samples-per-ray", "32", "16",
    "--pipeline.model.eval-num-rays-per-chunk", "4096", "--pipeline.model.camera-optimizer.mode", "off",
]  # fmt: skip


def train(work: Path, options: Options, steps: int = 20) -> list[str]:
    """Losses of two trainings that differ in what the masked pixels show, metrics of `ns-eval`, and stock nerfacto on our data."""
    import shutil

    small = Options(options.scene, options.seed, 160, 90, 12)
    clip = render(scenes.build(small.scene, small.seed, small.frames, small.width, small.height))
    for k, frame in enumerate(clip.frames):
        write_png(work / "data" / f"shot_{k:03d}.png", frame)
    plain, painted = work / "plain", work / "painted"
    arguments = ["images", "--data", str(work / "data"), "--output-dir", str(plain), "--motion-mask", "--sfm-tool", "pycolmap"]
    _must(_OURS, [*arguments, "--num-downscales", "0"], work / "process.log")
    shutil.copytree(plain, painted)
    rng, changed = np.random.default_rng(0), 0
    for path in sorted((painted / "images").iterdir()):
        image, masked = read_rgb(path).copy(), read_grey(painted / "masks" / path.name) == 0
        image[masked] = rng.integers(0, 255, (int(masked.sum()), 3))
        changed += int(masked.sum())
        write_png(path, image)
    share = changed / (len(clip.frames) * small.width * small.height)
    losses, lines = [], []
    settings = [*_SMALL, "--max-num-iterations", str(steps), "--steps-per-save", str(steps), "--steps-per-eval-all-images", "0"]
    settings += ["--output-dir", str(work / "runs")]
    for data in (plain, painted):
        _must("nerfstudio.scripts.train", ["segmotion-nerfacto", "--data", str(data), *settings], work / f"train_{data.name}.log")
        losses.append(_losses(work / "runs" / data.name / "segmotion-nerfacto" / "run"))
    lines.append(f"segmotion-nerfacto: {len(losses[0])} steps, loss {losses[0][0]:.6f} to {losses[0][-1]:.6f}")
    verdict = "equal at every step" if losses[0] == losses[1] else "DIFFERENT"
    lines.append(f"losses with {100 * share:.0f} % of the pixels, all that are masked, repainted: {verdict}")
    config = work / "runs" / "plain" / "segmotion-nerfacto" / "run" / "config.yml"
    _must("nerfstudio.scripts.eval", ["--load-config", str(config), "--output-path", str(work / "eval.json")], work / "eval.log")
    results = read_json(work / "eval.json")["results"]
    wanted = ("psnr", "ssim", "psnr_all", "ssim_all", "kept")
    lines.append("ns-eval: " + ", ".join(f"{name} {results[name]:.3f}" for name in wanted if name in results))
    os.environ.setdefault("TORCH_HOME", str(work / "torch"))
    _alexnet(Path(os.environ["TORCH_HOME"]))
    stock = ["nerfacto", "--data", str(plain), *settings, "segmotion-data"]
    _must("nerfstudio.scripts.train", stock, work / "train_stock.log")
    found = _losses(work / "runs" / "plain" / "nerfacto" / "run")
    lines.append(f"ns-train nerfacto … segmotion-data: {len(found)} steps, loss {found[0]:.6f} to {found[-1]:.6f}")
    return lines


def _losses(folder: Path) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [event.value for event in events.Scalars("Train Loss")]


def _alexnet(home: Path) -> None:
    import torch
    import torchvision

    path = home / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(torchvision.models.alexnet().state_dict(), path)


def switch(work: Path, options: Options) -> list[str]:
    """Hashes of nerfstudio's installation, and its help, before `enable` and after `disable`."""
    from segmotion_nerfstudio import shim

    script = shim.console_script()
    if shim.original(script) is not None:
        return [f"{script} is extended already; 'segmotion nerfstudio disable' first"]
    before, words = _installed_files(), _help(script)
    _must("segmotion_plugin.cli", ["nerfstudio", "enable"], work / "enable.log")
    try:
        extended = _help(script)
    finally:
        _must("segmotion_plugin.cli", ["nerfstudio", "disable"], work / "disable.log")
    same = {name: _installed_files()[name] == digest for name, digest in before.items()}
    return [
        f"{len(same)} files of the installation, {sum(same.values())} hash as before",
        f"help: --motion-mask {'known' if b'--motion-mask' in extended else 'UNKNOWN'} while enabled, "
        f"{'byte for byte as before' if _help(script) == words else 'CHANGED'} after",
    ]


def _help(script: Path) -> bytes:
    return subprocess.run([sys.executable, str(script), "images", "--help"], capture_output=True, check=True).stdout


def _installed_files() -> dict[str, str]:
    import hashlib
    from importlib import metadata

    distribution = metadata.distribution("nerfstudio")
    paths = [Path(str(distribution.locate_file(file))) for file in distribution.files or [] if file.suffix != ".pyc"]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}


PARTS = {"images": images, "video": video, "rate": rate, "train": train, "switch": switch}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=list(PARTS), help="all by default")
    parser.add_argument("--work", type=Path, help="folder for data and logs; a temporary one by default")
    defaults = Options()
    for name in ("scene", "seed", "width", "height", "frames"):
        value = getattr(defaults, name)
        parser.add_argument(f"--{name}", type=type(value), default=value)
    given = parser.parse_args()
    options = Options(given.scene, given.seed, given.width, given.height, given.frames)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(given.work or temporary)
        told = False
        for part in given.parts:
            if part in ("images", "video"):
                if not told:
                    print(_HEADER, flush=True)
                told = True
            else:
                print(f"{part}:", flush=True)
            print("\n".join(PARTS[part](work / part, options)), flush=True)


if __name__ == "__main__":
    main()
