"""Runs kernels/*.cu, unmodified, on the CPU: the other device of the CUDA engine, for tests where there is no GPU."""

from .build import COMPILER, BuildError
from .device import Emulator

__all__ = ["COMPILER", "BuildError", "Emulator"]
