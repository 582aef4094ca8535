"""The t of a sample drawn by how large its loss was of late, and weighed so that expectations stay what they were.

    E L_t for t ~ U = E L_t / (T p_t) for t ~ p,  p_t in proportion to sqrt(E L_t^2)     [IDDPM] eq. 18

E L_t^2 is the mean over the last ten losses of each t, in the memory of an objective; until every t has ten, p is uniform,
and ever after a thousandth of it is, so that no t is forgotten [IDDPM] section 3.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..models import Tree

__all__ = ["HISTORY", "LARGEST_T", "TIMESTEPS", "UNIFORM", "first_losses", "losses_after", "step_probability"]

TIMESTEPS = ("uniform", "importance")
HISTORY = 10  # losses of each t that are remembered
UNIFORM = 0.001  # the part of p that is uniform
LARGEST_T = 10_000  # beyond it UNIFORM / T is hardly more than a last digit of a cumulative sum in float32


def first_losses(T: int) -> Tree:
    """The memory before any loss: losses (T, 10), those of t - 1 in row t, the oldest first; count (T,) of them; and what a
    draw reads, `cumulative` and `ratio` (T + 1,) float32, 0 and 0 at t = 0."""
    return _with_probability(np.zeros((T, HISTORY), np.float32), np.zeros(T, np.int32))


def losses_after(memory: Tree, t: np.ndarray, loss: np.ndarray) -> Tree:
    """The memory once these losses, unweighted, came, in order; of each t the last ten stay.   t, loss (N,)"""
    losses, count = memory["losses"].copy(), memory["count"].copy()
    for row, value in zip(np.rint(t).astype(int) - 1, loss, strict=True):
        losses[row, :-1] = losses[row, 1:]
        losses[row, -1] = value
        count[row] = min(count[row] + 1, HISTORY)
    return _with_probability(losses, count)


def step_probability(losses: np.ndarray, count: np.ndarray) -> np.ndarray:
    """p_t for t = 1 .. T, in proportion to the root of the mean square of the last ten losses, a thousandth of it uniform;
    uniform where a t has fewer, or no loss is above 0.   [IDDPM] eq. 18   losses (T, 10), count (T,) -> (T,) float64"""
    T = len(losses)
    root = np.sqrt((losses.astype(np.float64) ** 2).mean(axis=1))
    if count.min() < HISTORY or not root.any():
        return np.full(T, 1 / T)
    return (1 - UNIFORM) * root / root.sum() + UNIFORM / T


def _with_probability(losses: np.ndarray, count: np.ndarray) -> dict[str, Any]:
    """With cumulative[t] = p_1 + ... + p_t from cumulative[0] = 0 to 1, as `categorical` takes it, in float32, and ratio[t]
    = 1 / (T p_t) for the p that these rounded sums have, so that the weights are exact."""
    T = len(losses)
    cumulative = np.zeros(T + 1, np.float32)
    cumulative[1:] = np.cumsum(step_probability(losses, count))
    cumulative[-1] = 1
    ratio = np.zeros(T + 1)
    ratio[1:] = 1 / (T * np.diff(cumulative.astype(np.float64)))
    return {"losses": losses, "count": count, "cumulative": cumulative, "ratio": ratio.astype(np.float32)}
