"""How good a model is: Frechet distance, of all samples and of each class, classes covered, what a judge sees in them, how
well enlarged images agree with the small ones, the error of eps, the variational bound, the likelihood by the flow, and a
classifier's accuracy."""

from .accuracy import *
from .enlarging import *
from .flow_likelihood import *
from .judging import *
from .likelihood import *
from .metrics import *
from .uncertainty import *
