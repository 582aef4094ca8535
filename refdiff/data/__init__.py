"""Data sets: the bundled digits, two sets of bits, four sets in the plane, and whatever lies in your files."""

from .binary import heartbeat
from .dataset import Dataset
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
    "moons",
    "register_data",
    "rings",
    "shape_of",
    "swissroll",
]
