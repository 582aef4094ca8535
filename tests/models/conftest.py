"""Random parameters: a network at its first values has zeros in it, and zeros hide what is wrong behind them."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest

from refdiff.models import Parameter, Tree, tree_map


@pytest.fixture(scope="session")
def drawn() -> Callable[..., Tree]:
    """drawn(layout, seed, dtype): a tree of normal numbers, scaled so that activations stay of the order of one."""

    def draw(layout: Tree, seed: int, dtype: Any = np.float64) -> Tree:
        rng = np.random.default_rng(seed)

        def values(spec: Parameter) -> np.ndarray:
            noise = rng.standard_normal(spec.shape)
            weight = len(spec.shape) > 1
            return (noise / prod(spec.shape[:-1]) ** 0.5 if weight else spec.first + 0.3 * noise).astype(dtype)

        return tree_map(values, layout)

    return draw
