"""SiLU, GELU and ReLU on the CUDA engine."""

import numpy as np
import pytest
from emulator.agreement import check_agreement

from refdiff.engines import cuda, reference


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_tanh", "relu"])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 7, 9, 3), (4, 513)])
def test_activation(context, dtype, name, shape):
    x = 3 * np.random.default_rng(len(shape)).standard_normal(shape)
    check_agreement(context, name, (x,), dtype=dtype)


def test_nothing_overflows(context, dtype):
    x = np.array([-1e30, -100.0, -20.0, 0.0, 20.0, 100.0, 1e30])
    check_agreement(context, "silu", (x,), dtype=dtype)


def test_relu_at_its_edge(context, dtype):
    """NaN stays NaN, and a gradient that is not passed may be infinite."""
    x = np.array([np.nan, -np.inf, -1, -0.0, 0, 1, np.inf, 2, -3])
    y, saved = cuda.relu(context.array(x, dtype))
    expected, expected_saved = reference.relu(x)
    np.testing.assert_array_equal(cuda.host(y), expected)
    dy = np.array([1, np.inf, 1, np.inf, -np.inf, 1, 2, np.inf, 1])
    dx = cuda.host(cuda.relu_backward(context.array(dy, dtype), saved))
    np.testing.assert_array_equal(dx, reference.relu_backward(dy, expected_saved))
