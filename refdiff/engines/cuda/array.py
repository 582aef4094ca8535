"""An array on a device: an address, a shape and a type. Nothing is ever written in place but by the optimiser."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .context import Context

__all__ = ["ITEMSIZE", "Array", "Buffer", "dtype_name"]

ITEMSIZE = {"float32": 4, "bfloat16": 2, "int32": 4, "uint32": 4, "int64": 8, "float64": 8}


def dtype_name(dtype: Any) -> str:
    """ "float32" of np.float32, "float32", np.dtype("float32"); "bfloat16" is known by its name alone."""
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    if name not in ITEMSIZE:
        raise ValueError(f"dtype: expected one of {', '.join(ITEMSIZE)}, got {name}")
    return name


class Buffer:
    """Memory that is given back when the last array in it is gone."""

    __slots__ = ("context", "pointer")

    def __init__(self, context: Context, nbytes: int) -> None:
        self.context, self.pointer = context, context.memory.allocate(nbytes)

    def __del__(self) -> None:
        pointer = getattr(self, "pointer", None)
        if pointer is not None:
            self.context.memory.free(pointer)


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
        return self.buffer.context

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
