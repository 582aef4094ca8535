"""Training: what a step computes (`trainers`), how weights move (`optimiser`, `frozen`), what a run is (`state`), its loop and
its folder (`loop`, `run`), and the networks that are made of it (`trained_model`)."""

from .loop import *
from .optimiser import *
from .state import *
from .trained_model import *
from .trainers import *
