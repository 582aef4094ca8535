"""How good a model is: Frechet distance, classes covered, the error of eps, and the variational bound."""

from .likelihood import *
from .metrics import *
