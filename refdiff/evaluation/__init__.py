"""How good a model is: Frechet distance, of all samples and of each class, classes covered, what a judge sees in them, the
error of eps, and the variational bound."""

from .judging import *
from .likelihood import *
from .metrics import *
