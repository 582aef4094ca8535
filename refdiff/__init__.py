"""refdiff: the diffusion model you can check.

process    the mathematics: schedules, forward process, posterior, predictions, objectives, samplers, exact data
engines    the operations, forward and backward
models     the U-Net and the MLP, written once against an engine
data       data sets
config     what decides a run
objectives what a run learns
training   optimiser, loop, the folder of a run
sampling   samples of a trained model
evaluation how good they are
storage    checkpoints and images
random     counter-based noise
testing    the claims, for our tests and everybody else's
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import process, random
from .errors import DeviceError, DoubtWarning, FormatError, TrainingError
from .version import __version__

if TYPE_CHECKING:
    from . import benchmark as benchmark
    from . import config as config
    from . import data as data
    from . import engines as engines
    from . import evaluation as evaluation
    from . import models as models
    from . import objectives as objectives
    from . import sampling as sampling
    from . import storage as storage
    from . import testing as testing
    from . import training as training

__all__ = ["DeviceError", "DoubtWarning", "FormatError", "TrainingError", "__version__", "process", "random"]

# What `import refdiff` leaves out, since it takes time; the first use of `refdiff.training` imports it.
_LATER = (
    "benchmark", "config", "data", "engines", "evaluation", "models", "objectives", "sampling", "storage", "testing",
    "training",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
