"""Group norm and layer norm."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import reference as engine
from refdiff.testing.measures import relative_error

seeds = st.integers(0, 2**32 - 1)
batches = st.integers(1, 3)
# Sets of two values become -1 and 1 whatever they were; from about four on, derivatives are well conditioned.
positions = st.sampled_from([(), (4,), (2, 3), (3, 3)])
per_group = st.integers(4, 6)
groups = st.integers(1, 3)


def case(seed, *shape):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape), rng.standard_normal(shape[-1]), rng.standard_normal(shape[-1])


def normalised(x, epsilon):
    """(x - mean) / sqrt(variance + epsilon) of the values of one set."""
    mean = x.sum() / x.size
    return (x - mean) / (((x - mean) ** 2).sum() / x.size + epsilon) ** 0.5


def defined(x, weight, bias, groups, epsilon):
    """[GN] eq. 1, a sample and a group at a time."""
    y, size = np.empty_like(x), x.shape[-1] // groups
    for n in range(len(x)):
        for g in range(groups):
            own = slice(g * size, (g + 1) * size)
            y[n, ..., own] = weight[own] * normalised(x[n, ..., own], epsilon) + bias[own]
    return y


@given(batches, positions, groups, per_group, st.sampled_from([1e-6, 1e-5, 0.1]), seeds)
def test_group_norm(check_contract, n, positions, groups, size, epsilon, seed):
    x, weight, bias = case(seed, n, *positions, groups * size)
    parameters = {"weight": weight, "bias": bias}
    check_contract("group_norm", (x,), parameters, seed=seed, groups=groups, epsilon=epsilon)
    y, _ = engine.group_norm(x, **parameters, groups=groups, epsilon=epsilon)
    assert relative_error(y, defined(x, weight, bias, groups, epsilon)) <= 1e-13


@given(batches, positions, groups, per_group, st.sampled_from([1e-6, 0.1]), seeds)
def test_group_norm_silu(check_contract, n, positions, groups, size, epsilon, seed):
    x, weight, bias = case(seed, n, *positions, groups * size)
    parameters = {"weight": weight, "bias": bias}
    check_contract("group_norm_silu", (x,), parameters, seed=seed, groups=groups, epsilon=epsilon)
    y, _ = engine.group_norm_silu(x, **parameters, groups=groups, epsilon=epsilon)
    z = defined(x, weight, bias, groups, epsilon)
    assert relative_error(y, z / (1 + np.exp(-z))) <= 1e-13


@given(batches, positions, groups, per_group, st.sampled_from([1e-6, 0.1]), seeds)
def test_adaptive_group_norm_silu(check_contract, n, positions, groups, size, epsilon, seed):
    x, weight, bias = case(seed, n, *positions, groups * size)
    scale, shift = np.random.default_rng(seed + 1).standard_normal((2, n, groups * size))
    parameters = {"weight": weight, "bias": bias}
    check_contract("adaptive_group_norm_silu", (x, scale, shift), parameters, seed=seed, groups=groups, epsilon=epsilon)
    y, _ = engine.adaptive_group_norm_silu(x, scale, shift, **parameters, groups=groups, epsilon=epsilon)
    for i in range(n):
        z = (1 + scale[i]) * defined(x[i : i + 1], weight, bias, groups, epsilon) + shift[i]
        assert relative_error(y[i : i + 1], z / (1 + np.exp(-z))) <= 1e-13


def test_a_scale_and_shift_of_zero_change_nothing_and_wrong_shapes_are_named():
    x, weight, bias = case(0, 2, 4, 4, 6)
    zero = np.zeros((2, 6))
    plain, _ = engine.group_norm_silu(x, weight, bias, 3)
    assert np.array_equal(engine.adaptive_group_norm_silu(x, zero, zero, weight, bias, 3)[0], plain)
    with pytest.raises(AssertionError, match="scale"):
        engine.adaptive_group_norm_silu(x, zero[:1], zero[:1], weight, bias, 3)


@given(batches, st.lists(st.integers(1, 3), max_size=3), st.integers(4, 8), st.sampled_from([1e-5, 0.1]), seeds)
def test_layer_norm(check_contract, n, rest, c, epsilon, seed):
    x, weight, bias = case(seed, n, *rest, c)
    check_contract("layer_norm", (x,), {"weight": weight, "bias": bias}, seed=seed, epsilon=epsilon)
    y, _ = engine.layer_norm(x, weight, bias, epsilon)
    rows = [weight * normalised(row, epsilon) + bias for row in x.reshape(-1, c)]
    assert relative_error(y, np.reshape(rows, x.shape)) <= 1e-13


def test_the_epsilons_are_those_of_the_public_codes():
    """1e-6 for group norm ([DDPM]'s code), 1e-5 for layer norm ([LN] in every library): seen where the variance is small."""
    x, weight, bias = case(0, 2, 4, 4, 6)
    x = 1e-3 * x
    assert relative_error(engine.group_norm(x, weight, bias, 2)[0], defined(x, weight, bias, 2, 1e-6)) <= 1e-13
    rows = [weight * normalised(row, 1e-5) + bias for row in x.reshape(-1, 6)]
    assert relative_error(engine.layer_norm(x, weight, bias)[0], np.reshape(rows, x.shape)) <= 1e-13


@given(batches, groups, per_group, st.floats(-10, 10), st.floats(0.5, 20), seeds)
def test_group_norm_ignores_the_shift_and_scale_of_each_group(n, groups, size, shift, scale, seed):
    x, weight, bias = case(seed, n, 3, 3, groups * size)
    each = np.random.default_rng(seed + 1).uniform(0.5, 2, (n, 1, 1, groups)).repeat(size, axis=-1)
    y, _ = engine.group_norm(x, weight, bias, groups, 1e-30)
    moved, _ = engine.group_norm(scale * each * x + shift * each, weight, bias, groups, 1e-30)
    assert relative_error(moved, y) <= 1e-12


@given(batches, groups, per_group, seeds)
def test_group_norm_has_mean_0_and_variance_1_in_each_group(n, groups, size, seed):
    x, *_ = case(seed, n, 4, 4, groups * size)
    y, _ = engine.group_norm(3 + 2 * x, np.ones(groups * size), np.zeros(groups * size), groups, 1e-30)
    sets = y.reshape(n, 16, groups, size).swapaxes(1, 2).reshape(n * groups, -1)
    np.testing.assert_allclose(sets.mean(axis=1), 0, atol=1e-13)
    np.testing.assert_allclose((sets**2).mean(axis=1), 1, atol=1e-13)


@given(seeds)
def test_group_norm_of_samples_is_that_of_each(seed):
    x, weight, bias = case(seed, 3, 2, 2, 8)
    y, _ = engine.group_norm(x, weight, bias, 2)
    each = [engine.group_norm(x[i : i + 1], weight, bias, 2)[0] for i in range(3)]
    assert relative_error(np.concatenate(each), y) <= 1e-14


@given(st.sampled_from([8, 16, 32]), seeds)
def test_norms_survive_a_large_mean_in_float32(size, seed):
    """mean(x^2) - mean(x)^2 of these values is noise: x^2 = 1e6 has a spacing of 0.06, the variance is 0.01."""
    x = (1000 + 0.1 * np.random.default_rng(seed).standard_normal((1, size, size, 8))).astype(np.float32)
    weight, bias = np.ones(8, np.float32), np.zeros(8, np.float32)
    for norm in (lambda *a: engine.group_norm(*a, 2), engine.layer_norm):
        y, _ = norm(x, weight, bias)
        expected, _ = norm(*(a.astype(np.float64) for a in (x, weight, bias)))
        assert y.dtype == np.float32
        assert relative_error(y, expected) <= 1e-2


def test_group_norm_of_single_values_is_the_bias():
    """And then nothing depends on x: a network must not have one channel a group on a single pixel."""
    x, weight, bias = case(0, 2, 3)
    y, saved = engine.group_norm(x, weight, bias, 3)
    dx, g = engine.group_norm_backward(x, saved)
    assert np.array_equal(y, np.broadcast_to(bias, y.shape))
    assert not dx.any()
    assert not g["weight"].any()


def test_group_norm_refuses_groups_that_do_not_divide():
    with pytest.raises(AssertionError, match="6 channels do not divide into 4 groups"):
        engine.group_norm(*case(0, 2, 3, 6), 4)
