"""The reference engine: plain NumPy, the specification of every operation.

A forward returns its output and what its backward needs; a backward returns gradients, inputs first, and parameters as
a dictionary with the parameters' names. What was saved is read-only, every gradient is fresh. float32, float64 and
complex128 all work, and the forwards are analytic, so that a complex step through one is its derivative [ComplexStep].
Images are (N, H, W, C), weights (kh, kw, C_in, C_out) and (in, out).
"""

from .activation import *
from .attention_ops import *
from .classification_ops import *
from .convolution import *
from .embedding_ops import *
from .likelihood_ops import *
from .linear_ops import *
from .noise_level_ops import *
from .norm import *
from .per_sample import *
from .random_numbers import *
from .resample import *
from .tensor_ops import *
from .tensor_ops import Gradients as Gradients
from .variational import *
