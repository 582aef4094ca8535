"""A device with its memory, and arrays in it: where they come from, and how a kernel is launched on them.

`use(context)` makes a context the one that new arrays belong to, in this thread; without it the first GPU is taken.
Nothing is ever written in place but by the optimiser.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from math import prod
from typing import Any

import numpy as np

from .arena import Arena
from .bfloat16 import to_bfloat16
from .device import Device, Graph, Kernel
from .memory import Memory

__all__ = ["ITEMSIZE", "THREADS", "Array", "Buffer", "Context", "blocks", "current", "dtype_name", "first_gpu", "use"]

ITEMSIZE = {"float32": 4, "bfloat16": 2, "int32": 4, "uint32": 4, "int64": 8, "float64": 8}
THREADS = 256  # of a block, unless a kernel says otherwise
MAX_ELEMENTS = (1 << 31) - (1 << 16)  # of an array: an index may go past the end by what a block takes


def dtype_name(dtype: Any) -> str:
    """ "float32" of np.float32, "float32", np.dtype("float32"); "bfloat16" is known by its name alone."""
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    if name not in ITEMSIZE:
        raise ValueError(f"dtype: expected one of {', '.join(ITEMSIZE)}, got {name}")
    return name


class Buffer:
    """Memory that is given back when the last array in it is gone."""

    __slots__ = ("memory", "pointer")

    def __init__(self, memory: Memory, nbytes: int) -> None:
        self.memory, self.pointer = memory, memory.allocate(nbytes)

    def __del__(self) -> None:
        pointer = getattr(self, "pointer", None)
        if pointer is not None:
            self.memory.free(pointer)


class Array:
    """shape, dtype (a name), pointer. Dense but for `pitch`, the elements from one row (last axis) to the next: the parts
    of a split share their rows, and a kernel that takes a pitch reads them where they are."""

    __slots__ = ("buffer", "dtype", "offset", "pitch", "shape")

    def __init__(self, buffer: Buffer, shape: tuple[int, ...], dtype: str, offset: int = 0, pitch: int = 0) -> None:
        """offset: elements from the buffer's beginning; pitch 0: dense."""
        self.buffer, self.shape, self.dtype, self.offset = buffer, tuple(int(n) for n in shape), dtype, offset
        self.pitch = pitch or (self.shape[-1] if self.shape else 1)

    @property
    def context(self) -> Context:
        """One of the same memory as the array's."""
        return Context(self.buffer.memory.device, self.buffer.memory)

    @property
    def pointer(self) -> int:
        return self.buffer.pointer + self.offset * ITEMSIZE[self.dtype]

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * ITEMSIZE[self.dtype]

    @property
    def dense(self) -> bool:
        return not self.shape or self.pitch == self.shape[-1]

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Array({self.shape}, {self.dtype}, {self.context.device.name})"

    def view(self, shape: tuple[int, ...]) -> Array:
        """The same values in another shape; both must be dense."""
        assert self.dense, f"view: {self!r} is not dense"
        assert prod(shape) == self.size, f"view: {self.shape} as {shape}"
        return Array(self.buffer, shape, self.dtype, self.offset)


def blocks(n: int, each: int) -> int:
    """How many blocks cover n things when each takes `each`; at least one."""
    return max(1, -(-n // each))


class Context:
    """A pair of a device and a memory of it, and no more. memory: a new Arena unless given."""

    __slots__ = ("device", "memory")

    def __init__(self, device: Device, memory: Memory | None = None) -> None:
        self.device = device
        self.memory = Arena(device) if memory is None else memory

    def empty(self, shape: tuple[int, ...], dtype: Any = "float32") -> Array:
        """An array with whatever is there."""
        name = dtype_name(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        assert count <= MAX_ELEMENTS, (
            f"an array of {shape} has more than {MAX_ELEMENTS} elements, which kernels count in 32 bits"
        )
        return Array(Buffer(self.memory, count * ITEMSIZE[name]), shape, name)

    def array(self, x: Any, dtype: Any = "float32") -> Array:
        """x from the host, as dtype."""
        name = dtype_name(dtype)
        given = np.array(x, np.float32 if name == "bfloat16" else name, order="C", ndmin=0)
        y = self.empty(given.shape, name)
        if given.size:
            self.device.write(y.pointer, to_bfloat16(given) if name == "bfloat16" else given)
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

    def capture(self, step: Callable[[], object]) -> Graph:
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


_current: ContextVar[Context | None] = ContextVar("refdiff_cuda_context", default=None)


def current() -> Context:
    """The context in use. DeviceError, which says what to do, where there is none and no GPU."""
    return _current.get() or first_gpu()


@cache
def first_gpu() -> Context:
    """The context of the first GPU, made once. DeviceError, which says what to do, where there is none."""
    from .cupy_device import CupyDevice

    return Context(CupyDevice())


@contextmanager
def use(context: Context) -> Iterator[Context]:
    """Arrays made inside belong to this context."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
