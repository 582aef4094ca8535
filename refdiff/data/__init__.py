"""Data sets: the bundled digits, four sets in the plane, and whatever lies in your files."""

from .dataset import Dataset
from .loading import load, shape_of
from .planar import (
    MIXTURE_COVARIANCES,
    MIXTURE_MEANS,
    MIXTURE_WEIGHTS,
    mixture,
    moons,
    rings,
    swissroll,
)

__all__ = [
    "MIXTURE_COVARIANCES",
    "MIXTURE_MEANS",
    "MIXTURE_WEIGHTS",
    "Dataset",
    "load",
    "mixture",
    "moons",
    "rings",
    "shape_of",
    "swissroll",
]
