"""Adapters on the real libraries: shapes, order of frames, batches, memory, and equality with the libraries' own calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from segmotion_plugin.densify import sam2_frames
from segmotion_plugin.densify.sam2_frames import NormalisedFrames
from segmotion_plugin.densify.sam2_package import Sam2Package, build_model
from segmotion_plugin.densify.sam2_transformers import Sam2Transformers
from segmotion_plugin.densify.segmenter import MaskPrompt
from segmotion_plugin.depth.base import depth_of_tracks, predict_clip
from segmotion_plugin.depth.depth_anything import DepthAnything, inner_size
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.pretrained import load_pretrained
from segmotion_plugin.semantics.base import features_at
from segmotion_plugin.semantics.dinov2 import DinoV2, SegAnyMoFeatures, interpolated_positions
from segmotion_plugin.tracks import Tracks

SEGMENTERS = {"package": (Sam2Package, tiny.sam2_package), "transformers": (Sam2Transformers, tiny.sam2_transformers)}
FRAMES = tiny.frames(7)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=list(SEGMENTERS))
def segmenter(request: pytest.FixtureRequest) -> Any:
    adapter, build = SEGMENTERS[request.param]
    return adapter(build(), "cpu")


def box(left: int, top: int, size: int = 16) -> np.ndarray:
    mask = np.zeros((48, 64), bool)
    mask[top : top + size, left : left + size] = True
    return mask


def test_clicks_are_repeatable_and_depend_on_the_frame_and_the_points(segmenter: Any) -> None:
    segmenter.open(FRAMES)
    point, yes = np.array([[20.5, 20.5]]), np.array([True])
    first = segmenter.click(1, point, yes)
    assert first.shape == (48, 64) and first.dtype == bool
    other_frame = segmenter.click(2, point, yes)
    two_points = segmenter.click(1, np.array([[20.5, 20.5], [50.0, 5.0]]), np.array([True, False]))
    np.testing.assert_array_equal(segmenter.click(1, point, yes), first)
    assert two_points.shape == (48, 64) and not np.array_equal(first, other_frame)


def test_all_objects_are_followed_through_every_frame_once(segmenter: Any) -> None:
    segmenter.open(FRAMES)
    prompts = [MaskPrompt(3, 2, box(10, 10)), MaskPrompt(7, 4, box(30, 20)), MaskPrompt(3, 5, box(14, 10))]
    found = dict(segmenter.propagate(prompts, 0, 7))
    assert sorted(found) == list(range(7))
    for scores in found.values():
        assert set(scores) == {3, 7}
        assert all(score.shape == (48, 64) and score.dtype == np.float32 for score in scores.values())
    for prompt in prompts:  # a prompt's own frame shows the prompt
        mask = found[prompt.frame][prompt.object_id] > 0
        assert (mask & prompt.dynamic).sum() > 0.6 * (mask | prompt.dynamic).sum()


def test_only_the_asked_frames_are_followed_and_read(segmenter: Any) -> None:
    read = []

    class Counting(list):  # type: ignore[type-arg]
        def __getitem__(self, index: Any) -> Any:
            read.append(index)
            return super().__getitem__(index)

    segmenter.open(Counting(FRAMES))
    frames = [frame for frame, _ in segmenter.propagate([MaskPrompt(1, 4, box(10, 10)), MaskPrompt(2, 0, box(5, 5))], 3, 6)]
    assert sorted(frames) == [3, 4, 5]
    assert set(read) == {3, 4, 5}
    assert list(segmenter.propagate([MaskPrompt(1, 0, box(5, 5))], 3, 6)) == []


def test_old_memories_are_forgotten(segmenter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = __import__(type(segmenter).__module__, fromlist=["_forget"])
    kept = []
    original = module._forget

    def watch(state: Any, frame: int) -> None:
        original(state, frame)
        outputs = state["output_dict_per_obj"] if isinstance(state, dict) else state.output_dict_per_obj
        kept.append(max(len(output["non_cond_frame_outputs"]) for output in outputs.values()))

    monkeypatch.setattr(module, "STALE", 2)
    monkeypatch.setattr(module, "_forget", watch)
    segmenter.open(FRAMES)
    assert len(list(segmenter.propagate([MaskPrompt(1, 0, box(10, 10))], 0, 7))) == 7
    assert max(kept) <= 3
    assert sam2_frames.STALE == 16


def test_frames_on_demand_give_what_transformers_gives_for_a_whole_video() -> None:
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    model = tiny.sam2_transformers()
    adapter = Sam2Transformers(model, "cpu")
    adapter.open(FRAMES)
    found = dict(adapter.propagate([MaskPrompt(1, 2, box(10, 10))], 0, 7))
    lazy = NormalisedFrames(FRAMES, 0, 7, 128)
    session = Sam2VideoInferenceSession(torch.stack([lazy[t] for t in range(7)]), 48, 64, dtype=torch.float32)
    mask = torch.from_numpy(box(10, 10))[None, None].float()
    mask = torch.nn.functional.interpolate(mask, (128, 128), mode="bilinear", antialias=True)
    session.add_mask_inputs(session.obj_id_to_idx(1), 2, (mask >= 0.5).float())
    session.obj_with_new_inputs = [1]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        model(session, frame_idx=2)
        expected = {o.frame_idx: o.pred_masks[0, 0].float() for o in model.propagate_in_video_iterator(session, 2)}
    for frame in range(2, 7):
        np.testing.assert_allclose(found[frame][1], sam2_frames.resized(expected[frame].numpy(), 48, 64), atol=1e-4)


def test_frames_on_demand_give_what_the_package_gives_for_a_folder(tmp_path: Path) -> None:
    from PIL import Image

    smooth = [np.asarray(Image.fromarray(frame[:6, :8]).resize((64, 48))) for frame in tiny.frames(4)]
    for number, frame in enumerate(smooth):
        Image.fromarray(frame).resize((128, 128)).save(tmp_path / f"{number}.jpg", quality=100, subsampling=0)
    adapter = Sam2Package(tiny.sam2_package(), "cpu")
    # The package reads square JPEGs; the adapter gets the very pixels.
    pictures = [np.asarray(Image.open(tmp_path / f"{number}.jpg")) for number in range(4)]
    mask = np.kron(box(10, 10), np.ones((1, 1), bool))
    large = np.asarray(Image.fromarray(mask).resize((128, 128)))
    adapter.open(pictures)
    found = dict(adapter.propagate([MaskPrompt(1, 1, large)], 0, 4))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        state = adapter.model.init_state(str(tmp_path))
        adapter.model.add_new_mask(state, 1, 1, large)
        for frame, _, logits in adapter.model.propagate_in_video(state):
            np.testing.assert_allclose(found[frame][1], logits[0, 0].float().numpy(), atol=1e-3)


def test_a_checkpoint_of_another_size_and_an_unknown_size_are_told(tmp_path: Path) -> None:
    torch.save({"model": tiny.sam2_package().state_dict()}, tmp_path / "tiny.pt")
    with pytest.raises(SegmotionError, match=r"does not hold the weights of SAM 2.1 \(tiny\)"):
        Sam2Package.load("tiny", weights=tmp_path / "tiny.pt", device="cpu")
    with pytest.raises(SegmotionError, match="there is no 'huge'"):
        build_model("huge")


def test_depth_of_a_batch_is_that_of_its_frames() -> None:
    model = DepthAnything(tiny.depth_anything(), "cpu", short_side=70)
    pictures = np.stack(tiny.frames(3, 61, 100))
    together = model.predict(pictures)
    assert together.shape == (3, 61, 100) and together.dtype == np.float32
    one_by_one = np.concatenate([model.predict(picture[None]) for picture in pictures])
    np.testing.assert_allclose(together, one_by_one, atol=1e-4)
    told: list[int] = []
    maps = list(predict_clip(model, list(pictures), [0, 2], batch=1, progress=told.append))
    assert [frame for frame, _ in maps] == [0, 2] and told == [1, 2]
    np.testing.assert_allclose(maps[1][1], together[2], atol=1e-4)
    assert [frame for frame, _ in predict_clip(model, list(pictures), batch=2)] == [0, 1, 2]
    assert inner_size(480, 854) == (518, 924) and inner_size(10, 1000, 70) == (70, 7000)


class Ramp:
    """Disparity that grows from left to right."""

    name = "ramp"

    def predict(self, frames: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.linspace(-3, 5, frames.shape[2], dtype=np.float32), frames.shape[:3])


def test_depth_at_tracks_is_a_distance_and_unknown_where_hidden() -> None:
    xy = np.array([[[5.0, 10], [60, 10]], [[60, 20], [5, 20]]], np.float32)
    visible = np.array([[True, True], [True, False]])
    depth = depth_of_tracks(predict_clip(Ramp(), FRAMES[:2]), Tracks.from_dense(xy, visible))
    assert depth.shape == (4,) and np.isnan(depth[3])
    assert depth[0] > depth[1] > 0.9 and np.isclose(depth[1], depth[2])


def test_dinov2_tokens_are_those_of_the_library_and_follow_the_points() -> None:
    model = tiny.dinov2()
    network = DinoV2(model, "cpu", long_side=70)
    picture = tiny.frames(1, 70, 70)[0]
    grid = network(picture)
    assert grid.shape == (5, 5, 24)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    pixels = (torch.from_numpy(picture).permute(2, 0, 1)[None] / 255 - mean) / std
    with torch.no_grad():
        tokens = model(pixel_values=pixels).last_hidden_state[0, 1:]
    np.testing.assert_allclose(grid.reshape(25, 24), tokens.numpy(), atol=1e-4)
    xy = np.array([[[7.0, 7.0]], [[49.0, 21.0]]], np.float32)
    tracks = Tracks.from_dense(xy, np.ones((2, 1), bool))
    found = features_at(network, [picture], tracks)
    np.testing.assert_allclose(found, grid[[0, 1], [0, 3]], atol=1e-5)


def test_keys_are_those_of_the_last_block_with_dimension_before_head() -> None:
    model = tiny.dinov2()
    with torch.no_grad():  # without positions the two ways of interpolating them cannot differ
        model.embeddings.position_embeddings.zero_()
    features = SegAnyMoFeatures(model, "cpu")
    features.stride = 14
    picture = tiny.frames(1, 70, 98)[0]
    keys: list[torch.Tensor] = []
    hook = features.key.register_forward_hook(lambda _m, _i, output: keys.append(output))
    DinoV2(model, "cpu", long_side=98)(picture)
    hook.remove()
    heads_first = keys[-1][0, 1:].reshape(5, 7, 2, 12)
    expected = heads_first.transpose(2, 3).reshape(5, 7, 24).numpy()
    np.testing.assert_allclose(features(picture), expected, atol=2e-3)


def test_a_stride_of_seven_gives_the_papers_grid() -> None:
    features = SegAnyMoFeatures(tiny.dinov2(), "cpu")
    assert features(tiny.frames(1, 48, 85)[0]).shape == (1 + (56 - 14) // 7, 1 + (98 - 14) // 7, 24)
    positions = torch.randn(1, 1 + 25, 24)
    assert interpolated_positions(positions, 9, 13).shape == (1, 1 + 9 * 13, 24)


def test_cells_are_read_not_interpolated_for_the_paper() -> None:
    features = SegAnyMoFeatures(tiny.dinov2(), "cpu")
    picture = tiny.frames(1, 56, 70)[0]
    grid = features(picture)
    xy = np.array([[[69.9, 55.9]], [[0.1, 0.1]], [[35.0, 28.0]]], np.float32)
    found = features_at(features, [picture], Tracks.from_dense(xy, np.ones((3, 1), bool)))
    rows, columns = grid.shape[:2]
    at = [(rows - 1, columns - 1), (0, 0), (int(28 * rows / 56), int(35 * columns / 70))]
    np.testing.assert_array_equal(found, np.stack([grid[cell] for cell in at]))


def test_published_folders_are_loaded_through_the_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segmotion_plugin import weights

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, build in (("dinov2-base", tiny.dinov2), ("depth-anything-v2-large", tiny.depth_anything)):
        build().save_pretrained(tmp_path / name)
        assert not any(sha256 for _, sha256 in weights.CATALOGUE[name].files)
    picture = tiny.frames(1)[0]
    direct = DinoV2(tiny.dinov2(), "cpu")(picture)
    np.testing.assert_allclose(DinoV2.load("dinov2-base", weights_dir=tmp_path, device="cpu")(picture), direct, atol=1e-5)
    depth = DepthAnything.load("depth-anything-v2-large", weights_dir=tmp_path, device="cpu")
    assert depth.predict(picture[None]).shape == (1, 48, 64)
    tiny.sam2_transformers().save_pretrained(tmp_path / "sam2")
    assert Sam2Transformers.load(str(tmp_path / "sam2"), device="cpu").size == 128
    with pytest.raises(SegmotionError, match="no depth model is called"):
        DepthAnything.load("deeper", device="cpu")


def test_folders_that_do_not_hold_the_model_are_one_clear_line(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from transformers import Dinov2Config, Dinov2Model

    tiny.dinov2().save_pretrained(tmp_path / "good")
    tensors, config = (tmp_path / "good" / name for name in ("model.safetensors", "config.json"))
    load_pretrained("Dinov2Model", tmp_path / "good", "DINOv2")
    content, words = tensors.read_bytes(), config.read_text()
    wide = Dinov2Config(hidden_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=70, patch_size=14)
    Dinov2Model(wide).save_pretrained(tmp_path / "wide")
    save_file({"another": torch.zeros(3)}, tmp_path / "another.safetensors", metadata={"format": "pt"})
    for replaced, message in (
        (content[:-100], "model.safetensors: damaged"),
        (b"", "model.safetensors: damaged"),
        ((tmp_path / "wide" / "model.safetensors").read_bytes(), "of DINOv2: its tensors have other shapes"),
        ((tmp_path / "another.safetensors").read_bytes(), "of DINOv2: 42 tensors are missing"),
    ):
        tensors.write_bytes(replaced)
        with pytest.raises(SegmotionError, match=message) as error:
            load_pretrained("Dinov2Model", tmp_path / "good", "DINOv2")
        assert str(tmp_path) in str(error.value) and len(str(error.value).splitlines()) == 1
    tensors.write_bytes(content)
    config.write_text(words[: len(words) // 2])
    with pytest.raises(SegmotionError, match="a file is damaged"):
        load_pretrained("Dinov2Model", tmp_path / "good", "DINOv2")
    with pytest.raises(SegmotionError, match="needs transformers 99 or newer"):
        load_pretrained("ModelOfTheFuture", tmp_path / "good", "the future", "99")


@pytest.mark.parametrize("adapter", [DinoV2, SegAnyMoFeatures])
def test_memory_that_runs_out_for_one_frame_is_told(adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.dinov2()

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(model.encoder.layer[0], "forward", full)
    with pytest.raises(SegmotionError, match=f"out of memory in {adapter(model, 'cpu').name}"):
        adapter(model, "cpu")(tiny.frames(1)[0])
