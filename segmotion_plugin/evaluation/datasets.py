"""Readers of benchmark sequences: images and true object labels per frame.

Two layouts are understood: `ROOT/SEQUENCE/{images,masks}`, and that of the DAVIS downloads,
`ROOT/JPEGImages/480p/SEQUENCE` with `ROOT/Annotations/480p/SEQUENCE`. Images and masks belong together by file stem.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segmotion_plugin.clip import IMAGE_SUFFIXES, natural_key
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.masks import read_grey

_DAVIS16_MOVING = (
    "blackswan bmx-trees car-shadow cows dance-twirl dog drift-chicane drift-straight goat horsejump-high kite-surf libby "
    "motocross-jump paragliding-launch parkour soapbox"
).split()
SEQUENCE_LISTS: dict[str, list[str]] = {
    "davis16-moving": _DAVIS16_MOVING,
    "davis16-val": sorted([*_DAVIS16_MOVING, "breakdance", "camel", "car-roundabout", "scooter-black"]),
    "davis17-moving": sorted(
        [*_DAVIS16_MOVING, "bike-packing", "dogs-jump", "judo", "mbike-trick", "pigs", "shooting"]
    ),
}
"""Named selections: the validation split of DAVIS 2016, and the sequences of DAVIS 2016 and 2017 whose labelled objects
move (Dave et al., "Towards Segmenting Anything That Moves", ICCV workshops 2019)."""


@dataclass(frozen=True)
class VideoSequence:
    """A sequence with truth on every frame.

    Attributes:
        name: the sequence's name.
        images: T image files in frame order.
        masks: T mask files in the same order.
    """

    name: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def images_folder(self) -> Path:
        return self.images[0].parent

    @functools.cached_property
    def values(self) -> list[int]:
        """Values that the mask files hold besides 0."""
        found = np.zeros(256, dtype=bool)
        for path in self.masks:
            found[np.unique(read_grey(path))] = True
        return [int(value) for value in np.flatnonzero(found) if value]

    @property
    def void(self) -> int | None:
        """255 where the files hold other ids beside it (pixels that DAVIS 2017 does not score), else None."""
        return 255 if 255 in self.values and len(self.values) > 1 else None

    @property
    def has_ids(self) -> bool:
        """Whether the files tell objects apart; masks of 0 and 255 tell only that something moves."""
        return bool(self.values) and self.values != [255]

    def labels(self) -> Iterator[np.ndarray]:
        """T label images H×W uint8, one at a time: 0 = static, k = object k (1 in masks of 0 and 255), `void` where set."""
        for path in self.masks:
            labels = read_grey(path)
            yield labels if self.has_ids else (labels > 0).astype(np.uint8)

    def unscored(self) -> Iterator[np.ndarray] | None:
        """T masks H×W bool of the pixels that the truth does not score, one at a time; None where it scores all."""
        return (labels == self.void for labels in self.labels()) if self.void is not None else None

    def dynamic(self) -> Iterator[np.ndarray]:
        """T masks H×W bool of all objects together, one at a time; void pixels are static."""
        for labels in self.labels():
            yield (labels > 0) & (labels != self.void) if self.void is not None else labels > 0


def davis_sequences(
    root: Path | str,
    names: Iterable[str] | str | Path | None = None,
    *,
    resolution: str = "480p",
    annotations: str = "Annotations",
) -> list[VideoSequence]:
    """The sequences under a root folder, in either layout, sorted by name.

    Args:
        root: the data set's folder.
        names: sequences or named lists of `SEQUENCE_LISTS` to take, or a text file that lists sequences (a name per line, or
            the DAVIS 2016 form with image and mask paths); all that are there when absent.
        resolution: folder between `JPEGImages` and the sequences of the official layout.
        annotations: `Annotations`, or `Annotations_unsupervised` for the objects of the unsupervised DAVIS 2017 task.

    Raises:
        SegmotionError: no such folder, neither layout, a sequence that is not there, or images and masks that do not pair up.
    """
    root = Path(root)
    if not root.is_dir():
        raise SegmotionError(f"{root}: no such folder of sequences")
    official = root / "JPEGImages" / resolution
    if official.is_dir():
        truth_root = root / annotations / resolution
        if not truth_root.is_dir():
            raise SegmotionError(f"{truth_root}: no such folder; {root} has images in the DAVIS layout but no masks there")
        folders = {path.name: (path, truth_root / path.name) for path in official.iterdir() if path.is_dir()}
    else:
        folders = {
            path.name: (path / "images", path / "masks") for path in root.iterdir() if (path / "images").is_dir()
        }
    if not folders:
        raise SegmotionError(
            f"{root}: no sequences found.\nExpected SEQUENCE/images and SEQUENCE/masks, or "
            f"JPEGImages/{resolution}/SEQUENCE and {annotations}/{resolution}/SEQUENCE."
        )
    wanted = sorted(folders) if names is None else _names(names)
    missing = [name for name in wanted if name not in folders]
    if missing:
        raise SegmotionError(
            f"{root}: no sequence named {', '.join(missing)}.\nThere are: {', '.join(sorted(folders))}"
        )
    return [paired_sequence(name, *folders[name]) for name in wanted]


def rooted_sequences(
    roots: Sequence[Path | str], names: Iterable[str] | str | Path | None = None, **layout: str
) -> list[tuple[str, VideoSequence]]:
    """The sequences of one or more root folders, root by root, each with its root's name.

    Args:
        roots: data set folders with names and sequences of their own.
        names: as for `davis_sequences`; with several roots each must be in one of them.
        layout: `resolution` and `annotations` of `davis_sequences`.

    Raises:
        SegmotionError: as `davis_sequences`; no root; roots or sequences of the same name.
    """
    labels = [Path(root).resolve().name for root in roots]
    if not roots:
        raise SegmotionError("no root folder of sequences was given; name one or more")
    if len(set(labels)) < len(labels):
        raise SegmotionError(f"roots need names of their own to tell their results apart; got {', '.join(labels)}")
    if len(roots) == 1:
        return [(labels[0], sequence) for sequence in davis_sequences(roots[0], names, **layout)]
    pairs = [(label, item) for label, root in zip(labels, roots, strict=True) for item in davis_sequences(root, **layout)]
    found = [item.name for _, item in pairs]
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise SegmotionError(f"{', '.join(twice)}: in more than one of {', '.join(labels)}; evaluate them apart, each with its --out")
    wanted = found if names is None else _names(names)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise SegmotionError(f"{', '.join(labels)}: no sequence named {', '.join(missing)}.\nThere are: {', '.join(sorted(found))}")
    return [pair for pair in pairs if pair[1].name in wanted]


def every_nth(pairs: Sequence[tuple[str, VideoSequence]], every: int) -> list[tuple[str, VideoSequence]]:
    """Every so many of each root's sequences, beginning with the first; `pairs` as from `rooted_sequences`.

    Raises:
        SegmotionError: a step below 1.
    """
    if every < 1:
        raise SegmotionError(f"every must be 1 or more, got {every}")
    roots = dict.fromkeys(root for root, _ in pairs)
    return [pair for root in roots for pair in [pair for pair in pairs if pair[0] == root][::every]]


def paired_sequence(name: str, images: Path, masks: Path) -> VideoSequence:
    """A sequence from a folder of images and a folder of masks with the same stems.

    Raises:
        SegmotionError: a folder is missing or empty, or a file has no partner.
    """
    image_files, mask_files = list_images(images), {path.stem: path for path in list_images(masks)}
    for without, others, what in (
        ([path.stem for path in image_files if path.stem not in mask_files], masks, "mask"),
        (sorted(set(mask_files) - {path.stem for path in image_files}), images, "image"),
    ):
        if without:
            raise SegmotionError(
                f"{others}: {len(without)} of the frames of {name} have no {what} here, the first is {without[0]}"
            )
    return VideoSequence(name, tuple(image_files), tuple(mask_files[path.stem] for path in image_files))


def list_images(folder: Path | str) -> list[Path]:
    """Image files of a folder in natural order.

    Raises:
        SegmotionError: no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SegmotionError(f"{folder}: no such folder")
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not files:
        raise SegmotionError(f"{folder}: no images in this folder")
    return sorted(files, key=lambda path: (natural_key(path.name), path.name))


def label_files(folder: Path | str, count: int) -> Iterator[np.ndarray]:
    """Predicted label images H×W uint8 of a folder in natural order of their names, one at a time.

    Masks of 0 and 255 become 0 and 1, so that they count as one object.

    Raises:
        SegmotionError: no such folder, or not `count` images in it.
    """
    files = list_images(folder)
    if len(files) != count:
        raise SegmotionError(f"{folder}: {len(files)} predicted masks for {count} frames; one per frame is needed")
    for path in files:
        labels = read_grey(path)
        yield np.where(labels == 255, np.uint8(1), labels)


def object_files(folder: Path | str, count: int) -> Iterator[np.ndarray]:
    """As `label_files`, without stuff: in a pipeline's `objects`, 255 is what moves without being an object.

    Raises:
        SegmotionError: as `label_files`.
    """
    if Path(folder).name != "objects":
        yield from label_files(folder, count)
        return
    for path, _ in zip(list_images(folder), label_files(folder, count), strict=True):
        labels = read_grey(path)
        yield np.where(labels == 255, np.uint8(0), labels)


def _names(names: Iterable[str] | str | Path) -> list[str]:
    """Names of sequences from a named list, a list file, or an iterable of names and named lists."""
    if not isinstance(names, str | Path):
        return list(dict.fromkeys(name for entry in names for name in SEQUENCE_LISTS.get(entry, [entry])))
    if str(names) in SEQUENCE_LISTS:
        return SEQUENCE_LISTS[str(names)]
    path = Path(names)
    if not path.is_file():
        raise SegmotionError(f"{names}: neither a list file nor one of {', '.join(sorted(SEQUENCE_LISTS))}")
    found: dict[str, None] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = line.split()
        if entry:  # "blackswan", or "/JPEGImages/480p/blackswan/00000.jpg /Annotations/480p/blackswan/00000.png"
            found[Path(entry[0]).parent.name if Path(entry[0]).suffix else entry[0]] = None
    if not found:
        raise SegmotionError(f"{path}: the list names no sequence")
    return list(found)
