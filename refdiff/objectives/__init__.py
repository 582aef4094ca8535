"""What a run learns: objectives that several systems share, and how a user's own is made known."""

from .classification import *
from .classification import Classification
from .denoising import *
from .denoising import Denoising
from .importance import *
from .objective import *
from .objective import register_objective
from .schedule import *
from .signal import *
from .tables import *

register_objective("denoising", Denoising)
register_objective("classification", Classification)
