"""What a run learns: objectives that several systems share, and how a user's own is made known."""

from .denoising import *
from .objective import *
from .schedule import *
from .signal import *
from .tables import *

register_objective("denoising", Denoising)
