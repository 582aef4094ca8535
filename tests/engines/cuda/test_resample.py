"""Twice and half the size on the CUDA engine."""

import numpy as np
import pytest
from emulator.agreement import check_agreement

from refdiff.engines import cuda

SHAPES = [(1, 2, 2, 1), (2, 4, 6, 3), (1, 2, 4, 8), (2, 6, 2, 40), (3, 2, 2, 5)]


@pytest.mark.parametrize("name", ["upsample_nearest", "average_pool"])
@pytest.mark.parametrize("shape", SHAPES)
def test_resample(context, dtype, name, shape):
    check_agreement(context, name, (np.random.default_rng(0).standard_normal(shape),), dtype=dtype)


@pytest.mark.parametrize("shape", [(2, 3, 5, 8), (1, 1, 1, 3)])
def test_odd_sizes_can_be_doubled(context, dtype, shape):
    check_agreement(context, "upsample_nearest", (np.random.default_rng(0).standard_normal(shape),), dtype=dtype)


def test_odd_sizes_cannot_be_halved(context):
    with pytest.raises(AssertionError, match="even"):
        cuda.average_pool(context.array(np.zeros((1, 2, 3, 4))))
