"""refdiff: the diffusion model you can check.

process    the mathematics: schedules, forward process, posterior, predictions, objectives, samplers, exact data
engines    the operations, forward and backward
models     the U-Net and the MLP, written once against an engine
training   data sets, optimiser, loop, evaluation
storage    checkpoints and images
random     counter-based noise
"""

from . import process, random
from .errors import DeviceError, FormatError, TrainingError
from .version import __version__

__all__ = ["DeviceError", "FormatError", "TrainingError", "__version__", "process", "random"]
