"""A second process that does half of the work: it has an interpreter's lock of its own.

It is a Python that runs `serve`: it takes the name of a method and its arguments, and sends back what the method returned
or raised. It ends when its pipe does, so it never outlives this process.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from ..errors import DeviceError
from .shared import Shared

__all__ = ["Partner", "available", "give_back", "serve", "take"]

available = hasattr(socket, "AF_UNIX") and hasattr(os, "fork") and bool(sys.executable)
_idle: list[Partner] = []
_ending = False
_lock = threading.RLock()  # a partner may be given back while another is taken: by the garbage collector


class Partner:
    """One question at a time: ask, then answer. owner: the process that it is of; to a fork of that it means nothing."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        ours, theirs = socket.socketpair()
        program = f"from refdiff.training.partner import serve; serve({theirs.fileno()})"
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._connection = Connection(ours.detach())
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", program], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                    start_new_session=True,  # out of reach of Ctrl-C: the first process decides when to stop
                    env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
                )  # fmt: skip
            except OSError as error:
                raise DeviceError(
                    f"the second process of the cpu engine does not start: {error}; REFDIFF_THREADS=1 works without one"
                ) from error

    def ask(self, name: str, *args: Any) -> None:
        """Begin `name(*args)` there; a `Shared` among the arguments is seen there too."""
        shared = [a for a in args if isinstance(a, Shared)]
        try:
            places = [_Place(a.names, a.count) if isinstance(a, Shared) else a for a in args]
            self._connection.send((name, places, np.geterr()))
            for a in shared:
                reduction.send_handle(self._connection, a.descriptor, self._process.pid)
        except OSError:
            self._lost()

    def answer(self) -> Any:
        """What the method returned; what it raised is raised here."""
        try:
            good, result, noted = self._connection.recv()
        except (EOFError, OSError):
            self._lost()
        note: Any = np.geterrcall()
        for kind in noted if callable(note) else ():  # floating-point errors there count as if they were here
            note(kind, 0)
        if not good:
            raise result
        return result

    def _lost(self) -> None:
        self.end()
        raise DeviceError(
            f"the second process of the cpu engine ended, exit status {self._process.returncode}; was memory short? "
            f"REFDIFF_THREADS=1 works without one"
        ) from None

    def lives(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        self._connection.close()
        if os.getpid() != self.owner:
            return
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Place(NamedTuple):
    """Stands for a Shared on the way."""

    names: tuple[str, ...]
    numbers: int


def take() -> Partner:
    """A partner that does nothing else, a new one if none is idle."""
    with _lock:
        while _idle:
            partner = _idle.pop()
            if partner.lives():
                return partner
            partner.end()
    return Partner()


def give_back(partner: Partner) -> None:
    """It forgets what it has, and is idle."""
    if _ending or os.getpid() != partner.owner:
        partner.end()
        return
    try:
        partner.ask("close")
        partner.answer()
    except DeviceError:
        return
    with _lock:
        _idle.append(partner)


def serve(descriptor: int) -> None:
    """The second process: methods of a `Half`, one after another."""
    from ..engines.cpu.runtime.memory import release
    from .halves import Half

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    connection, half = Connection(descriptor), None
    while True:
        try:
            name, args, errors = connection.recv()
            args = [Shared(*a, reduction.recv_handle(connection)) if isinstance(a, _Place) else a for a in args]
        except (EOFError, OSError):
            return
        answer: tuple[bool, Any, list[str]] = True, None, (kinds := [])
        try:
            if name == "open":
                half = Half(*args)
            elif name == "close":
                half = None
                release()
            else:
                with np.errstate(**errors, call=lambda kind, flag: kinds.append(kind)):
                    answer = True, getattr(half, name)(*args), kinds
        except Exception as error:
            answer = False, error, kinds
        del args
        try:
            connection.send(answer)
        except OSError:  # nobody waits for it
            return
        except Exception as error:  # what cannot be sent, by its words
            connection.send((False, RuntimeError(f"{name}: {answer[1]!r}: {error}"), kinds))


def _end_idle() -> None:
    global _ending
    _ending = True
    while _idle:
        _idle.pop().end()


def _forget() -> None:
    """A child process of fork has no partners: they are its parent's."""
    global _lock
    _lock = threading.RLock()
    _idle.clear()


atexit.register(_end_idle)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
