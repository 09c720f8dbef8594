"""Splats of the static world: gsplat's functions with a loss that leaves out what moves (its simple_trainer reads no masks).

segmotion export OUT --format gsplat DEST && pip install gsplat && python examples/08_gsplat_masked.py DEST splats.pt   # CUDA"""

import sys
from pathlib import Path

import numpy as np
import pycolmap
import torch
from scipy.spatial import cKDTree

from segmotion_plugin.clip import read_rgb
from segmotion_plugin.masks import read_grey


def load(folder: Path, factor: int = 4) -> tuple[list[list[torch.Tensor]], dict[str, torch.Tensor]]:
    """Views (image H×W×3 in 0 … 1, keep H×W bool, K 3×3, viewmat 4×4), and one splat per static point to begin with."""
    model, views, suffix = pycolmap.Reconstruction(folder / "sparse" / "0"), [], "" if factor == 1 else f"_{factor}"
    for image in sorted(model.images.values(), key=lambda image: image.name):
        matrix = model.cameras[image.camera_id].calibration_matrix() / [[factor], [factor], [1]]
        rgb = read_rgb(folder / f"images{suffix}" / image.name) / np.float32(255)
        keep = read_grey(folder / f"masks{suffix}" / f"{Path(image.name).stem}.png") > 0
        pose = np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]])
        views.append([torch.from_numpy(np.ascontiguousarray(part)) for part in (rgb, keep, np.float32(matrix), np.float32(pose))])
    xyz = np.float32([point.xyz for point in model.points3D.values()])
    rgb = torch.tensor([list(point.color) for point in model.points3D.values()]).div(255).clamp(0.01, 0.99)
    reach = torch.from_numpy(np.float32(cKDTree(xyz).query(xyz, k=4)[0][:, 1:].mean(axis=1))).clamp(min=1e-6)
    splats = {"means": torch.from_numpy(xyz), "scales": reach.log()[:, None].repeat(1, 3), "colors": rgb.logit()}
    return views, splats | {"quats": torch.eye(4)[:1].repeat(len(xyz), 1), "opacities": torch.full((len(xyz),), 0.1).logit()}


def masked_loss(render: torch.Tensor, image: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    return ((render - image).abs() * keep[..., None]).sum() / (3 * keep.sum()).clamp(min=1)


def main(folder: Path, target: Path, steps: int = 7000) -> None:
    from gsplat import DefaultStrategy, rasterization

    views, p = load(folder)
    p = torch.nn.ParameterDict({key: torch.nn.Parameter(value.cuda()) for key, value in p.items()})
    strategy, size = DefaultStrategy(refine_stop_iter=steps // 2), 3 * float(p["means"].std())
    rates = {"means": 1.6e-4 * size, "scales": 5e-3, "colors": 2.5e-3, "quats": 1e-3, "opacities": 5e-2}
    optimizers = {key: torch.optim.Adam([p[key]], lr=rate, eps=1e-15) for key, rate in rates.items()}
    state = strategy.initialize_state(scene_scale=size)
    for step in range(steps):
        image, keep, matrix, pose = (value.cuda() for value in views[np.random.randint(len(views))])
        looks = p["means"], p["quats"], p["scales"].exp(), p["opacities"].sigmoid(), p["colors"].sigmoid()
        render, _, info = rasterization(*looks, pose[None], matrix[None], keep.shape[1], keep.shape[0], packed=False)
        strategy.step_pre_backward(p, optimizers, state, step, info)
        masked_loss(render[0], image, keep).backward()
        for optimizer in optimizers.values():
            optimizer.step(), optimizer.zero_grad()
        strategy.step_post_backward(p, optimizers, state, step, info)
    torch.save({key: value.detach().cpu() for key, value in p.items()}, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
