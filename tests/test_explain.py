"""The picture itself tells what moves from the rim of background that flow drags along."""

from __future__ import annotations

import cv2
import numpy as np

from segmotion_plugin.densify.explain import HALO, PROVEN, Explainer, compose, mismatch, polynomial_flow, regions, static_flow

SIZE = (120, 160)


def texture(seed: int, grain: int = 4) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (SIZE[0] // grain, SIZE[1] // grain, 3), dtype=np.uint8)
    return cv2.resize(noise, SIZE[::-1], interpolation=cv2.INTER_CUBIC)


def test_a_flow_of_second_order_is_found_among_outliers() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, [320, 240], (300, 2))
    x, y = xy[:, 0] / 320 * 2 - 1, xy[:, 1] / 240 * 2 - 1
    truth = np.stack([3 + 2 * x - y + x * y, -1 + x + 0.5 * y * y], axis=1)
    step = truth.copy()
    step[:60] += 25
    field = polynomial_flow(xy, step, np.ones(300), (320, 240))
    assert np.median(np.linalg.norm(field(xy) - truth, axis=1)) < 0.2
    dense = static_flow(xy, step, np.ones(300), SIZE)
    rows, columns = (xy[:, 1] / 2).astype(int), (xy[:, 0] / 2).astype(int)
    assert np.median(np.linalg.norm(dense[rows, columns] - truth, axis=1)) < 0.5


def test_flows_add_up() -> None:
    one = np.full((*SIZE, 2), [4.0, -2.0], np.float32)
    np.testing.assert_allclose(compose([one, one, one])[40:80, 40:120], np.broadcast_to([12.0, -6.0], (40, 80, 2)), atol=1e-4)


def test_the_right_flow_has_no_mismatch() -> None:
    image = texture(1).astype(np.float32)
    moved = np.roll(image, 3, axis=1)
    right = np.full((*SIZE, 2), [6.0, 0.0], np.float32)  # 3 pixels at half size are 6 at full size
    assert mismatch(image, moved, right)[20:100, 20:140].max() < 1e-3
    assert np.median(mismatch(image, moved, np.zeros_like(right))[20:100, 20:140]) > 5


def test_proof_ends_where_the_object_ends_though_flow_does_not() -> None:
    background, thing = texture(2), texture(3)
    mover = np.zeros(SIZE, bool)
    mover[40:80, 50:90] = True
    frames, shift = [], 3
    for index in range(5):
        frame = background.copy()
        where = np.roll(mover, shift * index, axis=1)
        frame[where] = np.roll(thing, shift * index, axis=1)[where]
        frames.append(frame)

    def flow(frame: int) -> tuple[np.ndarray, np.ndarray]:
        """True flow, but dragging a rim of 6 pixels along."""
        def dragged(index: int, sign: int) -> np.ndarray:
            rim = cv2.dilate(np.roll(mover, shift * index, axis=1).astype(np.uint8), np.ones((13, 13), np.uint8)) > 0
            return (rim[..., None] * np.array([2.0 * shift * sign, 0.0])).astype(np.float32)

        return dragged(frame, 1), dragged(frame + 1, -1)

    grid = np.stack(np.meshgrid(np.arange(4, 320, 8), np.arange(4, 240, 8)), axis=-1).reshape(-1, 2).astype(np.float32)

    def at(frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tracks on a grid of frame 0: those on the rim and the object move and are called moving."""
        rim = flow(0)[0][(grid[:, 1] / 2).astype(int), (grid[:, 0] / 2).astype(int), 0] > 0
        return np.arange(len(grid)), grid + rim[:, None] * np.array([2.0 * shift * frame, 0]), rim.astype(np.float32)

    explainer = Explainer(lambda i: frames[i], flow, at, (0, 5))
    found = explainer(2, (slice(0, SIZE[0]), slice(0, SIZE[1])))
    assert found is not None
    _, xy, probability = at(2)
    near = np.zeros(SIZE, np.uint8)
    moving = (xy[probability > 0.5] / 2).astype(int)
    near[moving[:, 1], moving[:, 0]] = 1
    region = regions(
        *found,
        cv2.dilate(near, np.ones((13, 13), np.uint8)) > 0,
        explainer.image(2),
        told=2.0,
        least_apart=1.5,
        closing=12,
        halo_width=8.0,
        alike=15.0,
    )
    truth = np.roll(mover, 2 * shift, axis=1)
    proven = region == PROVEN
    assert (proven & truth).sum() > 0.9 * truth.sum()
    assert (proven & ~truth).sum() < 0.15 * truth.sum()
    assert (region == HALO).sum() > 100 and ((region == HALO) & truth).sum() < 0.02 * (region == HALO).sum()
    part = (slice(30, 90), slice(40, 100))
    inside = explainer(2, part)
    assert inside is not None
    # The picture's borders and the erosion of the windows reach one pixel into a box.
    np.testing.assert_allclose(inside[1], found[1][part], atol=1e-3)
    np.testing.assert_allclose(inside[0][2:-2, 2:-2], found[0][part][2:-2, 2:-2], atol=1e-3)
