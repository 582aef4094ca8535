"""Samples from a trained model: its predictions, the samplers of `process`, and noise that a sample's number decides."""

from .denoisers import *
from .networks import *
from .run import *
from .settings import SampleConfig as SampleConfig
from .trained import *
