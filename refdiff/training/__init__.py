"""Training, sampling and evaluation: the loop, the optimiser, the data, and the folder of a run."""

from .config import *
from .evaluation import *
from .likelihood import *
from .loop import *
from .optimiser import *
from .sampling import *
from .state import *
from .step import *
