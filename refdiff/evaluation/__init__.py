"""How good a model is: Frechet distance, of all samples and of each class, classes covered, what a judge sees in them, the
error of eps, the variational bound, and a classifier's accuracy."""

from .accuracy import *
from .judging import *
from .likelihood import *
from .metrics import *
