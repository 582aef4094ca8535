"""What the settings of a sampler must be to the objective, to the schedule and to a classifier: checked before anything is
computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import setting
from ..models import inputs
from ..objectives import Denoising
from .settings import SampleConfig

if TYPE_CHECKING:
    from .trained import Trained

__all__ = ["check_guidance", "check_settings"]


def check_settings(settings: SampleConfig, objective: Denoising, denoiser: Any) -> None:
    """ValueError for a variance that was not learned, guidance without a null class, and an interval beyond T; denoiser: its
    configuration."""
    if settings.variance == "learned" and not objective.learned:
        raise ValueError(
            "sample.variance: expected posterior or beta, since this network learns no variance, got 'learned'; train "
            f"with {setting('objective.variance', 'learned')}"
        )
    if settings.guidance != 1 and getattr(denoiser, "classes", 0) > 0 and not getattr(denoiser, "null_label", True):
        raise ValueError(
            f"sample.guidance: expected 1 for a model that knows no null class, got {settings.guidance:g}; train one "
            f"with {setting('networks.denoiser.null_label', 'true')}"
        )
    if settings.guidance != 1 and not any(rate > 0 for _, _, rate in objective.null):
        raise ValueError(
            "sample.guidance: expected 1, since no condition is left out in this training, got "
            f"{settings.guidance:g}; train a network with classes"
        )
    if settings.guidance_interval and settings.guidance_interval[1] > objective.schedule.T:
        raise ValueError(
            f"sample.guidance_interval: expected steps from 1 to schedule.T = {objective.schedule.T}, got "
            f"{list(settings.guidance_interval)}; end it at {objective.schedule.T}"
        )


def check_guidance(trained: Trained) -> None:
    """ValueError where the settings, the denoiser and the classifier of a model do not fit together."""
    settings, objective, classifier = trained.settings, trained.objective, trained.classifier
    check_settings(settings, objective, trained.networks["denoiser"].config)
    if classifier is None:
        if settings.classifier_scale:
            raise ValueError(
                f"sample.classifier_scale: expected 0 without a classifier, got {settings.classifier_scale:g}; give a "
                "classifier too"
            )
        return
    config = classifier.config
    classes, told = getattr(config, "classes", 0), trained.networks["denoiser"].config
    shape, reads = inputs(config)["x"].shape if "x" in inputs(config) else None, set(inputs(config))
    if not classes or not reads <= {"x", "t"}:
        raise ValueError(
            f"classifier: expected a network with classes that reads x and t, got {type(config).__name__}, which has "
            f"{classes} and reads {', '.join(inputs(config))}"
        )
    if shape != trained.shape:
        raise ValueError(f"classifier: expected one of samples of {trained.shape}, the model's shape, got {shape}")
    if getattr(told, "classes", 0) not in (0, classes):
        raise ValueError(f"classifier: expected one of {told.classes} classes, as the model has, got {classes}")
    if settings.method == "ancestral":
        if settings.guidance_rescale and settings.guidance == 1 and settings.classifier_scale:
            raise ValueError(
                "sample.guidance_rescale: expected 0 with ancestral steps, whose mean a classifier shifts while predictions "
                f"stay, got {settings.guidance_rescale:g}; take {setting('sample.method', 'ddim')}"
            )
    elif objective.schedule.build().alpha_bar[-1] == 0 and settings.guides_at(objective.schedule.T):
        T = objective.schedule.T
        raise ValueError(
            "sample.guidance_interval: expected one that ends before T with this schedule, whose alpha_bar_T = 0 leaves a "
            f"classifier nothing to tell there, got {list(settings.guidance_interval) or 'all t'}; take "
            f"{setting('sample.guidance_interval', f'[1,{T - 1}]')}"
        )
