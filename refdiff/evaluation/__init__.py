"""How good a model is: Frechet distance, of all samples and of each class, classes covered, what a judge sees in them, how
well enlarged images agree with the small ones, the error of eps, the variational bound, and a classifier's accuracy."""

from .accuracy import *
from .enlarging import *
from .judging import *
from .likelihood import *
from .metrics import *
