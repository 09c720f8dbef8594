"""A second look at small movers: clusters of tracks are judged as a whole, and their tracks take the verdict.

The transformer judges tracks one by one. Of a mover that is a handful of tracks each alone stays in doubt, and so does each track of
a thin pole under parallax; their means do not. A small network that was trained on clusters of simulated worlds tells which move.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import atomic_path
from segmotion_plugin.motion.cluster_channels import CHANNELS, describe
from segmotion_plugin.motion.clusters import Block, Cluster, clusters, neighbours
from segmotion_plugin.motion.rigidity import Rigidity
from segmotion_plugin.motion.sweep import Pictures
from segmotion_plugin.tracks import Tracks

DEFAULT_WEIGHTS = Path(__file__).parent / "weights" / "clusters.safetensors"
LARGEST = 0.01
"""Share of the tracks up to which a cluster is judged; in larger ones the tracks' own logits are as good."""

_FRAMES = 48  # about so many frames are looked at together, as in training
_TRUST = 0.7  # of the verdict; the rest is the track's own logit
_BOUND = 4.0  # of a verdict's logit
_HOPELESS = -2.5  # verdict from what is quickly measured, below which a cluster is not looked at any further
_CALLED = 0.25  # verdict from which a cluster is taken: hundreds are asked
_LEFT = -0.5  # most that the verdict on the rest can be
_DENIED = 0.5  # a part with a verdict below minus that is no part of what moves
_LEAST_PART, _PART = 3, 0.05  # fewest tracks of such a part, and fewest of the whole's
_STATIC = -1.0  # most for tracks of what is rigid with the world
# Of nested clusters that move the one is preferred that adds most tracks of a mover and fewest others.
_SIZE_COUNTS, _LEAST_PURE, _LEAST_GAIN = 0.5, 0.4, 1e-3  # exponent of the number of tracks, purity that gains nothing, least gain
_STEEPEST = 4.0  # standard deviations to which channels are clipped


class Verdicts(NamedTuple):
    """K log odds that clusters move, and K that an observation of theirs lies on a mover."""

    moves: np.ndarray
    purity: np.ndarray


@dataclass(frozen=True)
class ClusterModel:
    """E small networks whose logits are averaged: channels, flags of what is unknown -> two hidden layers (SiLU) -> two logits.

    Attributes:
        mean: C means of the channels in training.
        scale: C standard deviations.
        optional: C flags, the channel was unknown for some clusters in training and has an input that says so.
        layers: per layer, weights E×out×in and biases E×out.
    """

    mean: np.ndarray
    scale: np.ndarray
    optional: np.ndarray
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]

    def inputs(self, channels: np.ndarray) -> np.ndarray:
        """K×I standardised inputs from K×C channels (NaN = unknown)."""
        unknown = ~np.isfinite(channels)
        standard = np.where(unknown, 0.0, (np.where(unknown, 0.0, channels) - self.mean) / self.scale)
        return np.concatenate([np.clip(standard, -_STEEPEST, _STEEPEST), unknown[:, self.optional]], axis=1)

    def __call__(self, channels: np.ndarray) -> Verdicts:
        """Verdicts on K clusters, from K×C channels."""
        value = np.broadcast_to(self.inputs(channels), (len(self.layers[0][0]), len(channels), self.layers[0][0].shape[2]))
        for number, (weight, bias) in enumerate(self.layers):
            value = value @ weight.transpose(0, 2, 1) + bias[:, None]
            if number + 1 < len(self.layers):
                value = value / (1 + np.exp(-value))
        return Verdicts(*np.clip(value.mean(axis=0), -_BOUND, _BOUND).T)

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        from safetensors.numpy import save_file

        tensors = {"mean": self.mean, "scale": self.scale, "optional": self.optional.astype(np.uint8)}
        for number, (weight, bias) in enumerate(self.layers):
            tensors[f"layer{number}.weight"], tensors[f"layer{number}.bias"] = weight, bias
        tensors = {name: np.ascontiguousarray(t if t.dtype == np.uint8 else t.astype(np.float32)) for name, t in tensors.items()}
        with atomic_path(path) as temporary:
            save_file(tensors, str(temporary), metadata={"channels": json.dumps(CHANNELS)})

    @classmethod
    def load(cls, path: Path) -> ClusterModel:
        """Read what `save` wrote.

        Raises:
            SegmotionError: no such file, not a safetensors file, or made for other channels.
        """
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            raise SegmotionError(f"{path}: no weights of the cluster model here; train them with 'segmotion train clusters'")
        try:
            with safe_open(str(path), framework="numpy") as archive:
                channels = json.loads((archive.metadata() or {}).get("channels", "[]"))
                tensors = {key: archive.get_tensor(key) for key in archive.keys()}
        except (SafetensorError, OSError, ValueError) as error:
            raise SegmotionError(f"{path}: not a readable safetensors file ({error})") from None
        if tuple(channels) != CHANNELS:
            raise SegmotionError(f"{path}: made for {len(channels)} other channels, expected {len(CHANNELS)}; train it anew")
        layers: list[tuple[np.ndarray, np.ndarray]] = []
        width = len(CHANNELS) + int(tensors["optional"].sum())
        while f"layer{len(layers)}.weight" in tensors:
            name = f"layer{len(layers)}"
            weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias", np.zeros(0))
            if weight.ndim != 3 or weight.shape[2] != width or bias.shape != weight.shape[:2]:
                raise SegmotionError(f"{path}: tensor '{name}.weight' should take {width} inputs, has shape {weight.shape}")
            layers.append((weight, bias))
            width = weight.shape[1]
        if not layers or width != len(Verdicts._fields):
            raise SegmotionError(f"{path}: the last layer should have {len(Verdicts._fields)} outputs")
        return cls(tensors["mean"], tensors["scale"], tensors["optional"] > 0, tuple(layers))


def blocks(num_frames: int) -> list[tuple[int, int]]:
    """(start, stop) of the ranges of frames that are looked at together; linear in the number of frames."""
    count = max(1, round(num_frames / _FRAMES))
    bounds = np.linspace(0, num_frames, count + 1).round().astype(int).tolist()
    return list(zip(bounds[:-1], bounds[1:], strict=True))


@dataclass(frozen=True)
class Judged:
    """Clusters of a block.

    Attributes:
        small: K clusters that are judged by the model, none of them within a larger one that moves.
        channels: K×C of these.
        of_larger: N, part of a larger cluster that moves by its logits: what is small there is a limb or a patch of that, and no
            verdict on it alone can make it static.
        explained: N, part of a larger cluster that is rigid with the world.
    """

    small: list[Cluster]
    channels: np.ndarray
    of_larger: np.ndarray
    explained: np.ndarray


def judged_clusters(
    block: Block,
    logit: np.ndarray,
    pooled: Mapping[str, np.ndarray],
    pictures: Pictures | None = None,
    worth: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Judged:
    """The clusters of a block: small ones of tracks in doubt, described, and larger ones that move, tested against cameras.

    For `pictures` and `worth` see `cluster_channels.describe`.
    """
    rigidity = Rigidity(block, logit)
    score = logit + rigidity.doubt
    links = neighbours(block, score)
    moving = clusters(block, logit, links, lowest=0.0)
    larger = [cluster for cluster in moving if cluster.share > LARGEST]
    of_larger, explained = np.zeros(len(logit), bool), np.zeros(len(logit), bool)
    for cluster, rigid in zip(larger, rigidity.explained(larger), strict=True):
        (explained if rigid else of_larger)[cluster.members] = True
    of_larger &= ~explained
    # What lies in a larger mover as a whole moves already.
    asked = (c for c in clusters(block, score, links, nearness=rigidity.depth[0]) if c.share <= LARGEST)
    small = [c for c in asked if not of_larger[c.members].all()]
    largest = max((cluster.share for cluster in moving), default=0.0)
    channels = describe(block, small, largest, logit, pooled, rigidity, pictures, worth, links)
    return Judged(small, channels, of_larger, explained)


def second_look(
    model: ClusterModel,
    tracks: Tracks,
    logit: np.ndarray,
    pooled: Mapping[str, np.ndarray],
    image_size: tuple[int, int],
    pictures: Pictures | None = None,
) -> np.ndarray:
    """What the verdicts on clusters add to the tracks' logits.

    Args:
        model: judges clusters.
        tracks: N tracks.
        logit: N calibrated log odds that a track moves.
        pooled: for every name in `cluster_channels.POOLED` N means over a track's pairs of frames, NaN = unknown.
        image_size: (width, height), pixels.
        pictures: of the clip at that size; absent, the tracks alone tell.

    Returns:
        N numbers to add. A track that lives in several blocks takes the greatest: it moves in the clip if it moves in one.
    """
    shift = np.full(len(tracks), -np.inf)
    ranges = [(first + start, first + stop) for first, last in tracks.stretches() for start, stop in blocks(last - first)]
    for start, stop in ranges:
        block = Block(tracks, image_size, start, stop)
        here = block.observations > 0
        judged = judged_clusters(block, logit, pooled, pictures, lambda channels: model(channels).moves > _HOPELESS)
        shift[here] = np.maximum(shift[here], (_settled(judged, model(judged.channels), logit) - logit)[here])
    return np.where(np.isfinite(shift), shift, 0.0)


def _settled(judged: Judged, verdicts: Verdicts, logit: np.ndarray) -> np.ndarray:
    """N logits after the verdicts on clusters, of which some contain others.

    Clusters that move are taken greedily, none that overlaps one taken before; a part of one that is itself judged static, as the
    pole that a ball rolls past, is released, but for what of it moves as a still smaller cluster. Tracks of none of these cannot be
    likelier to move than the best of their clusters, and hardly move at all, but for those of larger ones. What a larger cluster
    that is rigid with the world holds is static, but for what is taken.
    """
    found, verdict = judged.small, verdicts.moves
    settled, taken = logit.copy(), np.zeros(len(logit), bool)
    best, over = np.full(len(logit), -np.inf), verdict - _CALLED
    least = np.full(len(logit), np.inf)  # tracks of the smallest cluster that moves and holds a track
    for cluster, value in zip(found, over, strict=True):
        members = cluster.members
        best[members] = np.maximum(best[members], value)
        if value > 0:
            least[members] = np.minimum(least[members], len(members))
    gain = np.maximum(1 / (1 + np.exp(-verdicts.purity)) - _LEAST_PURE, _LEAST_GAIN)
    weight = gain * np.array([len(cluster.members) ** _SIZE_COUNTS for cluster in found])
    for index in np.argsort(-weight, kind="stable"):
        members = found[index].members
        if over[index] > 0 and not taken[members].any():
            settled[members] = np.maximum(logit[members], (1 - _TRUST) * logit[members] + _TRUST * verdict[index])
            taken[members] = True
            inside = np.zeros(len(logit), bool)
            inside[members] = True
            fewest = max(_LEAST_PART, _PART * len(members))
            for part, value in zip(found, verdict, strict=True):
                if value < -_DENIED and fewest <= len(part.members) < len(members) and inside[part.members].all():
                    released = part.members[least[part.members] >= len(part.members)]
                    taken[released], best[released] = False, value
    left = np.isfinite(best) & ~taken & ~judged.of_larger
    settled[~taken] = logit[~taken]
    settled[left] = np.minimum(logit[left], (1 - _TRUST) * logit[left] + _TRUST * np.minimum(best[left], _LEFT))
    rigid = judged.explained & ~taken
    settled[rigid] = np.minimum(settled[rigid], _STATIC)
    return settled
