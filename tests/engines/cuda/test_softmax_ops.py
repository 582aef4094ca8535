"""Softmax on the CUDA engine."""

import numpy as np
import pytest
from emulator.agreement import check_agreement

from refdiff.engines.cuda import host
from refdiff.engines.cuda.softmax_ops import softmax


@pytest.mark.parametrize("shape", [(2, 1), (3, 5), (2, 5, 16), (17, 72), (2, 1029)])
def test_softmax(context, dtype, shape):
    x = np.random.default_rng(shape[-1]).standard_normal(shape)
    if shape[-1] == 1:
        assert (
            host(softmax(context.array(x, dtype))[0]) == 1
        ).all()  # its gradient is 0, of which no share can be wrong
    else:
        check_agreement(context, "softmax", (x,), dtype=dtype, terms=shape[-1])


def test_nothing_overflows_and_minus_infinity_is_a_mask(context, dtype):
    x = np.array([[1e30, 1e30, -1e30, 0], [-np.inf, -200.0, -200.0, -200.0], [-1e4, -1e4, -np.inf, -2e4]])
    y = host(softmax(context.array(x, dtype))[0])
    np.testing.assert_allclose(y, [[0.5, 0.5, 0, 0], [0, 1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0, 0]], rtol=4e-3)
