"""The networks of the systems, each a configuration and four functions, made known as a user's would be."""

from . import codebook, cross, numbers, text, transformer, upsampler
from .codebook import Codebook
from .cross import Cross
from .numbers import Numbers
from .text import Text
from .transformer import Transformer
from .upsampler import Upsampler

__all__ = [
    "Codebook",
    "Cross",
    "Numbers",
    "Text",
    "Transformer",
    "Upsampler",
    "codebook",
    "cross",
    "numbers",
    "text",
    "transformer",
    "upsampler",
]
