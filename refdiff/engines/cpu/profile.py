"""Where the time goes: each operation by its shape and the form it took.

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
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from . import blas

if TYPE_CHECKING:
    from .recording import Recording

__all__ = ["Line", "Record", "current", "form", "operation", "profile", "profiled", "written_down"]

F = TypeVar("F", bound=Callable[..., Any])
_FLOAT32 = np.dtype(np.float32)


class Line(NamedTuple):
    """An operation on arrays of given shapes in a given form ("" where it has but one): calls and seconds in all."""

    operation: str
    shapes: str
    form: str
    calls: int
    seconds: float


@dataclass
class Record:
    """What ran, by (operation, shapes, form)."""

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
        """As text: share of the time, milliseconds, calls, operation, form, shapes."""
        total = sum(self.seconds.values()) or 1.0
        rows = [f"{'share':>6} {'ms':>9} {'calls':>6}  {'operation':34} {'form':18} shapes"]
        for line in self.lines()[:most]:
            share, ms = line.seconds / total, 1e3 * line.seconds
            rows.append(f"{share:6.1%} {ms:9.2f} {line.calls:6d}  {line.operation:34} {line.form:18} {line.shapes}")
        return "\n".join([*rows, f"{1:6.0%} {1e3 * total:9.2f} {sum(self.calls.values()):6d}  in all"])


class _Local(threading.local):
    form = ""
    recording: Recording | None = None


_records: list[Record] = []
_local = _Local()


@contextmanager
def profile() -> Iterator[Record]:
    """Record every operation of the engine, of all threads, until the block ends."""
    record = Record()
    _records.append(record)
    try:
        yield record
    finally:
        _records.remove(record)


def form(name: str) -> None:
    """The operation that runs on this thread takes this form: what `--profile` shows beside its shape."""
    if _records or _local.recording is not None:
        _local.form = name


@contextmanager
def written_down(recording: Recording) -> Iterator[None]:
    """Inside, on this thread, calls of NumPy are written down, and which of them are an operation's."""
    _local.recording = recording
    try:
        yield
    finally:
        _local.recording = None


def current() -> Recording | None:
    """Where this thread's calls are written down, if they are."""
    return _local.recording


def profiled(recording: Recording, play: Callable[[int, int], None]) -> bool:
    """Whether somebody records; then all calls of the recording are played, and their time goes to their operations."""
    records, done = list(_records), 0
    if not records:
        return False
    for first, last, key in recording.spans:
        if first < done:  # inside an operation that is done
            continue
        play(done, first)
        start = time.perf_counter()
        play(first, last)
        for record in records:
            record.add(key, time.perf_counter() - start)
        done = last
    play(done, len(recording.calls))
    return True


def operation(f: F) -> F:
    """An operation of the engine: float32 alone, the matrix library at one thread, recorded by `profile`."""

    @functools.wraps(f)
    def run(*args: Any, **kwargs: Any) -> Any:
        for a in args:
            if isinstance(a, np.ndarray) and a.dtype is not _FLOAT32:
                _check(f, a)
        for a in kwargs.values():
            if isinstance(a, np.ndarray) and a.dtype is not _FLOAT32:
                _check(f, a)
        records, recording = list(_records), _local.recording
        blas.enter()
        try:
            if not records and recording is None:
                return f(*args, **kwargs)
            first = len(recording.calls) if recording else 0
            _local.form, start = "", time.perf_counter()
            result = f(*args, **kwargs)
            key = (f.__name__, _shapes(args, kwargs), _local.form)
            for record in records:
                record.add(key, time.perf_counter() - start)
            if recording is not None:
                recording.spans.append((first, len(recording.calls), key))
            return result
        finally:
            blas.leave()

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
