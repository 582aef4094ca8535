"""A user's kernel: compiled, checked against the reference, and timed beside ours.

    refdiff bench --kernel my.cu:my_norm --as group_norm

How it is called stands in `conventions`. Correctness first: what is wrong is not timed.
"""

from __future__ import annotations

import copy
import ctypes
import re
import shutil
import tempfile
from contextlib import suppress
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from ..engines import cuda, reference
from ..engines.cuda.runtime.arena import Arena
from ..engines.cuda.runtime.device import Device, DeviceError, Kernel
from ..engines.cuda.runtime.sources import KERNELS
from ..errors import one_of
from ..testing.measures import relative_error
from .cases import operands
from .conventions import CONVENTIONS, Launch, launch_of
from .device import COPIES, Stopwatch, captured
from .statistics import paired, summary

__all__ = ["check_and_time", "compile_alone", "parse"]

ROUNDS, REPEATS = 15, 3
_FIGURES = re.compile(r"\d+ bytes stack frame.*|Used \d+ registers.*")
_ENOUGH = 1 << 20  # numbers of an input that the reference works on


def parse(text: str, operation: str | None) -> tuple[Path, str, str]:
    """FILE.cu:NAME and the operation it does.   ValueError for what is not there."""
    path, colon, name = text.rpartition(":")
    if not colon or not path or not name.isidentifier():
        raise ValueError(f"--kernel: expected FILE.cu:NAME, the file and the function in it, got {text!r}")
    if not Path(path).is_file():
        raise ValueError(f"--kernel: expected a file, got {path}, which does not exist")
    if operation is None:
        raise ValueError(f"--as: expected the operation that {name} does, one of {', '.join(CONVENTIONS)}")
    one_of("--as", operation, CONVENTIONS)
    _check_signature(Path(path), name, operation)
    return Path(path), name, operation


def compile_alone(path: Path, name: str, dtype: str) -> dict[str, str]:
    """architecture -> registers, shared memory and spills, as the compiler says, whose words a DeviceError holds."""
    from ..engines.cuda.runtime import nvrtc

    compiler, found = nvrtc.find(), {}
    with _beside_ours(path) as folder:
        for architecture in ("sm_80", "sm_90a"):
            compiled = compiler.compile(Path(folder) / path.name, _defines(dtype), architecture)
            if f"'{name}'" not in compiled.log:
                raise ValueError(
                    f'--kernel: {path.name} has no kernel {name}: expected extern "C" __global__ void {name}(...)'
                )
            found[architecture] = _usage(compiled.log, name)
    return found


def check_and_time(
    path: Path, name: str, operation: str, dtype: str, device: Device, timed: bool = True
) -> dict[str, Any]:
    """The errors of each shape beside their bounds, and on the first shape both times and their paired ratio.

    ValueError if a result is wrong, with the shape, the error and the bound.
    """
    convention = CONVENTIONS[operation]
    found: dict[str, Any] = {"kernel": f"{path.name}:{name}", "operation": operation, "dtype": dtype, "device": device.name,
                             "checked": []}  # fmt: skip
    with _beside_ours(path) as folder:
        kernel = Kernel(str(Path(folder) / path.name), name, _defines(dtype))
        for shape in reversed(convention.shapes if timed else convention.shapes[1:]):
            arena = Arena(device)
            context = cuda.Context(device, arena)
            with cuda.use(context):
                job = _Job(context, kernel, path, operation, shape, dtype)
                found["checked"].append(job.check())
            if timed and shape is convention.shapes[0]:
                found |= _time(job, context, device)
            del job
            arena.close()
    return found


class _Job:
    """One shape: the operands on the device, and what the kernel is called with."""

    def __init__(
        self, context: cuda.Context, kernel: Kernel, path: Path, operation: str, shape: Any, dtype: str
    ) -> None:
        inputs, parameters, options = shape
        convention = CONVENTIONS[operation]
        self.context, self.kernel, self.operation, self.options, self.dtype = context, kernel, operation, options, dtype
        self.sizes = convention.sizes(inputs, parameters, options)
        self.terms = convention.terms(self.sizes)
        case = {"inputs": inputs, "parameters": parameters, "options": options, "seed": 1}
        x, p, _ = operands(case)
        self.x = [cuda.array(a, dtype) for a in x]
        self.p = {k: cuda.array(a, dtype if a.ndim > 1 else "float32") for k, a in p.items()}
        self.launch: Launch = launch_of(path, kernel.name, self.sizes | {"sizeof_T": 2 if dtype == "bfloat16" else 4})
        # Samples, or rows, do not know of each other: of a large case the reference does the first few.
        some = max(1, min(len(x[0]), _ENOUGH * len(x[0]) // x[0].size))
        given = [cuda.host(a)[:some].astype(np.float64) for a in self.x]
        p = {k: cuda.host(a).astype(np.float64) for k, a in self.p.items()}
        self.expected, _ = getattr(reference, operation)(*given, **p, **options)
        self.y = cuda.array(np.full((len(x[0]), *self.expected.shape[1:]), np.nan), dtype)
        self.arguments = self._arguments()

    def _arguments(self) -> list[Any]:
        convention = CONVENTIONS[self.operation]
        return [
            *(ctypes.c_void_p(a.pointer) for a in (*self.x, *self.p.values(), self.y)),
            *map(ctypes.c_float, convention.scalars(self.sizes)),
            *map(ctypes.c_int, self.sizes.values()),
        ]

    def another(self) -> _Job:
        """The same on arrays of its own."""
        other = copy.copy(self)
        with cuda.use(self.context):
            other.x = [cuda.array(cuda.host(a), a.dtype) for a in self.x]
            other.p = {k: cuda.array(cuda.host(a), a.dtype) for k, a in self.p.items()}
            other.y = self.context.empty(self.y.shape, self.y.dtype)
        other.arguments = other._arguments()
        return other

    def theirs(self) -> None:
        self.context.device.launch(self.kernel, self.launch.grid, self.launch.block, self.arguments, self.launch.shared)

    def ours(self) -> Any:
        return getattr(cuda, self.operation)(*self.x, **self.p, **self.options)

    def check(self) -> dict[str, Any]:
        before = [cuda.host(a) for a in (*self.x, *self.p.values())]
        self.theirs()
        y = cuda.host(self.y)
        missing, actual = int(np.isnan(y).sum()), y[: len(self.expected)].astype(np.float64)
        shape = " ".join(f"{k}={v}" for k, v in self.sizes.items())
        error = relative_error(actual, self.expected)
        bound = 1.6e-2 if self.dtype == "bfloat16" else 4 * sqrt(max(self.terms, 16)) * 2.0**-24
        if missing or not error <= bound:
            unwritten = f"; {missing} of {y.size} values are NaN or were not written" if missing else ""
            raise ValueError(
                f"{self.kernel.name} is not {self.operation}: at {shape} expected an error of at most {bound:.1e} in norm, "
                f"got {error:.1e}{unwritten}; see docs/benchmarks.md for what it is given"
            )
        for a, b in zip((*self.x, *self.p.values()), before, strict=True):
            if not np.array_equal(cuda.host(a), b):
                raise ValueError(f"{self.kernel.name} writes into its inputs, at {shape}")
        return {"sizes": self.sizes, "error": error, "bound": bound}


def _time(job: _Job, context: cuda.Context, device: Device) -> dict[str, Any]:
    """Both as graphs, in turns."""
    watch, jobs = Stopwatch(device), [job, *(job.another() for _ in range(COPIES - 1))]
    runs = [captured(context, [j.theirs for j in jobs])[0], captured(context, [j.ours for j in jobs])[0]]
    times: list[list[list[float]]] = [[], []]
    for turn in range(ROUNDS):
        for i in (0, 1) if turn % 2 == 0 else (1, 0):
            times[i].append(watch.seconds(runs[i], REPEATS, COPIES))
    theirs, ours = (summary([s for row in rows for s in row]) for rows in times)
    return {"sizes": job.sizes, "theirs": theirs, "ours": ours, "ratio": paired(times[0], times[1])}


def _defines(dtype: str) -> tuple[tuple[str, int], ...]:
    return (("BF16", 1),) if dtype == "bfloat16" else ()


def _check_signature(path: Path, name: str, operation: str) -> None:
    """The kernel is there and takes as many pointers, floats and integers as it will be given, in that order."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", path.read_text(errors="replace"), flags=re.S)
    found = re.search(rf"__global__[^;{{}}]*?\b{re.escape(name)}\s*\(([^)]*)\)", text)
    if not found:
        raise ValueError(f'--kernel: {path.name} has no kernel {name}: expected extern "C" __global__ void {name}(...)')
    expected = CONVENTIONS[operation].arguments
    if _kinds(found[1]) != _kinds(expected):
        raise ValueError(
            f"--kernel: {name} as {operation} is given ({expected}), T being float or bfloat16: got "
            f"({' '.join(found[1].split())})"
        )


def _kinds(arguments: str) -> list[str]:
    return ["*" if "*" in a else "float" if "float" in a else "int" for a in arguments.split(",")]


class _beside_ours(tempfile.TemporaryDirectory):
    """A folder with the file, the headers beside it, and ours, which it may include as <device.cuh>."""

    def __init__(self, path: Path) -> None:
        super().__init__(prefix="refdiff-bench-")
        for header in (*KERNELS.glob("*.cuh"), *path.resolve().parent.glob("*.cuh")):
            shutil.copy(header, self.name)
        with suppress(shutil.SameFileError):
            shutil.copy(path, self.name)


def _usage(log: str, name: str) -> str:
    """What ptxas says of one kernel."""
    lines = log.splitlines()
    at = next(i for i, line in enumerate(lines) if f"'{name}'" in line)
    return "; ".join(found[0] for line in lines[at + 1 : at + 4] if (found := _FIGURES.search(line)))


def no_gpu(found: dict[str, str], error: DeviceError) -> DeviceError:
    """What to say where it compiles and there is no GPU."""
    return DeviceError(f"it compiles for {' and '.join(found)}; to check and time it takes a GPU: {error}")
