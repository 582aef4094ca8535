"""Runs kernels/*.cu, unmodified, on the CPU: the other device of the CUDA engine, for tests where there is no GPU.

Under AddressSanitizer, all tests of the engine, in tests/: `python -m emulator.sanitized engines/cuda`.
"""

from .build import COMPILER, BuildError
from .device import Emulator
from .late import Late

__all__ = ["COMPILER", "BuildError", "Emulator", "Late"]
