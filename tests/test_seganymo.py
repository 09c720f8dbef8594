"""The paper's network: outputs of the reference implementation, its quirks, and what its attention costs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.motion.seganymo import SegAnyMo, augment, sample_depth
from segmotion_plugin.motion.seganymo_layers import attend

INPUTS = ("traj", "mask", "depth", "visib_value", "confi_value", "dino")
SHARED = Path(os.environ.get("SEGMOTION_SHARED", Path(__file__).resolve().parents[2] / "shared"))
GOLDEN = SHARED / "golden"


def make_inputs(seed: int, tracks: int = 23, frames: int = 7, hidden: float = 0.3) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    mask = rng.random((1, 1, tracks, frames)) < hidden
    mask[0, 0, 0] = True  # a track that is never visible
    arrays = {
        "traj": rng.uniform(-1, 1, (1, 2, tracks, frames)),
        "mask": mask,
        "depth": rng.random((1, 1, 20, 30, frames)),
        "visib_value": rng.random((1, 1, tracks, frames)),
        "confi_value": rng.random((1, 1, tracks, frames)),
        "dino": rng.normal(size=(1, 768, tracks, 1)),
    }
    return {name: torch.from_numpy(np.asarray(array, np.float32)) for name, array in arrays.items()}


def make_model(seed: int = 0, fused: bool = True) -> SegAnyMo:
    torch.manual_seed(seed)
    return SegAnyMo(fused=fused)


def reference_cases() -> list[str]:
    path = GOLDEN / "seganymo_reference_io.npz"
    return sorted({key.split(".")[0] for key in np.load(path).files}) if path.is_file() else []


@pytest.mark.parametrize("case", reference_cases() or [pytest.param(None, id="none-at-hand")])
def test_outputs_equal_the_reference_implementation(case: str | None) -> None:
    if case is None:  # without the recorded files the layout of the checkpoint is still checked
        assert sum(parameter.numel() for parameter in make_model().parameters()) == 3_443_809
        return
    data = np.load(GOLDEN / "seganymo_reference_io.npz")
    model = SegAnyMo.from_checkpoint(GOLDEN / "seganymo_random_weights.pth")
    outputs = model.outputs(**{name: data[f"{case}.{name}"] for name in INPUTS})
    for name in ("augmented", "encoded", "probability"):
        np.testing.assert_allclose(getattr(outputs, name).numpy(), data[f"{case}.{name}"], atol=1e-5, rtol=0)


def test_the_network_has_the_parameters_of_the_released_one() -> None:
    model = make_model()
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_443_809
    assert sum(parameter.numel() for parameter in model.joint_encoder.parameters()) == 17_248


def test_fused_attention_gives_what_plain_attention_gives() -> None:
    inputs = make_inputs(1)
    fused, plain = make_model(fused=True).outputs(**inputs), make_model(fused=False).outputs(**inputs)
    torch.testing.assert_close(fused.encoded, plain.encoded, atol=1e-5, rtol=0)
    torch.testing.assert_close(fused.probability, plain.probability, atol=1e-6, rtol=0)


@pytest.mark.parametrize("width", [4, 8, 16, 24])
def test_attention_equals_its_formula(width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    q, k, v = (torch.randn(2, 3, length, width, generator=generator) for length in (5, 9, 9))
    mask = torch.rand(2, 1, 1, 9, generator=generator) > 0.4
    mask[..., 0] = True
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / width**0.5
    expected = torch.softmax(torch.where(mask, scores, torch.tensor(float("-inf"))), -1) @ v
    torch.testing.assert_close(attend(q, k, v, mask), expected, atol=1e-5, rtol=0)


def test_hidden_points_do_not_reach_others_in_self_attention() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(9, 6, 16, generator=generator)
    keep = torch.rand(9, 6, generator=generator) > 0.4
    keep[:, 0], keep[0] = True, True
    keep[5, 3] = False
    stack = make_model().joint_encoder.transformer_model.encoder
    with torch.no_grad():
        before = stack(tokens, keep)
        tokens[5, 3] += 1.0
        after = stack(tokens, keep)
    others = torch.ones(9, 6, dtype=torch.bool)
    others[5, 3] = False
    torch.testing.assert_close(before[others], after[others], atol=1e-6, rtol=0)
    assert (before[5, 3] - after[5, 3]).abs().max() > 1e-3


def test_order_of_the_tracks_does_not_matter() -> None:
    model, inputs = make_model(), make_inputs(3)
    order = torch.from_numpy(np.random.default_rng(0).permutation(inputs["traj"].shape[2]))
    shuffled = {name: value if name == "depth" else value[:, :, order] for name, value in inputs.items()}
    torch.testing.assert_close(model(**shuffled), model(**inputs)[..., order], atol=1e-5, rtol=0)


def test_a_frame_without_visible_tracks_gives_numbers() -> None:
    inputs = make_inputs(4)
    inputs["mask"][..., 2] = 1.0
    assert torch.isfinite(make_model()(**inputs)).all()


def test_depth_look_up_repeats_the_authors_mistake() -> None:
    depth = torch.arange(6 * 10, dtype=torch.float32).reshape(1, 1, 6, 10, 1)
    traj = torch.tensor([[0.0, 0.5, 0.5, -0.5, 0.99], [0.0, -0.5, 0.5, 0.5, 0.99]]).reshape(1, 2, 5, 1)
    # upper half: pixel 0; lower half: row int(y*6), offset int(x*10), the left half wrapping into the row above
    expected = [0, 0, 3 * 10 + 5, 3 * 10 - 5, 5 * 10 + 9]
    assert sample_depth(traj, depth).flatten().tolist() == expected


def test_displacement_is_zero_where_the_later_point_is_hidden_and_at_the_end() -> None:
    inputs = make_inputs(5)
    channels = augment(*(inputs[name] for name in INPUTS[:5]))
    assert channels.shape[1] == 88
    step = channels[0, 42:44]
    hidden = inputs["mask"][0, 0] > 0.5
    assert step[..., -1].abs().max() == 0
    assert step[:, hidden.roll(-1, 1) & (torch.arange(hidden.shape[1]) < hidden.shape[1] - 1)].abs().max() == 0
    assert step[:, ~hidden.roll(-1, 1)][:, :-1].abs().max() > 0


def test_shapes_that_do_not_fit_are_named() -> None:
    inputs = make_inputs(6)
    inputs["dino"] = inputs["dino"][:, :, :-1]
    with pytest.raises(SegmotionError, match="dino must have shape"):
        make_model()(**inputs)


def test_a_wrong_checkpoint_is_one_clear_line(tmp_path: Path) -> None:
    good = tmp_path / "good.pth"
    torch.save({"epoch": 0, "model_state_dict": make_model().state_dict()}, good)
    assert isinstance(SegAnyMo.from_checkpoint(good), SegAnyMo)
    cut = tmp_path / "cut.pth"
    cut.write_bytes(good.read_bytes()[:100_000])
    other = tmp_path / "other.pth"
    torch.save({"epoch": 0, "model_state_dict": {"weight": torch.zeros(3)}}, other)
    code = tmp_path / "code.pth"
    torch.save({"model_state_dict": os.getcwd}, code)
    bare = tmp_path / "bare.pth"
    torch.save({"epoch": 0, "weights": {}}, bare)
    expected = {
        tmp_path / "absent.pth": "no such file",
        cut: "damaged",
        other: "does not hold the weights of the SegAnyMo network",
        code: "program code",
        bare: "no weights in it under 'model_state_dict'",
    }
    for path, words in expected.items():
        with pytest.raises(SegmotionError, match=words):
            SegAnyMo.from_checkpoint(path)
