"""Splits each batch between this process and worker processes.

In one process two threads of Python wait for each other at every small operation; two processes do not. The shards of a
batch (`shards.py`) are the same whatever the number of processes, so the bits of a result are too: a process computes a
group of neighbouring shards in one pass, and writes its gradient to a buffer of its own. Then each process adds up, clips
and updates an equal part of the weights.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

import numpy as np

from ..winograd import forget_weights
from . import flat_optimiser
from .blas import single_threaded_blas
from .captured import Captured
from .context import using
from .dry_run import Memory, dry_run
from .gradient_buffer import GradientBuffer, address
from .shards import split
from .shared_memory import SharedMemory
from .thread_pool import threads
from .traced_array import CaptureError, graph_input
from .worker_process import WorkerProcess, acquire, available, release

__all__ = ["WORTH", "DataParallel", "ShardWorker", "gradient_buffers"]

WORTH = 1 << 20  # weights times samples that each doubling of the processes takes: with fewer it would not pay

MOST_PASSES = 16  # captured at a time

LossAndGradients: TypeAlias = Callable[..., tuple[Any, Iterable[tuple[int, np.ndarray]]]]


def gradient_buffers(shards: int) -> tuple[str, ...]:
    """Names of the buffers that `ShardWorker.differentiate` writes to: one a process, of which there may be `shards`."""
    return tuple(f"g{i}" for i in range(shards))


class ShardWorker:
    """What one process computes: a subclass says what, in methods that `DataParallel` calls; how is here.

    buffers: p, and for training those of `gradient_buffers` among others, all (size,). used_twice: keys of `differentiate`
    whose function uses a parameter more than once, or makes more of what it made of parameters alone (`gradient_of_sum`):
    over several shards its gradients would not be added up in the order of the shards. passes: what is called for each
    buffer and key, a `Captured` unless that could not be captured.
    """

    def __init__(self, buffers: SharedMemory) -> None:
        self.buffers = buffers
        self.used_twice = set[Any]()
        self.passes: dict[Any, tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]] = {}
        forget_weights()

    def call(self, count: int, name: str, *args: Any) -> Any:
        """self.name(*args), with at most count threads."""
        with using(threads=count):
            return getattr(self, name)(*args)

    def differentiate(self, i: int, shards: int, key: Any, f: LossAndGradients, *arrays: np.ndarray) -> np.ndarray:
        """The array that f(p, *arrays) gives for this many shards; its gradients are then in buffer g<i>.

        f -> an array and, for each parameter that is trained, its offset in the buffer p and its gradient. For each key f is
        captured once: what it uses besides p and the arrays must be the same for the same key. What cannot be captured is
        called each time.
        """
        place = i, key
        if place not in self.passes:
            if len(self.passes) >= MOST_PASSES:
                self.passes.clear()
            plain: Callable[..., np.ndarray] = partial(
                _differentiate, f, self.buffers["p"], self.buffers[f"g{i}"], partial(self.used_twice.add, key)
            )
            self.passes[place] = Captured(plain), plain
        captured, plain = self.passes[place]
        with self.running(shards):
            try:
                return captured(*arrays)
            except CaptureError:
                self.passes[place] = plain, plain
                return plain(*arrays)

    def memory(self, shards: int, f: LossAndGradients, *arrays: np.ndarray) -> Memory:
        """What `differentiate` takes beside the buffers, once f is captured: nothing is computed. CaptureError for an f that
        cannot be."""
        with self.running(shards):
            return dry_run(partial(_differentiate, f, self.buffers["p"], self.buffers["g0"], lambda: None), *arrays)

    def squares(self, i: int, processes: int, regions: list[slice], buffers: int) -> list[list[float]]:
        """g0 <- the sum of so many buffers of gradients, in part i of each region, and its sums of squares."""
        gradients = [self.buffers[name] for name in gradient_buffers(buffers)]
        return [flat_optimiser.squares(*_first_and_others(gradients, region), (i, processes)) for region in regions]

    @contextmanager
    def running(self, shards: int) -> Iterator[None]:
        """Inside, operations get so many shards."""
        with single_threaded_blas, using(shards=shards):
            yield


def _first_and_others(buffers: list[np.ndarray], region: slice) -> tuple[np.ndarray, list[np.ndarray]]:
    first, *others = (buffer[region] for buffer in buffers)
    return first, others


def _differentiate(
    f: Callable[..., Any], p: np.ndarray, g: np.ndarray, used_twice: Callable[[], None], *arrays: np.ndarray
) -> Any:
    """What f gives; the gradients are then in g, where most were written in the first place."""
    p, g = graph_input(p), graph_input(g)
    buffer = GradientBuffer(p, g)
    with using(gradients=buffer):
        result, gradients = f(p, *arrays)
    if buffer.refused:
        used_twice()
    for offset, leaf in gradients:
        place = g[offset : offset + leaf.size]
        if address(leaf) != address(place):
            place[...] = leaf.reshape(-1)
    return result


class DataParallel:
    """A `ShardWorker` in this process and in each worker process, and their methods that take a batch.

    factory(*args) makes the worker of a process; both are pickled. size: of a buffer, as the cost of a sample. shards: of a
    batch, a power of two (ValueError otherwise). local: this process's worker; others: the worker processes, which start
    when they are first used.
    """

    def __init__(self, factory: Callable[..., ShardWorker], args: tuple[Any, ...], size: int, shards: int = 2) -> None:
        if shards < 1 or shards & (shards - 1):
            raise ValueError(f"shards: expected a power of two, got {shards}; set 1, 2, 4 or 8")
        self.shards, self.size = shards, size
        self.local, self.others = factory(*args), list[WorkerProcess]()
        self._open = "open", factory, *args
        self._lock = threading.Lock()

    def processes(self, n: int) -> int:
        """How many compute n samples: a power of two, at most the shards, samples and threads, and only what pays."""
        count = 1
        while available and 2 * count <= min(threads(), self.shards, n) and n * self.size >= count * WORTH:
            count *= 2
        return count

    def parts(self, n: int) -> list[slice]:
        """The part of n samples that each process computes, self.shards / their number shards each. ValueError where more
        than two shards do not divide n."""
        if self.shards > 2 and n % self.shards:
            raise ValueError(
                f"batch: expected a multiple of the {self.shards} shards, got {n} samples; change one of the two"
            )
        return list(split(n, self.processes(n)))

    def norms(self, processes: int, regions: list[slice], buffers: int) -> list[float]:
        """The norm of the sum of so many buffers of gradients in each region; the sum is then in buffer g0."""
        sums = self.run([("squares", i, processes, regions, buffers) for i in range(processes)])
        return [math.sqrt(math.fsum(chain.from_iterable(part))) for part in zip(*sums, strict=True)]

    def predict(self, *arrays: np.ndarray) -> np.ndarray:
        """What the workers' `predict(shards, *arrays)` gives for all samples.   arrays (N, ...) -> (N, ...)."""
        count = self.processes(len(arrays[0]))
        if count == 1 or not self._lock.acquire(blocking=False):  # the other processes are busy
            return self.run([("predict", self.shards, *arrays)])[0]
        try:
            parts = split(len(arrays[0]), count)
            calls = [("predict", self.shards // count, *(a[part] for a in arrays)) for part in parts]
            return np.concatenate(self.run(calls))
        finally:
            self._lock.release()

    def run(self, calls: list[tuple[Any, ...]]) -> list[Any]:
        """What each call (name, *args) of a worker's method returns: the first is made here, the others at the same time in
        a process each."""
        count, others = max(1, threads() // len(calls)), self._processes(len(calls) - 1)
        try:
            for process, call in zip(others, calls[1:], strict=True):
                process.send("call", count, *call)
            return [self.local.call(count, *calls[0]), *(process.receive() for process in others)]
        except BaseException:  # whatever the others are doing now, nobody waits for it
            if others:
                self._close()
            raise

    def _processes(self, count: int) -> list[WorkerProcess]:
        """The first count worker processes; those that are missing start at the same time."""
        if self.others and self.others[0].owner != os.getpid():
            self.others = []
        started = len(self.others)
        try:
            while len(self.others) < count:
                process = acquire()
                self.others.append(process)
                process.send(*self._open)
                weakref.finalize(self, release, process)
            for process in self.others[started:]:
                process.receive()
        except BaseException:
            self._close()
            raise
        return self.others[:count]

    def _close(self) -> None:
        others, self.others = self.others, []
        for process in others:
            process.close()
