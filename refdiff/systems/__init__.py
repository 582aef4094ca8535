"""Papers, one file each: what is learned, how samples are drawn, how good the model is, where that is not `Denoising`."""

from . import binomial as binomial
from .system import *
