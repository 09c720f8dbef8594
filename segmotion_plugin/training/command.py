"""`segmotion train`: the shipped motion weights anew, or the ablation table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from segmotion_plugin.training.ablation import AblationConfig
from segmotion_plugin.training.clusters import ClusterConfig
from segmotion_plugin.training.loop import TrainConfig


@dataclass
class Weights:
    """Train the motion model on simulated worlds; an interrupted run goes on from its checkpoint."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)

    def main(self) -> int:
        """Run it."""
        from segmotion_plugin.training import train

        print(train.main(self.config))
        return 0


@dataclass
class Ablation:
    """The table of geometric baselines and of the model without each of its parts."""

    config: Annotated[AblationConfig, tyro.conf.arg(name="")] = field(default_factory=AblationConfig)

    def main(self) -> int:
        """Run it."""
        from segmotion_plugin.training import ablation

        print(ablation.main(self.config))
        return 0


@dataclass
class Clusters:
    """Train the model that judges small clusters of tracks as a whole."""

    config: Annotated[ClusterConfig, tyro.conf.arg(name="")] = field(default_factory=ClusterConfig)

    def main(self) -> int:
        """Run it."""
        from segmotion_plugin.training import clusters

        print(clusters.main(self.config))
        return 0


Train = (
    Annotated[Weights, tyro.conf.subcommand("weights")]
    | Annotated[Clusters, tyro.conf.subcommand("clusters")]
    | Annotated[Ablation, tyro.conf.subcommand("ablation")]
)
