from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation import datasets
from segmotion_plugin.files import write_png


def _write(folder: Path, names: list[str], values: list[np.ndarray]) -> None:
    for name, value in zip(names, values, strict=True):
        write_png(folder / name, value)


def _frames(count: int, shape: tuple[int, ...] = (6, 8, 3)) -> list[np.ndarray]:
    return [np.full(shape, 10 * t, np.uint8) for t in range(count)]


def test_plain_layout_in_natural_order(tmp_path: Path) -> None:
    masks = [np.zeros((6, 8), np.uint8) for _ in range(3)]
    masks[2][1:3] = 255
    _write(tmp_path / "goat" / "images", ["2.png", "10.png", "1.png"], _frames(3))
    _write(tmp_path / "goat" / "masks", ["2.png", "10.png", "1.png"], masks)
    (tmp_path / "notes").mkdir()
    (sequence,) = datasets.davis_sequences(tmp_path)
    assert sequence.name == "goat" and len(sequence) == 3
    assert [path.name for path in sequence.images] == ["1.png", "2.png", "10.png"]
    assert [path.name for path in sequence.masks] == ["1.png", "2.png", "10.png"]
    assert not sequence.has_ids and sequence.void is None
    assert [int(labels.max()) for labels in sequence.labels()] == [1, 0, 0]
    assert [int(mask.sum()) for mask in sequence.dynamic()] == [16, 0, 0]


def test_official_layout_keeps_object_ids_of_palette_images(tmp_path: Path) -> None:
    labels = np.zeros((6, 8), np.uint8)
    labels[:2], labels[4:], labels[3, 0] = 1, 2, 255
    _write(tmp_path / "JPEGImages" / "480p" / "dogs", ["00000.png", "00001.png"], _frames(2))
    for truth in ("Annotations", "Annotations_unsupervised"):
        folder = tmp_path / truth / "480p" / "dogs"
        folder.mkdir(parents=True)
        for name, values in (("00000.png", labels), ("00001.png", np.where(labels == 255, 0, labels))):
            image = Image.fromarray(values.astype(np.uint8), mode="P")
            image.putpalette([0, 0, 0, 236, 95, 103, 249, 145, 87] + [0, 0, 0] * 253)
            image.save(folder / name)
    (sequence,) = datasets.davis_sequences(tmp_path, ["dogs"], annotations="Annotations_unsupervised")
    assert sequence.has_ids and sequence.void == 255 and sequence.values == [1, 2, 255]
    np.testing.assert_array_equal(next(sequence.labels()), labels)
    assert next(sequence.dynamic()).sum() == 32  # the void pixel is not part of it
    assert sequence.masks[0].parent.parent.parent.name == "Annotations_unsupervised"


def test_selections(tmp_path: Path) -> None:
    for name in ("bear", "camel", "dog"):
        _write(tmp_path / name / "images", ["0.png"], _frames(1))
        _write(tmp_path / name / "masks", ["0.png"], _frames(1, (6, 8)))
    listed = tmp_path / "list.txt"
    listed.write_text("/JPEGImages/480p/dog/00000.jpg /Annotations/480p/dog/00000.png\ncamel\n\ndog\n")

    def names(selection) -> list[str]:
        return [sequence.name for sequence in datasets.davis_sequences(tmp_path, selection)]

    assert names(None) == ["bear", "camel", "dog"]
    assert names(["dog", "bear"]) == ["dog", "bear"]
    assert names(listed) == names(str(listed)) == ["dog", "camel"]
    for moving in ("davis16-moving", ["davis16-moving"]):
        with pytest.raises(SegmotionError, match="no sequence named blackswan, bmx-trees.*\nThere are: bear, camel, dog"):
            names(moving)
    with pytest.raises(SegmotionError, match="neither a list file nor one of davis16-moving, davis16-val"):
        names("davis99")


def test_published_lists_have_their_published_lengths() -> None:
    lengths = {name: len(set(names)) for name, names in datasets.SEQUENCE_LISTS.items()}
    assert lengths == {"davis16-moving": 16, "davis16-val": 20, "davis17-moving": 22}


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SegmotionError, match="no such folder of sequences"):
        datasets.davis_sequences(tmp_path / "nowhere")
    with pytest.raises(SegmotionError, match="no sequences found.\nExpected SEQUENCE/images"):
        datasets.davis_sequences(tmp_path)
    _write(tmp_path / "goat" / "images", ["0.png", "1.png"], _frames(2))
    with pytest.raises(SegmotionError, match="masks: no such folder"):
        datasets.davis_sequences(tmp_path)
    _write(tmp_path / "goat" / "masks", ["0.png"], _frames(1, (6, 8)))
    with pytest.raises(SegmotionError, match="masks: 1 of the frames of goat have no mask here, the first is 1"):
        datasets.davis_sequences(tmp_path)
    _write(tmp_path / "goat" / "masks", ["1.png", "7.png"], _frames(2, (6, 8)))
    with pytest.raises(SegmotionError, match="images: 1 of the frames of goat have no image here, the first is 7"):
        datasets.davis_sequences(tmp_path)
    (tmp_path / "JPEGImages" / "480p").mkdir(parents=True)
    with pytest.raises(SegmotionError, match="Annotations/480p: no such folder"):
        datasets.davis_sequences(tmp_path)


def test_predicted_masks_of_255_count_as_one_object(tmp_path: Path) -> None:
    _write(tmp_path, ["a.png", "b.png"], [np.full((4, 4), 255, np.uint8), np.full((4, 4), 3, np.uint8)])
    assert [int(labels[0, 0]) for labels in datasets.label_files(tmp_path, 2)] == [1, 3]
    with pytest.raises(SegmotionError, match="2 predicted masks for 3 frames"):
        list(datasets.label_files(tmp_path, 3))
