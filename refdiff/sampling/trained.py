"""A trained model: what sampling and evaluation need to know of a run."""

from __future__ import annotations

from typing import NamedTuple

from ..models import Network, inputs
from ..objectives import Denoising
from .settings import SampleConfig

__all__ = ["Trained"]


class Trained(NamedTuple):
    """networks: with their weights, "denoiser" among them; objective: what they learned; settings: how samples are drawn;
    engine, dtype: what computes; stage: the name of a stage of a cascade, whose noise is its own; classifier: a network x, t
    -> logits by which samples are guided, settings.classifier_scale times its gradient."""

    networks: dict[str, Network]
    objective: Denoising
    settings: SampleConfig = SampleConfig()
    engine: str = "auto"
    dtype: str = "float32"
    stage: str = ""
    classifier: Network | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return inputs(self.networks["denoiser"].config)["x"].shape

    @property
    def path(self) -> str:
        """What the names of its random sequences stand under."""
        return f"sample/{self.stage}" if self.stage else "sample"

    @property
    def classes(self) -> int:
        """How many labels samples can be asked for: those that the denoiser is told, or else the classifier tells apart; 0
        for neither."""
        networks = [self.networks["denoiser"], *([self.classifier] if self.classifier else [])]
        return next((n for network in networks if (n := getattr(network.config, "classes", 0))), 0)
