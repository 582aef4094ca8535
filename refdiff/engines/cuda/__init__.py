"""The CUDA engine: the reference's names, kernels of kernels/ behind each, on arrays that live on a GPU.

It needs an NVIDIA GPU of compute capability 8.0 or more and CuPy, which it asks for when the first array is made; without
them a DeviceError says what to do. Work is queued on the device in order; `host` waits for it.
"""

from inspect import isfunction

from .. import reference
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
from .position_ops import *
from .random_numbers import *
from .resample import *
from .runtime.context import Array as Array
from .runtime.context import Context as Context
from .runtime.context import current as current
from .runtime.context import use as use
from .runtime.device import DeviceError as DeviceError
from .softmax_ops import *
from .sum_ops import *
from .tensor_ops import *
from .tensor_ops import cast as cast
from .tensor_ops import dense as dense
from .variational import *

_missing = [name for name, value in vars(reference).items()
            if isfunction(value) and name[0] != "_" and name not in globals()]  # fmt: skip
if _missing:
    raise ImportError(f"the CUDA engine lacks {', '.join(_missing)}")
