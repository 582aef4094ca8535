"""Gradients written where the optimiser reads them: each at its parameter's own place in a flat buffer.

An optimiser in place needs all gradients in one buffer. Copying them there would cost as much as a third of its step.
"""

from __future__ import annotations

from bisect import bisect

import numpy as np

__all__ = ["GradientBuffer", "address"]


def address(a: np.ndarray) -> int:
    """Of the first element."""
    return int(a.__array_interface__["data"][0])


class GradientBuffer:
    """The gradient of a parameter in the buffer `parameters` goes to the same place of the buffer `gradients`, both (size,).

        with using(gradients=GradientBuffer(p, g)):
            ...

    The first gradient alone: a parameter that is used twice in a block has two gradients, and what a backward has returned
    is never written to again. So a new block takes a new GradientBuffer. refused: whether a gradient of a parameter there
    got no place: a second one, or that of a view that is not contiguous; or whether it was not one sum over the samples
    (`memory.gradient_of_sum`).
    """

    def __init__(self, parameters: np.ndarray, gradients: np.ndarray) -> None:
        self._parameters, self._gradients = parameters, gradients
        self.refused = False
        self._taken: list[tuple[int, int]] = []  # first element, end; in order, and no two overlap

    def take(self, parameter: np.ndarray) -> np.ndarray | None:
        """The place of this parameter's gradient, of its shape. None where the parameter lies elsewhere or is not
        contiguous, or where a gradient has taken a part of the place before."""
        start = (address(parameter) - address(self._parameters)) // 4
        end = start + parameter.size
        if not 0 <= start <= end <= self._parameters.size:
            return None
        if not parameter.flags.c_contiguous:
            self.refused = True
            return None
        i = bisect(self._taken, (start, end))
        before, after = self._taken[max(0, i - 1) : i], self._taken[i : i + 1]
        if any(other_start < end and start < other_end for other_start, other_end in (*before, *after)):
            self.refused = True
            return None
        self._taken.insert(i, (start, end))
        return self._gradients[start:end].reshape(parameter.shape)
