"""Training: the loop, the optimiser, and the folder of a run."""

from .loop import *
from .optimiser import *
from .state import *
from .trained_model import *
from .trainers import *
