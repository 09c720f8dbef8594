"""Trackers for the pipeline's tests, behind the very adapters that the published models go through."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from segmotion_plugin.trackers.bootstapir import BootsTAPIR
from segmotion_plugin.trackers.cotracker import CoTracker3, build_predictor

_TESTS = Path(__file__).resolve().parents[1]


def stand_in_cotracker(device: str) -> CoTracker3:
    """The offline tracker of the stand-in repository."""
    return CoTracker3(build_predictor(False, _TESTS / "cotracker_stand_in"), device=device)


class _Still(torch.nn.Module):
    """The calls of tapnet's model; every point stays where it is."""

    num_pips_iter = 1

    def get_feature_grids(self, video: torch.Tensor, is_training: bool) -> Any:
        return SimpleNamespace(frames=video.shape[1])

    def get_query_features(self, video: torch.Tensor, is_training: bool, points: torch.Tensor, grids: Any) -> Any:
        return None

    def estimate_trajectories(
        self,
        video_size: Any,
        is_training: bool,
        feature_grids: Any,
        query_features: Any,
        query_points_in_video: torch.Tensor,
        query_chunk_size: int | None = None,
        causal_context: dict | None = None,
        get_causal_context: bool = False,
    ) -> Any:
        points = query_points_in_video
        assert list(range(0, points.shape[1], query_chunk_size))  # type: ignore[arg-type]  # the real one fails without a number, too
        tracks = points[..., [2, 1]][:, :, None].expand(-1, -1, feature_grids.frames, -1)
        doubt = torch.full(tracks.shape[:3], -9.0)
        return {"tracks": [tracks] * 2, "occlusion": [doubt] * 2, "expected_dist": [doubt] * 2}


def stand_in_bootstapir(device: str) -> BootsTAPIR:
    """A tracker of a world that stands still."""
    return BootsTAPIR(_Still(), device)
