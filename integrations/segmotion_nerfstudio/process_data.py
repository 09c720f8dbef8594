"""`ns-process-data` with `--motion-mask`: nerfstudio's own command, extended; without the flag it does what it always did."""

from __future__ import annotations

import shutil
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args

import numpy as np
import tyro
from nerfstudio.process_data import colmap_utils, process_data_utils
from nerfstudio.process_data.base_converter_to_nerfstudio_dataset import BaseConverterToNerfstudioDataset
from nerfstudio.process_data.colmap_converter_to_nerfstudio_dataset import ColmapConverterToNerfstudioDataset
from nerfstudio.process_data.images_to_nerfstudio_dataset import ImagesToNerfstudioDataset
from nerfstudio.process_data.video_to_nerfstudio_dataset import VideoToNerfstudioDataset
from nerfstudio.scripts import process_data as stock
from nerfstudio.utils import install_checks
from nerfstudio.utils.rich_utils import CONSOLE
from segmotion_colmap.binary import ColmapBinary
from segmotion_colmap.clip_masks import ClipMasks, clips_of, find_masks, looks_ordered

from segmotion_nerfstudio import placing, reconstruction
from segmotion_nerfstudio.options import MotionMaskOptions
from segmotion_plugin.clip import natural_key, read_rgb
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import write_png


@dataclass
class _Motion(MotionMaskOptions, ColmapConverterToNerfstudioDataset):
    """What images and videos share."""

    matching_method: Literal["auto", "exhaustive", "sequential", "vocab_tree"] = "auto"  # type: ignore[assignment]
    """Feature matching method to use. auto is nerfstudio's own choice (vocab_tree for images, sequential for videos); with
    --motion-mask it is exhaustive for small or unordered sets and sequential for others."""
    sfm_tool: Literal["any", "colmap", "hloc", "pycolmap"] = "any"  # type: ignore[assignment]
    """Structure from motion tool to use. colmap and pycolmap use sift features, hloc can use many modern methods such as
    superpoint features and superglue matcher. pycolmap needs no COLMAP executable, and is taken where none is found."""

    def __post_init__(self) -> None:
        self._clips: list[placing.DatasetClip] = []
        self._ordered = True
        self._placed = False
        self._own_images: list[str] = []
        if self.motion_mask:
            self._refuse()
            self.mask_settings()
            placing.check_free(self.output_dir)
        self._binary = self._find_tool()
        self._stock_matching()
        try:
            BaseConverterToNerfstudioDataset.__post_init__(self)
        except OSError as error:
            raise SegmotionError(
                f"{self.output_dir}: cannot be written ({error.strerror}); give a folder that you may write"
            ) from None
        if not (self.motion_mask and isinstance(self, VideoToNerfstudioDataset)):
            install_checks.check_ffmpeg_installed()
        if not 0.0 <= self.crop_bottom <= 1:
            raise RuntimeError("crop_bottom must be set between 0 and 1.")
        if self.crop_bottom > 0.0:
            self.crop_factor = (0.0, self.crop_bottom, 0.0, 0.0)

    def _refuse(self) -> None:
        """Say what cannot go together, before anything is written.

        Raises:
            SegmotionError: it does not.
        """
        if not self.data.exists():
            raise SegmotionError(f"{self.data}: no such file or folder (--data)")
        if self.camera_type == "equirectangular":
            raise SegmotionError(
                "--motion-mask: equirectangular pictures are cut into views that are no clip; use --camera-type perspective"
            )
        if self._other_features() or self.sfm_tool == "hloc":
            raise SegmotionError(
                "--motion-mask: hloc takes no masks, so --sfm-tool, --feature-type and --matcher-type must mean colmap or pycolmap"
            )
        if any(not 0.0 <= share <= 1.0 for share in self.crop_factor) or min(self._crop_shares()) <= 0:
            raise SegmotionError(
                f"--crop-factor {self.crop_factor}: shares must lie between 0 and 1 and leave something of the picture"
            )

    def _crop_shares(self) -> tuple[float, float]:
        top, bottom, left, right = self.crop_factor
        return 1 - top - bottom, 1 - left - right

    def _other_features(self) -> bool:
        return self.feature_type not in ("any", "sift") or self.matcher_type not in ("any", "NN") or self.refine_pixsfm

    def _find_tool(self) -> ColmapBinary | None:
        """The COLMAP binary to use; None for pycolmap and hloc."""
        if self.skip_colmap or self.sfm_tool in ("pycolmap", "hloc"):
            binary = None
        else:
            binary = ColmapBinary.find(self.colmap_cmd)
            if binary is None and self.sfm_tool == "colmap":
                raise SegmotionError(f"{self.colmap_cmd}: no such program (--colmap-cmd); --sfm-tool pycolmap needs none")
        tool = self.sfm_tool
        if tool == "any" and binary is None and not self._other_features():
            self.sfm_tool = "pycolmap"
        if self.sfm_tool == "pycolmap" and not self.skip_colmap:
            if self.camera_type == "fisheye":
                raise SegmotionError("--camera-type fisheye needs the COLMAP binary (--sfm-tool colmap)")
            if not self.use_single_camera_mode:
                raise SegmotionError("--no-use-single-camera-mode works only with --sfm-tool hloc, as nerfstudio says")
        return binary

    def _stock_matching(self) -> None:
        """Without motion masks `auto` is what nerfstudio has for this kind of input."""
        if self.matching_method == "auto" and not self.motion_mask and self.sfm_tool != "pycolmap":
            self.matching_method = "sequential" if isinstance(self, VideoToNerfstudioDataset) else "vocab_tree"

    def _run_colmap(self, mask_path: Path | None = None) -> None:
        if not self.motion_mask and self.sfm_tool != "pycolmap":
            super()._run_colmap(mask_path)
            return
        images = self.data if self.skip_image_processing else self.image_dir
        masks = self._colmap_masks(mask_path)
        names = [name for clip in self._clips for name in clip.names] or None
        if self._binary is None:
            figures = reconstruction.with_pycolmap(
                images,
                masks,
                self.absolute_colmap_path,
                camera_type=self.camera_type,
                matching=self.matching_method,
                ordered=self._ordered,
                names=names,
            )
        else:
            assert masks is not None
            figures = reconstruction.with_binary(
                self._binary,
                images,
                masks,
                self.absolute_colmap_path,
                camera_type=self.camera_type,
                matching=reconstruction.matching_method(self.matching_method, len(names or []), self._ordered),
                refine=self.refine_intrinsics,
                gpu=self.gpu,
                verbose=self.verbose,
                vocabulary_tree=colmap_utils.get_vocab_tree,
            )
        CONSOLE.log(f"[bold green]:tada: Cameras of {figures['images_registered']} images found with {figures['tool']}.")
        if self.motion_mask:
            reconstruction.record(self.output_dir, figures)

    def _colmap_masks(self, mask_path: Path | None) -> Path | None:
        """Folder with a mask per image for the reconstruction: motion masks, or copies of the one circle of nerfstudio's own."""
        if self.motion_mask:
            self._place_masks()
            return self.output_dir / "colmap_masks"
        if mask_path is None:
            return None
        folder = self.absolute_colmap_path / "masks"
        folder.mkdir(parents=True, exist_ok=True)
        for image in process_data_utils.list_images(self.image_dir, recursive=False):
            shutil.copyfile(mask_path, folder / f"{image.name}.png")
        return folder

    def _place_masks(self) -> None:
        """Find the masks and write them into the dataset, once."""
        if self._placed:
            return
        self._placed = True
        with tempfile.TemporaryDirectory(prefix=".segmotion-", dir=self.output_dir) as scratch:
            self._find_clips(Path(scratch))
            share = placing.place(
                self.output_dir,
                self._clips,
                extra=self.motion_mask_extra,
                radius_share=self.percent_radius_crop,  # type: ignore[attr-defined]
                downscales=0 if self.skip_image_processing else self.num_downscales,
                box=self._box(),
                images=self._own_images,
            )
        for warning in dict.fromkeys(w for clip in self._clips for w in clip.masks.report["warnings"]):
            CONSOLE.log(f"[bold yellow]Warning: {warning}", markup=True)
        count = sum(len(clip.names) for clip in self._clips)
        CONSOLE.log(f"[bold green]:tada: Motion masks of {count} images, {100 * share:.1f} % of the pixels masked.")

    @abstractmethod
    def _find_clips(self, scratch: Path) -> None:
        """Fill `_clips` with the images of the dataset and their masks, found in a scratch folder."""

    def _box(self) -> placing.Box | None:
        return None

    def _save_transforms(self, *arguments: Any, **named: Any) -> list[str]:
        if not self.motion_mask:
            return super()._save_transforms(*arguments, **named)
        self._place_masks()
        transforms = self.output_dir / "transforms.json"
        if self.skip_colmap and not (self.absolute_colmap_model_path / "cameras.bin").exists():
            transforms.unlink(missing_ok=True)  # of an earlier run: it would not belong to these images
        # nerfstudio's one mask for all images is part of ours
        if len(arguments) > 2:
            arguments = (*arguments[:2], None, *arguments[3:])
        log = super()._save_transforms(*arguments, **{**named, "camera_mask_path": None} if "camera_mask_path" in named else named)
        if transforms.is_file():
            placing.add_mask_paths(transforms)
        log.append(f"Motion masks are in {self.output_dir / 'masks'}; look at {self.output_dir / 'motion' / 'overview.png'}")
        return log


@dataclass
class MotionImages(_Motion, ImagesToNerfstudioDataset):
    """Process images into a nerfstudio dataset.

    1. Scales images to a specified size.
    2. Calculates the camera poses for each image using `COLMAP <https://colmap.github.io/>`_.
    3. With --motion-mask, masks what moves in the world, for the cameras and for training.
    """

    def _refuse(self) -> None:
        super()._refuse()
        if not self.data.is_dir():
            raise SegmotionError(f"{self.data}: not a folder of images; for a video use 'ns-process-data video'")
        if self.skip_image_processing and any(p.parent != self.data for p in process_data_utils.list_images(self.data)):
            raise SegmotionError(f"{self.data}: --skip-image-processing with --motion-mask takes a folder without sub-folders")
        if self.skip_image_processing and self.image_dir.resolve() != self.data.resolve():
            raise SegmotionError(
                f"{self.data}: with --skip-image-processing the images must lie in {self.image_dir}, where nerfstudio looks for them"
            )

    def _find_clips(self, scratch: Path) -> None:
        # _place_masks runs after nerfstudio renamed the images: the k-th of the sorted sources is frame k.
        sets = [(self.data, "frame_train_" if self.eval_data is not None else "frame_")]
        if self.eval_data is not None:
            sets.append((self.eval_data, "frame_eval_"))
        names = {p.stem: p.name for p in process_data_utils.list_images(self.image_dir, recursive=False)}
        for folder, prefix in sets:
            sources = process_data_utils.list_images(folder)
            if self.skip_image_processing:
                images = sources
            else:
                images = [self.image_dir / names[f"{prefix}{number:05d}"] for number in range(1, len(sources) + 1)]
            for members in clips_of(sources):
                members.sort(key=lambda i: (natural_key(sources[i].name), sources[i].name))
                chosen = [images[i] for i in members]
                ordered = self.motion_mask_order == "sequence" or (self.motion_mask_order == "auto" and looks_ordered(chosen))
                if not ordered:
                    CONSOLE.log(
                        f"[bold yellow]{sources[members[0]].parent}: taken as photos in no order, where hardly any motion can be seen "
                        "(--motion-mask-order sequence overrules)."
                    )
                self._ordered &= ordered
                found = find_masks(chosen, scratch / str(len(self._clips)), self.mask_settings(unordered=not ordered))
                given = [sources[i].relative_to(folder).as_posix() for i in members]
                self._clips.append(placing.DatasetClip([image.name for image in chosen], given, found))
        self._ordered &= len(self._clips) == 1


@dataclass
class MotionVideo(_Motion, VideoToNerfstudioDataset):  # type: ignore[misc]
    """Process videos into a nerfstudio dataset.

    This script does the following:

    1. Converts the video into images and downscales them.
    2. Calculates the camera poses for each image using `COLMAP <https://colmap.github.io/>`_.
    3. With --motion-mask, masks what moves in the world, for the cameras and for training. Motion is measured at the full frame rate,
       and the images are evenly spaced frames with known numbers (motion/frames.json).
    """

    def _refuse(self) -> None:
        super()._refuse()
        if self.random_seed is not None or self.eval_random_seed is not None:
            raise SegmotionError("--motion-mask takes evenly spaced frames; leave out --random-seed and --eval-random-seed")
        if self.skip_image_processing:
            raise SegmotionError("--skip-image-processing cannot go with --motion-mask on a video: the frames are taken from it")
        if self.data.is_dir():
            raise SegmotionError(f"{self.data}: a folder, not a video; use 'ns-process-data images'")

    def main(self) -> None:
        """Process video into a nerfstudio dataset."""
        if not self.motion_mask:
            super().main()
            return
        if self.colmap_model_path != ColmapConverterToNerfstudioDataset.default_colmap_path() and not self.skip_colmap:
            raise RuntimeError("The --colmap-model-path can only be used when --skip-colmap is set.")
        self._place_masks()
        count = sum(len(clip.names) for clip in self._clips)
        if not self.skip_colmap:
            self._run_colmap()
        depths, log = self._export_depth()
        log = [f"Took {count} evenly spaced frames"] + log + self._save_transforms(count, depths)
        CONSOLE.log("[bold green]:tada: :tada: :tada: All DONE :tada: :tada: :tada:")
        for line in log:
            CONSOLE.log(line)

    def _find_clips(self, scratch: Path) -> None:
        from segmotion_plugin import pipeline
        from segmotion_plugin.ingest import load_frames_json

        self._own_images = [self.image_dir.name, *(f"{self.image_dir.name}_{2**i}" for i in range(1, self.num_downscales + 1))]
        placing.remove_images(self.output_dir, self._own_images)
        sets = [(self.data, "frame_train_" if self.eval_data is not None else "frame_")]
        if self.eval_data is not None:
            sets.append((self.eval_data, "frame_eval_"))
        for video, prefix in sets:
            out = scratch / str(len(self._clips))
            report = pipeline.masks(video, out, self.mask_settings(max(2, self.num_frames_target)))
            entries = load_frames_json(out)["images"]
            found = ClipMasks(out, [entry["name"] for entry in entries], report)
            self._size = (report["size"][0], report["size"][1])
            names = [f"{prefix}{number:05d}.png" for number in range(1, len(entries) + 1)]
            for old, new in zip(found.names, names, strict=True):
                self._write_image(out / "images" / old, new)
            self._clips.append(placing.DatasetClip(names, [f"{video.name}#{entry['number']}" for entry in entries], found))
        self._ordered = len(self._clips) == 1

    def _box(self) -> placing.Box | None:
        if not any(self.crop_factor):
            return None
        (width, height), (top, _, left, _) = self._size, self.crop_factor
        tall, wide = self._crop_shares()
        x, y = int(width * left), int(height * top)
        return x, y, min(width, x + max(1, int(width * wide))), min(height, y + max(1, int(height * tall)))

    def _write_image(self, source: Path, name: str) -> None:
        """The frame, cut where asked for, and its downscaled copies (area average, whole divisions as ffmpeg's)."""
        import cv2

        box = self._box()
        if box is None:
            self.image_dir.mkdir(parents=True, exist_ok=True)
            shutil.move(source, self.image_dir / name)
            image = read_rgb(self.image_dir / name) if self.num_downscales else np.zeros((1, 1, 3), np.uint8)
        else:
            image = placing.cut(read_rgb(source), box)
            write_png(self.image_dir / name, image, compression=1)
        for factor in (2**i for i in range(1, self.num_downscales + 1)):
            size = (max(1, image.shape[1] // factor), max(1, image.shape[0] // factor))
            small = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
            write_png(Path(f"{self.image_dir}_{factor}") / name, small, compression=1)


def _commands() -> Any:
    """nerfstudio's subcommands, with `images` and `video` replaced by ours."""
    members: list[Any] = [
        Annotated[MotionImages, tyro.conf.subcommand(name="images")],
        Annotated[MotionVideo, tyro.conf.subcommand(name="video")],
    ]
    for member in get_args(stock.Commands):
        if member.__origin__ not in (ImagesToNerfstudioDataset, VideoToNerfstudioDataset):
            members.append(member)
    return Union[tuple(members)]  # noqa: UP007


def entrypoint(argv: list[str] | None = None) -> int:
    """`ns-process-data`, extended. Exit status 2 for what the user can mend."""
    tyro.extras.set_accent_color("bright_yellow")
    program: Callable[..., Any] = tyro.cli
    try:
        program(_commands(), args=argv).main()
    except SegmotionError as error:
        CONSOLE.print(str(error), style="bold red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except (RuntimeError, ValueError) as error:
        CONSOLE.log("[bold red]" + str(error.args[0] if error.args else error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(entrypoint())
