"""The blocks of the U-Net, [DDPM] appendix B: residual block, attention block, down- and up-sampling, conditioning.

Each is three functions: `x_layout` says which parameters it has, `x` reads top to bottom forwards, `x_backward` bottom
to top backwards. h is (N, H, W, C); emb, what conditions a block, is (N, E) and already through its SiLU.
"""

from .attention_block import *
from .embedding import *
from .resample import *
from .residual_block import *
