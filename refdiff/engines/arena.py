"""Places in an arena: which integers are free, and which are next. Memory itself is the business of who asks.

What is free joins its neighbours, and the lowest place that is large enough is taken first: so the same calls give the same
places each time, close together.
"""

from __future__ import annotations

from bisect import bisect_left, insort

__all__ = ["Places"]


class Places:
    """Offsets, or addresses, in one region or several. used, peak: units that are taken, now and at most."""

    def __init__(self) -> None:
        self.used = self.peak = 0
        self._free: list[tuple[int, int]] = []  # (start, size), by start; no two of one region touch
        self._sizes: dict[int, int] = {}  # of what is taken, by start
        self._regions: set[int] = set()  # where each begins

    @property
    def free(self) -> tuple[tuple[int, int], ...]:
        """(start, size) of all that is free, by start."""
        return tuple(self._free)

    def add_region(self, start: int, size: int) -> None:
        """Places start .. start + size - 1 are there, and free. A region that it touches stays one of its own."""
        self._regions.add(start)
        insort(self._free, (start, size))

    def take(self, size: int) -> int | None:
        """The lowest place where so many units, at least one, are free in a row; None if there is none."""
        assert size > 0, f"take: expected a size of at least 1, got {size}"
        for i, (start, length) in enumerate(self._free):
            if length >= size:
                if length > size:
                    self._free[i] = start + size, length - size
                else:
                    del self._free[i]
                self._sizes[start] = size
                self.used += size
                self.peak = max(self.peak, self.used)
                return start
        return None

    def give_back(self, start: int) -> None:
        """What `take` returned is free again. KeyError if it is not taken."""
        size = self._sizes.pop(start)
        self.used -= size
        i = bisect_left(self._free, (start, 0))
        if i < len(self._free) and self._free[i][0] == start + size and start + size not in self._regions:
            size += self._free.pop(i)[1]
        if i and sum(self._free[i - 1]) == start and start not in self._regions:
            i -= 1
            before, length = self._free.pop(i)
            start, size = before, length + size
        self._free.insert(i, (start, size))

    def clear(self) -> None:
        """No region is there any more; the peak stays."""
        self.used = 0
        self._free, self._sizes, self._regions = [], {}, set()
