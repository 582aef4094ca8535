"""Data sets: the bundled digits, two sets of bits, sets in the plane and on the line, and whatever lies in your files."""

from .binary import heartbeat
from .dataset import Dataset
from .line import MIXTURE_1D_DEVIATIONS, MIXTURE_1D_MEANS, MIXTURE_1D_WEIGHTS, mixture_1d
from .loading import load, load_images, shape_of
from .planar import (
    MIXTURE_COVARIANCES,
    MIXTURE_MEANS,
    MIXTURE_WEIGHTS,
    mixture,
    moons,
    rings,
    swissroll,
)
from .registry import Data, register_data
from .settings import DataConfig

__all__ = [
    "MIXTURE_1D_DEVIATIONS",
    "MIXTURE_1D_MEANS",
    "MIXTURE_1D_WEIGHTS",
    "MIXTURE_COVARIANCES",
    "MIXTURE_MEANS",
    "MIXTURE_WEIGHTS",
    "Data",
    "DataConfig",
    "Dataset",
    "heartbeat",
    "load",
    "load_images",
    "mixture",
    "mixture_1d",
    "moons",
    "register_data",
    "rings",
    "shape_of",
    "swissroll",
]
