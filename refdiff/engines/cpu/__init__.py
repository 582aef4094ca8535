"""The CPU engine: NumPy alone, float32, the names and the contract of the reference engine, fast.

Winograd convolutions, large products divided among threads of our own, memory that is used again. Each operation does its
batch in two halves, so that two processes can do one each (`refdiff.training.halves`); the bits of a result do not depend on
that, nor on the number of threads. Arrays are never written to once an operation has returned them, so a gradient that is
only passed on is the same array. Besides the operations:

threads(n)          how many threads; at first REFDIFF_THREADS of the environment, or every core
profile()           where the time goes
forget_weights()    to be called after weights were changed in place
Repeated(f)         f, whose calls of NumPy are written down once and played back
followed(a)         inside such an f: an array whose values may change between its calls
"""

from .activation import *
from .attention import *
from .convolution import *
from .dropout import *
from .embedding import *
from .layer_norm import *
from .linear import *
from .norm import *
from .per_sample import *
from .profile import profile as profile
from .random_numbers import *
from .recording import Repeated as Repeated
from .recording import followed as followed
from .resample import *
from .structure import *
from .variational import *
from .winograd import forget_weights as forget_weights
from .workers import threads as threads
