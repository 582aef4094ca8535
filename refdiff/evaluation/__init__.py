"""How good a model is: Frechet distance, classes covered, the error of eps, the variational bound, and accuracy."""

from .accuracy import *
from .likelihood import *
from .metrics import *
