"""The judge is judged: refdiff.testing.derivatives passes what is right and names what is wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.testing.derivatives import backward_errors, check_backward, complex_step
from refdiff.testing.measures import relative_error

seeds = st.integers(0, 2**32 - 1)


def forward(x, p):
    """y = sin(x) a and z = sum b^3: two outputs, and inputs of which one is a tree."""
    return (np.sin(x) * p["part"]["a"], (p["b"] ** 3).sum()), (x, p)


def backward(dys, saved):
    (dy, dz), (x, p) = dys, saved
    return dy * np.cos(x) * p["part"]["a"], {"b": 3 * dz * p["b"] ** 2, "part": {"a": dy * np.sin(x)}}


def inputs(seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((2, 3)), {"part": {"a": rng.standard_normal((2, 3))}, "b": rng.standard_normal(4)}


@given(seeds)
def test_complex_step_is_the_derivative(seed):
    x, v = np.random.default_rng(seed).uniform(1, 2, (2, 5))
    jv = complex_step(lambda z: {"y": np.exp(z["x"]) / z["x"] ** 3}, {"x": x}, {"x": v})
    assert relative_error(jv, {"y": v * np.exp(x) * (x - 3) / x**4}) <= 1e-14


@given(seeds)
def test_what_is_right_passes(seed):
    rng = np.random.default_rng(seed)
    errors = backward_errors(forward, backward, inputs(seed), rng)
    assert errors.keys() == {"0", "1/part/a", "1/b", "all"}
    assert max(errors.values()) <= 1e-14
    check_backward(forward, backward, inputs(seed), rng)


@pytest.mark.parametrize("wrong", [1 + 1e-11, -1, 0, float("nan")])
def test_what_is_wrong_is_named(wrong):
    def backward_b(dys, saved):
        dx, g = backward(dys, saved)
        return dx, {"part": g["part"], "b": g["b"] * wrong}

    errors = backward_errors(forward, backward_b, inputs(0), np.random.default_rng(0))
    assert {name for name, error in errors.items() if not error <= 1e-13} == {"1/b", "all"}
    with pytest.raises(AssertionError, match="1/b"):
        check_backward(forward, backward_b, inputs(0), np.random.default_rng(0))


@pytest.mark.parametrize("change", [lambda g: g.pop("b"), lambda g: g.update(c=1.0), lambda g: g.update(b=g["b"][:-1])])
def test_names_and_shapes_must_be_those_of_the_inputs(change):
    def backward_changed(dys, saved):
        dx, g = backward(dys, saved)
        change(g)
        return dx, g

    with pytest.raises(ValueError, match="gradients of the shapes"):
        backward_errors(forward, backward_changed, inputs(0), np.random.default_rng(0))


def test_a_gradient_of_zero_is_right_where_it_is_zero_and_wrong_elsewhere():
    def zero(dy, saved):
        return 0 * dy

    x, rng = inputs(0)[:1], np.random.default_rng(0)
    assert backward_errors(lambda x: (0 * x, None), zero, x, rng)["0"] == 0
    assert backward_errors(lambda x: (1 * x, None), zero, x, rng)["0"] > 0.01
