"""How wrong the steps of `flow_log_likelihood` are, estimated while they are taken: nothing more is asked of the model.

A rule of second order errs by h^3 in a step of length h. Two neighbours taken as one step err by (h + h')^3, so what that
changes, in log p along the flow and in x, which counts by the score, shows what each of them errs by. The first step has
no neighbour below: what it assumes of the data is held against what is seen of them up to twice its q, and it counts as
wrong beyond second order in any case; beyond first order, where no other step is there to tell.
"""

from __future__ import annotations

import math

from .arrays import Array, namespace
from .ode_steps import Point, fall, moved, sum_of_sample
from .schedules import Schedule


class ErrorOfSteps:
    """Of each sample the sum of the errors of log p, the largest of them, and the step it belongs to.   (N,)"""

    def __init__(self, schedule: Schedule, first: Point, doubt: Array, alone: Array) -> None:
        self.schedule, self.first, self.last, self.doubt, self.alone = schedule, first, first, doubt, alone
        self.before: Point | None = None  # where the last step began
        self.first_seen, self.first_pair = False, True
        self.sum = self.worst = self.begin = self.end = self.fallen = namespace(doubt).zeros_like(doubt)

    def add(self, here: Point, there: Point) -> None:
        """One step more."""
        piece = fall(self.schedule, here, there)
        if self.before:
            pair = self._changes(self.before, there, fall(self.schedule, self.before, here) + piece)
            h, H = self._length(self.before, here), self._length(here, there)
            if self.first_pair:
                self._note(self.before.t, here.t, h * h / (3 * H * (h + H)) * pair)
            self._note(here.t, there.t, H * H / (3 * h * (h + H)) * pair)
            self.first_pair = False
        self.fallen, self.before, self.last = self.fallen + piece, here, there
        if not self.first_seen and self._q(there.t) >= 2 * self._q(self.first.t):
            self._see_first()

    def message(self, tolerance: float) -> str:
        """What to say if a sample's error is above tolerance an element; else nothing."""
        xp, size = namespace(self.doubt), math.prod(self.first.x.shape[1:])
        if not self.before:
            self._note(0, self.first.t, self.alone)
        else:
            if not self.first_seen:
                self._see_first()
            if self.first_pair:  # two steps in all: the second has its own earlier end to be compared with, or nothing
                alone = self._changes(self.first, self.last, self.fallen, both=False)
                noise = self.schedule.alpha_bar[self.last.t] == 0
                self._note(self.first.t, self.last.t, xp.abs(self.fallen) if noise else alone)
        off = xp.where(self.sum == self.sum, xp.abs(self.sum), xp.full_like(self.sum, xp.inf))
        i = int(xp.argmax(off))
        error, worst = float(off[i]) / size, float(self.worst[i]) / size
        if error <= tolerance:
            return ""
        begin, end = int(self.begin[i]), int(self.end[i])
        remedy = "take more steps there" if end - begin > 1 else "take a schedule with smaller steps there"
        return (
            f"timesteps: expected steps that err by at most {tolerance:g} nats an element, got about {error:.3g} for "
            f"sample {i}, the step between t = {begin} and {end} alone {worst:.3g}; {remedy}"
        )

    def _note(self, begin: int, end: int, error: Array) -> None:
        xp = namespace(error)
        worse = ~(xp.abs(error) <= self.worst)
        self.sum, self.worst = self.sum + error, xp.where(worse, xp.abs(error), self.worst)
        self.begin, self.end = (xp.where(worse, 0 * v + t, v) for v, t in ((self.begin, begin), (self.end, end)))

    def _see_first(self) -> None:
        self.first_seen = True
        xp, q, there = namespace(self.doubt), self._q(self.first.t), self._q(self.last.t)
        seen = xp.abs(self._changes(self.first, self.last, self.fallen, both=False)) * min(1.0, q / (there - q))
        self._note(0, self.first.t, xp.where(seen > self.doubt, seen, self.doubt))

    def _changes(self, here: Point, there: Point, piece: Array, both: bool = True) -> Array:
        """log p_here by one step from here to there, by both ends or the earlier alone, less what several made."""
        x = moved(self.schedule, here, there.t, *((there.x, there.e) if both else ()))
        return fall(self.schedule, here, there, both) - piece - sum_of_sample(there.e * (x - there.x))

    def _q(self, t: int) -> float:
        """sigma^2, as far as floats reach."""
        return float(self.schedule.one_minus_alpha_bar[t]) / max(float(self.schedule.alpha_bar[t]), 1e-300)

    def _length(self, here: Point, there: Point) -> float:
        """Between the arctan sigma of two points: short where neither data nor noise change much."""
        a, b = (math.atan(self._q(p.t) ** 0.5) for p in (here, there))
        return b - a
