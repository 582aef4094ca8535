"""SiLU, GELU, ReLU, softplus and exp(x) - 1 on the CUDA engine."""

import numpy as np
import pytest
from emulator.agreement import check_agreement

from refdiff.engines import cuda, reference


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_tanh", "relu", "softplus", "expm1"])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 7, 9, 3), (4, 513)])
def test_activation(context, dtype, name, shape):
    x = 3 * np.random.default_rng(len(shape)).standard_normal(shape)
    check_agreement(context, name, (x,), dtype=dtype)


def test_nothing_overflows(context, dtype):
    x = np.array([-1e30, -100.0, -20.0, 0.0, 20.0, 100.0, 1e30])
    check_agreement(context, "silu", (x,), dtype=dtype)


@pytest.mark.parametrize("name", ["softplus", "expm1"])
def test_small_values_keep_all_their_digits(context, name):
    """Each number by itself, and each slope; what overflows in exp(x) is x or infinite."""
    x = np.float32([-80, -30, -8, -1e-5, 0, 1e-6, 0.5, 9, 30, 80])
    y, saved = getattr(cuda, name)(context.array(x))
    expected, expected_saved = getattr(reference, name)(x.astype(np.float64))
    np.testing.assert_allclose(cuda.host(y), expected, rtol=5e-7)
    dx = getattr(cuda, f"{name}_backward")(context.array(np.full(10, 0.5)), saved)
    slope = getattr(reference, f"{name}_backward")(0.5, expected_saved)
    if name == "expm1":  # where the reference has y + 1
        np.testing.assert_allclose(slope, np.exp(x.astype(np.float64)) / 2, atol=1e-16)
        slope = np.exp(x.astype(np.float64)) / 2
    np.testing.assert_allclose(cuda.host(dx), slope, rtol=2e-6)
    far = cuda.host(getattr(cuda, name)(context.array([-1e30, 1e30]))[0])
    assert far.tolist() == {"softplus": [0, np.float32(1e30)], "expm1": [-1, np.inf]}[name]


def test_a_gradient_of_another_type_is_rounded(context, dtype):
    """dx has the type of x."""
    x, dy = context.array([0.5, -1, 2], dtype), np.array([0.25, 1, -3])
    for name in ("silu", "relu", "softplus"):
        _, saved = getattr(cuda, name)(x)
        dx, same = (
            getattr(cuda, f"{name}_backward")(context.array(dy, kind), saved) for kind in ("float32", "bfloat16")
        )
        assert dx.dtype == same.dtype == dtype
        assert np.array_equal(cuda.host(dx), cuda.host(same))


def test_relu_at_its_edge(context, dtype):
    """NaN stays NaN, and a gradient that is not passed may be infinite."""
    x = np.array([np.nan, -np.inf, -1, -0.0, 0, 1, np.inf, 2, -3])
    y, saved = cuda.relu(context.array(x, dtype))
    expected, expected_saved = reference.relu(x)
    np.testing.assert_array_equal(cuda.host(y), expected)
    dy = np.array([1, np.inf, 1, np.inf, -np.inf, 1, 2, np.inf, 1])
    dx = cuda.host(cuda.relu_backward(context.array(dy, dtype), saved))
    np.testing.assert_array_equal(dx, reference.relu_backward(dy, expected_saved))
