"""The blocks of the networks, [DDPM] appendix B and what [ADM] section 3 makes of it: conditioning, residual block,
attention block, down- and upsampling, pooling.

Each is three functions: `x_layout` says which parameters it has, `x` reads top to bottom forwards, `x_backward` bottom
to top backwards. h is (N, H, W, C); emb, what conditions a block, is (N, E) and already through its SiLU.
"""

from .attention_block import *
from .embedding import *
from .pooling import *
from .resample import *
from .residual_block import *
