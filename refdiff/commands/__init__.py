"""What each command does: the work behind `cli`, printed as lines or as JSON. Returns the exit status where it is not 0."""

from .checking import *
from .evaluating import *
from .runs import *
from .sampling import *
