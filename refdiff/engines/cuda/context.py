"""A device with its memory: where arrays come from, and how a kernel is launched.

`use(context)` makes a context the one that new arrays belong to, in this thread; without it the first GPU is taken.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from .array import ITEMSIZE, Array, Buffer, dtype_name
from .device import Device, Graph, Kernel
from .memory import Arena, Memory

__all__ = ["Context", "current", "use"]

THREADS = 256  # of a block, unless a kernel says otherwise
MOST = (1 << 31) - (1 << 16)  # elements of an array: an index may go past the end by what a block takes


def blocks(n: int, each: int) -> int:
    """How many blocks cover n things when each takes `each`; at least one."""
    return max(1, -(-n // each))


class Context:
    """memory: an Arena unless given."""

    def __init__(self, device: Device, memory: Memory | None = None) -> None:
        self.device = device
        self.memory = memory or Arena(device)

    def empty(self, shape: tuple[int, ...], dtype: Any = "float32") -> Array:
        """An array with whatever is there."""
        name = dtype_name(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        assert count <= MOST, f"an array of {shape} has more than {MOST} elements, which kernels count in 32 bits"
        return Array(Buffer(self, count * ITEMSIZE[name]), shape, name)

    def array(self, x: Any, dtype: Any = "float32") -> Array:
        """x from the host, as dtype."""
        name = dtype_name(dtype)
        given = np.array(x, np.float32 if name == "bfloat16" else name, order="C", ndmin=0)
        y = self.empty(given.shape, name)
        if given.size:
            self.device.write(y.pointer, _to_bfloat16(given) if name == "bfloat16" else given)
        return y

    def launch(
        self,
        source: str,
        name: str,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        *arguments: Any,
        dtype: str = "float32",
        shared: int = 0,
        **defines: int,
    ) -> None:
        """Queue kernel `name` of kernels/<source>, compiled for dtype. arguments: arrays, integers (int), floats (float),
        or ctypes values, structs among them; None is the null pointer. shared: bytes of dynamic shared memory."""
        if dtype == "bfloat16":
            defines["BF16"] = 1
        kernel = Kernel(source, name, tuple(sorted(defines.items())))
        grid = grid if isinstance(grid, tuple) else (grid,)
        block = block if isinstance(block, tuple) else (block,)
        self.device.launch(kernel, grid, block, [_argument(a) for a in arguments], shared)

    def map(self, source: str, name: str, n: int, *arguments: Any, dtype: str = "float32", **defines: int) -> None:
        """Launch an elementwise kernel over n elements, 16 bytes a thread, and give it n as its last argument."""
        each = THREADS * (16 // ITEMSIZE[dtype])
        self.launch(source, name, blocks(n, each), THREADS, *arguments, n, dtype=dtype, **defines)

    def capture(self, step: Any) -> Graph:
        """What step() launches, to be replayed. It must have run once before, so that all memory is there."""
        self.device.begin_capture()
        try:
            step()
        finally:
            graph = self.device.end_capture()
        return graph


def _argument(a: Any) -> Any:
    if isinstance(a, Array):
        return ctypes.c_void_p(a.pointer)
    if a is None:
        return ctypes.c_void_p(None)
    if isinstance(a, bool | int | np.integer):
        assert -(1 << 31) <= a < 1 << 31, f"a kernel's argument of {a} is more than 32 bits"
        return ctypes.c_int(int(a))
    if isinstance(a, float | np.floating):
        return ctypes.c_float(float(a))
    return a


def _to_bfloat16(x: np.ndarray) -> np.ndarray:
    """The nearest, ties to even, as uint16."""
    bits = x.view(np.uint32)
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FFF), rounded)


_current: ContextVar[Context | None] = ContextVar("refdiff_cuda_context", default=None)
_first_gpu: list[Context] = []


def current() -> Context:
    """The context in use. DeviceError, which says what to do, where there is none and no GPU."""
    context = _current.get()
    if context is not None:
        return context
    if not _first_gpu:
        from .cupy_device import CupyDevice

        _first_gpu.append(Context(CupyDevice()))
    return _first_gpu[0]


@contextmanager
def use(context: Context) -> Iterator[Context]:
    """Arrays made inside belong to this context."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
