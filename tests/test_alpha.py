"""Images from which somebody cut the background out: where alpha is 0 they are not used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from segmotion_colmap.images import write_image_masks

from segmotion_plugin import pipeline
from segmotion_plugin.extra_masks import read_alpha
from segmotion_plugin.files import read_json, write_png
from segmotion_plugin.mask_files import rewrite_keep
from segmotion_plugin.masks import read_grey
from segmotion_plugin.settings import MaskSettings
from segmotion_plugin.workspace import Workspace

H, W = 48, 64
ALPHA = np.full((H, W), 255, np.uint8)
ALPHA[:12] = 0
ALPHA[12:20] = 1  # nearly transparent: it is there
UNMASKED = MaskSettings(masks="none", quiet=True)


def pictures(form: str) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(2):
        rgb = Image.fromarray(rng.integers(0, 255, (H, W, 3), dtype=np.uint8))
        if form == "palette":
            index = rng.integers(1, 9, (H, W)).astype(np.uint8)
            image = Image.fromarray(np.where(ALPHA > 0, index, np.uint8(0))).convert("P")
            image.putpalette(rng.integers(0, 255, 768).astype(np.uint8).tobytes())
        else:
            image = rgb.convert("L" if form == "LA" else "RGB")
            image.putalpha(Image.fromarray(ALPHA))
        made.append(image)
    return made


@pytest.mark.parametrize(("form", "suffix"), [("RGBA", "png"), ("RGBA", "tif"), ("RGBA", "webp"), ("LA", "png"), ("palette", "png")])
def test_what_is_wholly_transparent_is_left_out(form, suffix, tmp_path):
    (tmp_path / "in").mkdir()
    for number, image in enumerate(pictures(form)):
        options = {"palette": {"transparency": 0}}.get(form, {"lossless": True, "exact": True} if suffix == "webp" else {})
        image.save(tmp_path / "in" / f"{number}.{suffix}", **options)
    report = pipeline.masks(tmp_path / "in", tmp_path / "out", UNMASKED)
    expected = np.where(ALPHA > 0, 255, 0)
    for entry in read_json(tmp_path / "out" / "motion" / "frames.json")["images"]:
        assert np.array_equal(read_grey(tmp_path / "out" / "colmap_masks" / f"{entry['name']}.png"), expected)
        assert np.array_equal(read_grey(tmp_path / "out" / "masks" / f"{Path(entry['name']).stem}.png"), expected)
        assert np.array_equal(read_alpha(tmp_path / "out" / "images" / entry["name"]) > 0, ALPHA > 0)
    assert (report["masks"]["alpha_images"], report["masks"]["alpha_share"]) == (2, 0.25)
    assert sum("2 of 2 images are transparent in 25.0 %" in warning for warning in report["warnings"]) == 1
    rewrite_keep(Workspace.open(tmp_path / "out"), None, 3.0)
    assert np.array_equal(read_grey(tmp_path / "out" / "colmap_masks" / f"{entry['name']}.png"), expected)


def test_alpha_is_combined_with_movers_and_own_masks_and_opaque_images_say_nothing(walker_clip, tmp_path):
    own = np.full((180, 320), 255, np.uint8)
    own[:, :20] = 0
    write_png(tmp_path / "own" / "mask.png", own)
    alpha = np.full((180, 320), 255, np.uint8)
    alpha[-15:] = 0
    for number, frame in enumerate(walker_clip.frames[:8]):
        write_png(tmp_path / "cut" / f"{number}.png", np.dstack([frame, alpha]))
        write_png(tmp_path / "opaque" / f"{number}.png", np.dstack([frame, np.full_like(alpha, 255)]))
    settings = MaskSettings(quiet=True, motion="geometric", dilate=0, work_size=160)
    found = {}
    for name, extra in (("cut", tmp_path / "own"), ("opaque", None)):
        chosen = MaskSettings(**{**vars(settings), "extra_masks": extra})
        found[name] = write_image_masks(tmp_path / name, tmp_path / f"{name}_masks", chosen, motion=tmp_path / f"{name}_motion")
        said = any("transparent" in warning for warning in found[name].warnings)
        assert said == (name == "cut")
    for number in range(8):
        plain = read_grey(tmp_path / "opaque_masks" / f"{number}.png.png")
        both = read_grey(tmp_path / "cut_masks" / f"{number}.png.png")
        assert np.array_equal(both > 0, (plain > 0) & (own > 0) & (alpha > 0))
    assert min(found["opaque"].masked_share) < 1 and max(found["opaque"].masked_share) > 0
