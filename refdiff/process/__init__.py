"""The mathematics of diffusion: arrays in, arrays out, no network. Works on arrays of any library."""

from .bound import *
from .exact import *
from .flow import *
from .forward import *
from .guidance import *
from .likelihood import *
from .objectives import *
from .posterior import *
from .predictions import *
from .samplers import *
from .schedules import *
from .solvers import *
from .spacing import *
from .weightings import *
