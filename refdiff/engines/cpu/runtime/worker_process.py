"""A worker process: it has an interpreter of its own, so it and this process do not share a GIL.

It is a Python that runs `serve`: it is sent a factory and its arguments, and from then on the name of a method of what that
made, and its arguments; it sends back what the method returned or raised. It ends when its pipe does, so it never outlives
this process.

    process = acquire()
    process.send("open", factory, *args)     # factory(*args) is made there; its result stays there
    process.receive()
    process.send("method", *args)
    result = process.receive()
    release(process)                         # it forgets what it was sent, and is idle
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from ....errors import DeviceError
from . import memory
from .fork import after_fork
from .shared_memory import SharedMemory

__all__ = ["WorkerProcess", "acquire", "available", "release", "serve"]

available = hasattr(socket, "AF_UNIX") and hasattr(os, "fork") and bool(sys.executable)
_idle: list[WorkerProcess] = []
_exiting = False
_lock = threading.RLock()  # the garbage collector may release one process while another is acquired


class WorkerProcess:
    """One call at a time: send, then receive. owner: the process that started it; a fork of that must not use it.

    process: the `Popen`. DeviceError where it cannot be started.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        ours, theirs = socket.socketpair()
        program = f"from {__name__} import serve; serve({theirs.fileno()})"
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._connection = Connection(ours.detach())
        with theirs:
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-c", program], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C does not reach it: this process decides when to stop
                    env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
                )  # fmt: skip
            except OSError as error:
                raise DeviceError(
                    f"a worker process of the cpu engine does not start: {error}; REFDIFF_THREADS=1 works without one"
                ) from error

    def send(self, name: str, *args: Any) -> None:
        """Begin `name(*args)` there: "open" and a factory, "close", or a method of what the factory made.

        A `SharedMemory` among the arguments is mapped there too. TypeError or pickle's error for what cannot be sent.
        """
        shared = [a for a in args if isinstance(a, SharedMemory)]
        sent = [_SharedMemory(a.names, a.count) if isinstance(a, SharedMemory) else a for a in args]
        call = bytes(reduction.ForkingPickler.dumps((name, sent, np.geterr())))
        try:
            self._connection.send((call, len(shared), sys.path if name == "open" else None))
            for a in shared:
                reduction.send_handle(self._connection, a.descriptor, self.process.pid)
        except OSError:
            self._lost()

    def receive(self) -> Any:
        """What the method returned; what it raised is raised here. DeviceError where the process has ended."""
        try:
            succeeded, result, noted = self._connection.recv()
        except (EOFError, OSError):
            self._lost()
        note: Any = np.geterrcall()
        for kind in noted if callable(note) else ():  # floating-point errors there count as if they were here
            note(kind, 0)
        if not succeeded:
            raise result
        return result

    def _lost(self) -> None:
        self.close()
        raise DeviceError(
            f"a worker process of the cpu engine ended, exit status {self.process.returncode}; was memory short? "
            f"REFDIFF_THREADS=1 works without one"
        ) from None

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        """End it, also in the middle of a call."""
        self._connection.close()
        if os.getpid() != self.owner:
            return
        try:
            self.process.wait(1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class _SharedMemory(NamedTuple):
    """Stands for a SharedMemory in a message; its descriptor follows."""

    names: tuple[str, ...]
    numbers: int


def acquire() -> WorkerProcess:
    """An idle process, a new one if there is none."""
    with _lock:
        while _idle:
            process = _idle.pop()
            if process.is_alive():
                return process
            process.close()
    return WorkerProcess()


def release(process: WorkerProcess) -> None:
    """It forgets what it was sent, and is idle; one that has ended is forgotten."""
    if _exiting or os.getpid() != process.owner:
        process.close()
        return
    try:
        process.send("close")
        process.receive()
    except DeviceError:
        return
    with _lock:
        _idle.append(process)


def serve(descriptor: int) -> None:
    """What a worker process runs: one call after another."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    connection, worker = Connection(descriptor), None
    while True:
        try:
            call, count, path = connection.recv()
            descriptors = [reduction.recv_handle(connection) for _ in range(count)]
        except (EOFError, OSError):
            return
        reply: tuple[bool, Any, list[str]] = True, None, (kinds := [])
        name, args = "open", []
        try:
            sys.path[:] = path or sys.path  # what this process may import, as the other does
            name, args, errors = _loaded(call)
            handles = iter(descriptors)
            args = [SharedMemory(*a, next(handles)) if isinstance(a, _SharedMemory) else a for a in args]
            if name == "open":
                factory, *args = args
                worker = factory(*args)
            elif name == "close":
                worker = None
                memory.release()
            else:
                with np.errstate(**errors, call=lambda kind, flag: kinds.append(kind)):
                    reply = True, getattr(worker, name)(*args), kinds
        except Exception as error:
            reply = False, error, kinds
        del args, call
        try:
            connection.send(reply)
        except OSError:  # nobody waits for it
            return
        except Exception as error:  # what cannot be pickled is told in words
            connection.send((False, RuntimeError(f"{name}: {reply[1]!r}: {error}"), kinds))


def _loaded(call: bytes) -> Any:
    """DeviceError where what is sent is of a module that cannot be imported here."""
    try:
        return pickle.loads(call)
    except (AttributeError, ImportError) as error:
        raise DeviceError(
            f"a worker process of the cpu engine does not find what it is sent: {error}; define it in a module that can be "
            "imported, not in a script, or set REFDIFF_THREADS=1, which works without one"
        ) from None


def _close_idle() -> None:
    global _exiting
    _exiting = True
    while _idle:
        _idle.pop().close()


@after_fork
def _reset() -> None:
    """A child process of fork has no worker processes: they are its parent's."""
    global _lock
    _lock = threading.RLock()
    _idle.clear()


atexit.register(_close_idle)
