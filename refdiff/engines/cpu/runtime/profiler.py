"""Where the time goes: each operation by its shape and its algorithm.

    with profile() as record:
        y, saved = models.forward(cpu, config, p, x, t)
    print(record.table())

Outside such a block nothing is recorded, and an operation pays for one comparison.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .blas import single_threaded_blas
from .capture import Capture
from .context import current

__all__ = ["Line", "Record", "algorithm", "operation", "profile", "profiled"]

F = TypeVar("F", bound=Callable[..., Any])
_FLOAT32 = np.dtype(np.float32)


class Line(NamedTuple):
    """An operation on arrays of given shapes by a given algorithm ("" where it has but one): calls and seconds in all."""

    operation: str
    shapes: str
    algorithm: str
    calls: int
    seconds: float


@dataclass
class Record:
    """What ran, by (operation, shapes, algorithm)."""

    calls: dict[tuple[str, str, str], int] = field(default_factory=dict)
    seconds: dict[tuple[str, str, str], float] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.Lock, repr=False)

    def add(self, key: tuple[str, str, str], seconds: float) -> None:
        with self.lock:
            self.calls[key] = self.calls.get(key, 0) + 1
            self.seconds[key] = self.seconds.get(key, 0.0) + seconds

    def lines(self) -> list[Line]:
        """Longest first."""
        return [Line(*key, self.calls[key], s) for key, s in sorted(self.seconds.items(), key=lambda item: -item[1])]

    def table(self, most: int = 40) -> str:
        """As text: share of the time, milliseconds, calls, operation, algorithm, shapes."""
        total = sum(self.seconds.values()) or 1.0
        rows = [f"{'share':>6} {'ms':>9} {'calls':>6}  {'operation':34} {'algorithm':18} shapes"]
        for line in self.lines()[:most]:
            share, ms = line.seconds / total, 1e3 * line.seconds
            rows.append(
                f"{share:6.1%} {ms:9.2f} {line.calls:6d}  {line.operation:34} {line.algorithm:18} {line.shapes}"
            )
        return "\n".join([*rows, f"{1:6.0%} {1e3 * total:9.2f} {sum(self.calls.values()):6d}  in all"])


_records: list[Record] = []


@contextmanager
def profile() -> Iterator[Record]:
    """Record every operation of the engine, of all threads, until the block ends."""
    record = Record()
    _records.append(record)
    try:
        yield record
    finally:
        _records.remove(record)


def algorithm(name: str) -> None:
    """The operation that runs on this thread takes this algorithm: what `--profile` shows beside its shape."""
    current().algorithm = name


def profiled(capture: Capture) -> bool:
    """True if a profiler is active; then all calls of the capture are made, and their time goes to their operations."""
    records, done = list(_records), 0
    if not records:
        return False
    for first, last, key in capture.spans:
        if first < done:  # inside an operation that is done
            continue
        capture.run(done, first)
        start = time.perf_counter()
        capture.run(first, last)
        for record in records:
            record.add(key, time.perf_counter() - start)
        done = last
    capture.run(done, len(capture.calls))
    return True


def operation(f: F) -> F:
    """An operation of the engine: float32 alone, the matrix library at one thread, timed by `profile`."""

    @functools.wraps(f)
    def run(*args: Any, **kwargs: Any) -> Any:
        for a in args:
            if isinstance(a, np.ndarray) and a.dtype is not _FLOAT32:
                _check(f, a)
        for a in kwargs.values():
            if isinstance(a, np.ndarray) and a.dtype is not _FLOAT32:
                _check(f, a)
        records, context = list(_records), current()
        capture = context.capture
        with single_threaded_blas:
            if not records and capture is None:
                return f(*args, **kwargs)
            first = len(capture.calls) if capture else 0
            context.algorithm, start = "", time.perf_counter()
            result = f(*args, **kwargs)
            key = (f.__name__, _shapes(args, kwargs), context.algorithm)
            for record in records:
                record.add(key, time.perf_counter() - start)
            if capture is not None:
                capture.spans.append((first, len(capture.calls), key))
            return result

    return run  # type: ignore[return-value]


def _check(f: Callable[..., Any], a: np.ndarray) -> None:
    if a.dtype != _FLOAT32 and a.dtype.kind not in "iu":
        raise ValueError(
            f"{f.__name__}: expected arrays of float32, the one type of the cpu engine, got {a.dtype} of shape "
            f"{a.shape}; convert it with .astype(np.float32), or use the reference engine"
        )


def _shapes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    saved = args[1] if len(args) == 2 and isinstance(args[1], tuple) else ()  # of a backward: x and the weight
    arrays = [a for a in (*args, *kwargs.values(), *saved[:2]) if isinstance(a, np.ndarray)]
    return " ".join("x".join(map(str, a.shape)) or "1" for a in arrays)
