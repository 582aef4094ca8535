"""How samples are drawn: the table [sample] of a configuration."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import one_of
from ..process import SPACINGS

__all__ = ["FINITE_SIGMA", "METHODS", "THRESHOLDS", "VARIANCES", "SampleConfig"]

METHODS = ("ddim", "ancestral", "euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2s")
FINITE_SIGMA = ("euler", "euler_ancestral", "heun")  # those that divide by sqrt(alpha_bar_T)
VARIANCES = ("posterior", "beta", "learned")
THRESHOLDS = ("none", "static", "dynamic")


@dataclass(frozen=True)
class SampleConfig:
    """method: "ddim", "ancestral", "euler", "euler_ancestral", "heun", "dpmpp_2m" or "dpmpp_2s"; steps: how many of the T;
    spacing: which, "uniform", "trailing", "quadratic", "karras" or "leading", which does not begin at T; eta: of ddim, 0
    deterministic to 1 ancestral; variance: of ancestral, "posterior", "beta" or "learned"; threshold: "static" holds x0_hat
    within [-1, 1], the range of images, "dynamic" within each sample's quantile of |x0_hat|, scaled back [Imagen], "none"
    leaves it; guidance: of a network with a condition, 1 the conditional prediction, more exaggerates the condition [CFG];
    classifier_scale: of the gradient of a classifier's log p(y | x_t), 0 for none [ADM]; guidance_interval: the first and
    the last t at which either acts, () for all; guidance_rescale: from 0 to 1, how far a guided prediction is scaled back to
    the contrast of the conditional one [Lin24].
    """

    method: str = "ddim"
    steps: int = 50
    spacing: str = "uniform"
    eta: float = 1.0
    variance: str = "posterior"
    threshold: str = "static"
    guidance: float = 1.0
    guidance_interval: tuple[int, ...] = ()
    guidance_rescale: float = 0.0
    classifier_scale: float = 0.0

    def __post_init__(self) -> None:
        one_of("sample.method", self.method, METHODS)
        one_of("sample.spacing", self.spacing, SPACINGS)
        one_of("sample.variance", self.variance, VARIANCES)
        one_of("sample.threshold", self.threshold, THRESHOLDS)
        if not self.steps > 0:
            raise ValueError(f"sample.steps: expected a finite number above 0, got {self.steps}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"sample.eta: expected a number from 0 to 1, got {self.eta}")
        for name in ("guidance", "classifier_scale"):
            if not abs(getattr(self, name)) < float("inf"):
                raise ValueError(f"sample.{name}: expected a finite number, got {getattr(self, name)}")
        if not 0 <= self.guidance_rescale <= 1:
            raise ValueError(f"sample.guidance_rescale: expected a number from 0 to 1, got {self.guidance_rescale}")
        if self.guidance_interval and not (
            len(self.guidance_interval) == 2 and 1 <= self.guidance_interval[0] <= self.guidance_interval[1]
        ):
            raise ValueError(
                "sample.guidance_interval: expected a first and a last t, from 1 on, the first no later than the last, got "
                f"{list(self.guidance_interval)}; leave it out for all t"
            )

    def guides_at(self, t: int) -> bool:
        """Whether t lies in the interval in which guidance acts."""
        return not self.guidance_interval or self.guidance_interval[0] <= t <= self.guidance_interval[1]
