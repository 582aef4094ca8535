"""The noise schedule of an objective, as a configuration names it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from functools import cache

from ..errors import one_of
from ..process import SCHEDULES, Schedule

__all__ = ["ScheduleConfig"]


@dataclass(frozen=True)
class ScheduleConfig:
    """kind: a name in `process.SCHEDULES`; T: its steps; options: its other arguments."""

    kind: str = "linear"
    T: int = 1000
    options: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of("schedule.kind", self.kind, SCHEDULES)
        known = [name for name in inspect.signature(SCHEDULES[self.kind]).parameters if name != "T"]
        for name in self.options:
            one_of("schedule.options", name, known)
        self.build()

    def __hash__(self) -> int:
        return hash((self.kind, self.T, tuple(sorted(self.options.items()))))

    def build(self) -> Schedule:
        """The schedule itself, one object for equal configurations."""
        return _build(self.kind, self.T, tuple(sorted(self.options.items())))


@cache
def _build(kind: str, T: int, options: tuple[tuple[str, float], ...]) -> Schedule:
    return SCHEDULES[kind](T, **dict(options))
