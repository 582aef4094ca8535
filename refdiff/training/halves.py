"""A batch is worked on in two halves, the second one by another process where there are two threads.

In one process two threads of Python wait for each other at every small step; two processes do not. The halves are the
same whatever the number of threads, so the bits of a result are too. Each half has a buffer for its gradient; then each
process adds up, clips and updates one half of the weights.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from .. import models
from ..config import Config
from ..engines import cpu
from ..engines.cpu.division import halves, undivided
from ..engines.cpu.optimiser import squares, update
from ..engines.cpu.runtime.blas import single_threaded_blas
from ..engines.cpu.runtime.captured import Captured
from ..engines.cpu.runtime.context import using
from ..engines.cpu.runtime.gradient_buffer import GradientBuffer, address
from ..engines.cpu.runtime.traced_array import graph_input
from ..engines.cpu.winograd import generation
from ..models import flatten
from ..process import Schedule
from . import partner
from .packing import Packing
from .shared import Shared
from .step import noised, there_and_back

__all__ = ["Half", "Halves"]

_WORTH = 1 << 20  # weights times samples; with fewer the second process would not pay


class Half:
    """What one process does: everything for its half of the batch, or of the weights.

    buffers: p, and for training also average, m, v and the gradients g0 and g1, each as `Packing` lays them out.
    """

    def __init__(self, config: Config, schedule: Schedule, buffers: Shared, threads: int) -> None:
        self.config, self.schedule, self.buffers, self.threads = config, schedule, buffers, threads
        self.packing = Packing.of(models.layout(config.model))
        self.p = self.packing.unpack(buffers["p"])
        self._predicting = Captured(partial(models.predict, cpu, config.model, self.p), after=3, state=generation)
        self._passing: tuple[Any, Callable[..., np.ndarray]] = None, _pass
        cpu.forget_weights()

    def gradient(self, i: int, step: int, x0: np.ndarray, first: int, share: float) -> float:
        """The loss on x0, which begins at sample `first` of a batch and is so large a share of it; share times its
        gradient is then in buffer g<i>."""
        place = i, first, share
        if place != self._passing[0]:
            own = self.buffers["p"], self.buffers[f"g{i}"]
            self._passing = place, Captured(partial(_pass, self.config, self.packing, *own, first, share))
        x_t, t, wanted = noised(self.config, self.schedule, x0, step, first)
        with self._running(share < 1):
            return float(self._passing[1](x_t, t, wanted, np.asarray(step)))

    def squares(self, i: int, both: bool) -> list[float]:
        """g0 += g1 if both are there, in half i of the weights, and the sums of squares of its parts."""
        with using(threads=self.threads):
            return squares(self.buffers["g0"], self.buffers["g1"] if both else None, (i, 2))

    def update(self, i: int, step: int, rate: float, scale: float) -> None:
        """Weights, moments and average of half i of the weights, for the gradient scale * g0."""
        s = self.config.train
        p, g, m, v, average = (self.buffers[name] for name in ("p", "g0", "m", "v", "average"))
        with using(threads=self.threads):
            update(p, g, m, v, average, step, rate, s.weight_decay, scale=scale, decay=s.average, share=(i, 2))

    def predict(self, x_t: np.ndarray, t: np.ndarray, half: bool) -> np.ndarray:
        """The network's prediction, for half of a batch or all of it."""
        with self._running(half):
            return self._predicting(cpu.array(x_t), t)

    @contextmanager
    def _running(self, half: bool) -> Iterator[None]:
        with using(threads=self.threads), single_threaded_blas, undivided() if half else nullcontext():
            yield


def _pass(
    config: Config, packing: Packing, p: np.ndarray, g: np.ndarray, first: int, share: float,
    x_t: np.ndarray, t: np.ndarray, wanted: np.ndarray, step: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """The loss with the weights in buffer p; share times its gradient is then in buffer g."""
    p, g = graph_input(p), graph_input(g)
    with using(gradients=GradientBuffer(p, g)):
        loss, tree = there_and_back(config, packing.unpack(p), x_t, t, wanted, step, first, share)
    for name, leaf in flatten(tree).items():
        offset, _ = packing.places[name]
        place = g[offset : offset + leaf.size]
        if address(leaf) != address(place):
            place[...] = leaf.reshape(-1)
    return loss


class Halves:
    """Both halves, in one process or two. names: of the buffers, see `Half`."""

    def __init__(self, config: Config, schedule: Schedule, names: tuple[str, ...]) -> None:
        self.config, self.schedule = config, schedule
        self.packing = Packing.of(models.layout(config.model))
        self.buffers = Shared(names, self.packing.size)
        self._half = Half(config, schedule, self.buffers, 1)
        self._partner: partner.Partner | None = None
        self._lock = threading.Lock()

    def step(self, number: int, x0: np.ndarray) -> tuple[float, float]:
        """Loss and norm of the gradient, which is then in g0."""
        pair = self.two(len(x0))
        parts = halves(len(x0)) if pair else [slice(0, len(x0))]
        asked = [("gradient", i, number, x0[own], own.start, len(x0[own]) / len(x0)) for i, own in enumerate(parts)]
        losses = self._both(asked, pair)
        sums = self._both([("squares", i, pair) for i in range(2)], pair)
        loss = sum(share * loss for (*_, share), loss in zip(asked, losses, strict=True))
        return float(loss), math.sqrt(math.fsum(chain.from_iterable(sums)))

    def update(self, number: int, rate: float, scale: float, n: int) -> None:
        """The step that the gradient in g0 asks for; n: samples of the batch."""
        self._both([("update", i, number, rate, scale) for i in range(2)], self.two(n))

    def predict(self, x_t: np.ndarray, t: np.ndarray) -> np.ndarray:
        """The network's prediction.   x_t (N, ...), t (N,) -> (N, ...)."""
        if not self.two(len(x_t)) or not self._lock.acquire(blocking=False):  # the second process is busy
            return self._both([("predict", x_t, t, False)], False)[0]
        try:
            return np.concatenate(self._both([("predict", x_t[own], t[own], True) for own in halves(len(x_t))], True))
        finally:
            self._lock.release()

    def two(self, n: int) -> bool:
        """Whether a second process helps with n samples."""
        return cpu.threads() > 1 and n > 1 and n * self.packing.size >= _WORTH and partner.available

    def _both(self, asked: list[tuple[Any, ...]], pair: bool) -> list[Any]:
        """What these methods of a Half return; the second one in the other process, if pair."""
        self._half.threads = max(1, cpu.threads() // 2) if pair else cpu.threads()
        if not pair or len(asked) < 2:
            return [getattr(self._half, name)(*args) for name, *args in asked]
        there, (name, *args) = self._other(), asked[0]
        try:
            there.ask(*asked[1])
            return [getattr(self._half, name)(*args), there.answer()]
        except BaseException:  # whatever it is doing now, nobody waits for it
            there.end()
            self._partner = None
            raise

    def _other(self) -> partner.Partner:
        if self._partner is None or self._partner.owner != os.getpid():
            found = partner.take()
            try:
                found.ask("open", self.config, self.schedule, self.buffers, max(1, cpu.threads() // 2))
                found.answer()
            except BaseException:
                found.end()
                raise
            self._partner = found
            weakref.finalize(self, partner.give_back, found)
        return self._partner
