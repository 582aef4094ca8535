"""The mathematics of diffusion: arrays in, arrays out, no network. Works on arrays of any library."""

from .exact import *
from .forward import *
from .objectives import *
from .posterior import *
from .predictions import *
from .samplers import *
from .schedules import *
