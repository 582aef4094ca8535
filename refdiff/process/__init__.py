"""The mathematics of diffusion: arrays in, arrays out, no network. Works on arrays of any library."""

from .binomial import *
from .continuous import *
from .exact import *
from .forward import *
from .guidance import *
from .hierarchical import *
from .learned_variance import *
from .multiplied import *
from .objectives import *
from .ode_likelihood import *
from .posterior import *
from .predictions import *
from .reverse_steps import *
from .samplers import *
from .schedules import *
from .solvers import *
from .spacing import *
from .variational_bound import *
from .weightings import *
