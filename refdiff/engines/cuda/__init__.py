"""The CUDA engine: the reference's names, one kernel of kernels/ each, on arrays that live on a GPU.

It needs an NVIDIA GPU of compute capability 8.0 or more and CuPy, which it asks for when the first array is made; without
them a DeviceError says what to do. Work is queued on the device in order; `host` waits for it.
"""

from .activation import *
from .context import *
from .device import DeviceError as DeviceError
