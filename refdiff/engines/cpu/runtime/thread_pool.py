"""Threads of our own: an operation is cut into tasks, and whoever is free takes the next one.

How it is cut depends on the shapes alone, not on the number of threads (unless the tasks are the same calls either way), and
no two tasks add to one number: the bits of a result are the same for 1, 2 or 8 threads. NumPy lets go of the interpreter's
lock inside ufuncs and products.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from itertools import count
from queue import SimpleQueue
from typing import Any

from .context import current, using
from .fork import after_fork

__all__ = ["Settings", "available", "parallel_for", "parallel_sections", "settings", "threads"]


def _cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _checked(name: str, n: int) -> int:
    if not isinstance(n, int) or not 1 <= n <= _cores():
        raise ValueError(
            f"{name}: expected a number of threads from 1 to {_cores()}, the cores this process may use, got {n!r}; "
            f"leave it out to use them all"
        )
    return n


def _from_environment() -> int:
    text = os.environ.get("REFDIFF_THREADS")
    if text is None:
        return _cores()
    try:
        n = int(text)
    except ValueError:
        raise ValueError(
            f"REFDIFF_THREADS: expected a whole number from 1 to {_cores()}, got {text!r}; unset it to use all cores"
        ) from None
    return _checked("REFDIFF_THREADS", n)


@dataclass
class Settings:
    """threads: that an operation may use; None until it is asked for the first time."""

    threads: int | None = None


settings = Settings()
_workers: list[threading.Thread] = []
_queue: SimpleQueue[tuple[Context, _Job]] = SimpleQueue()
_starting = threading.Lock()


def threads(n: int | None = None) -> int:
    """How many threads an operation uses; with n, from now on n.

    At first REFDIFF_THREADS of the environment, or else every core this process may use. ValueError for fewer than one
    or more than there are cores.
    """
    if n is not None:
        settings.threads = _checked("threads", n)
    elif settings.threads is None:
        settings.threads = _from_environment()
    return settings.threads


def available() -> int:
    """How many threads an operation that this thread begins may use."""
    most = current().threads
    return threads() if most is None else min(threads(), most)


class _Job:
    """Tasks 0 .. n-1, of which each thread that helps takes the next until none is left."""

    def __init__(self, task: Callable[[int], Any], n: int) -> None:
        self.task: Callable[[int], Any] | None = task
        self.n = n
        self.numbers = count()
        self.done = 0
        self.lock = threading.Lock()
        self.finished = threading.Lock()
        self.finished.acquire()
        self.error: BaseException | None = None

    def help(self) -> None:
        mine = 0
        for i in self.numbers:
            if i >= self.n:
                break
            try:
                if self.error is None:
                    self.task(i)  # type: ignore[misc]
            except BaseException as error:
                self.error = error
            mine += 1
        with self.lock:
            self.done += mine
            if mine and self.done == self.n:
                self.finished.release()


def parallel_for(n: int, task: Callable[[int], Any], serial: bool = False) -> None:
    """task(0) ... task(n - 1), in any order, on this thread and the pool's. The first error is raised when all stopped.

    serial: by this thread only. Several threads of the program may call this at once: each does its own tasks, with
    whatever help is free.
    """
    helpers = 0 if serial or n < 2 else min(available(), n) - 1
    if helpers <= 0:
        for i in range(n):
            task(i)
        return
    if len(_workers) < helpers:
        _start(helpers)
    job = _Job(task, n)
    for _ in range(helpers):
        _queue.put((copy_context(), job))  # where NumPy has what becomes of floating-point errors
    job.help()
    job.finished.acquire()
    job.task = None  # a thread that comes late holds the job, and must not hold the arrays of the task
    if job.error is not None:
        raise job.error


def parallel_sections(n: int, task: Callable[[int], Any], serial: bool = False) -> None:
    """`parallel_for` of a few large tasks, which divide the threads among themselves."""
    threads = available()
    if serial or n < 2 or threads < 2:
        parallel_for(n, task, serial=True)
        return

    def run(i: int) -> None:
        with using(threads=max(1, threads // n)):
            task(i)

    parallel_for(n, run)


def _start(n: int) -> None:
    with _starting:
        while len(_workers) < n:
            worker = threading.Thread(target=_work, args=(_queue,), name=f"refdiff-cpu-{len(_workers)}", daemon=True)
            worker.start()
            _workers.append(worker)


def _work(queue: SimpleQueue[tuple[Context, _Job]]) -> None:
    while True:
        context, job = queue.get()
        context.run(job.help)
        del context, job  # or they would wait here with all that they hold


@after_fork
def _reset() -> None:
    """A child process of fork has none of its parent's threads."""
    global _queue, _starting
    _workers.clear()
    _queue, _starting = SimpleQueue(), threading.Lock()
