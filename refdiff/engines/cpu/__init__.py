"""The CPU engine: NumPy alone, float32, the names and the contract of the reference engine, fast.

Winograd convolutions, large products divided among threads of our own, memory that is used again. Each operation computes
its batch shard by shard, so that several processes can compute a group of shards each (`runtime.data_parallel`); the bits
of a result do not depend on that, nor on the number of threads. Arrays are never written to once an operation has returned
them, so a gradient that is only passed on is the same array. Besides the operations:

threads(n)          how many threads; at first REFDIFF_THREADS of the environment, or every core
profile()           where the time goes
forget_weights()    to be called after weights were changed in place
Captured(f)         f, whose calls of NumPy are captured once and replayed
graph_input(a)      inside such an f: an array whose values may change between its calls
"""

from .activation import *
from .attention_ops import *
from .classification_ops import *
from .convolution import *
from .dropout_ops import *
from .embedding_ops import *
from .layer_norm_ops import *
from .likelihood_ops import *
from .linear_ops import *
from .noise_level_ops import *
from .norm import *
from .per_sample import *
from .random_numbers import *
from .resample import *
from .runtime.captured import Captured as Captured
from .runtime.profiler import profile as profile
from .runtime.thread_pool import threads as threads
from .runtime.traced_array import graph_input as graph_input
from .tensor_ops import *
from .variational import *
from .winograd import forget_weights as forget_weights
from .winograd import generation as generation
