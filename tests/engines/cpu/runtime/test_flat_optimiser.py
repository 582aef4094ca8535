"""The optimiser in place, on flat buffers, against the functions of refdiff.training."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import cpu
from refdiff.engines.cpu.runtime import flat_optimiser as optimiser
from refdiff.training import optimiser as expected

SIZES = [1, 7, 40_000, optimiser.PART, optimiser.PART + 1, 3 * optimiser.PART - 5, 260_003]
seeds = st.integers(0, 2**32 - 1)


def buffers(seed, size):
    """p, g, m, v, average; p itself and the average differ, as they do after some steps."""
    p, g, m, v, average = np.random.default_rng(seed).standard_normal((5, size)).astype(np.float32)
    return p, g, m, np.square(v), average


def update(seed, size, shares=((0, 1),), **options):
    """The five buffers after a step made in these shares."""
    changed = buffers(seed, size)
    for share in shares:
        optimiser.update(*changed, 3, 1e-2, scale=0.7, decay=0.9, share=share, **options)
    return [buffer.tobytes() for buffer in changed]


@given(st.sampled_from(SIZES), st.integers(1, 50), st.sampled_from([0.0, 0.1]), seeds)
def test_one_step_is_that_of_the_functions(size, step, weight_decay, seed):
    p, g, m, v, average = buffers(seed, size)
    norm = expected.global_norm({"a": g})
    trees = ({"a": a.copy()} for a in (p, g, m, v))
    p0, g0, m0, v0 = trees
    p1, m1, v1 = expected.adamw(p0, expected.clip(g0, norm, 1.0), m0, v0, step, 1e-2, weight_decay)
    average1 = expected.moving_average({"a": average}, p1, step, 0.9)
    optimiser.update(
        p, g, m, v, average, step, 1e-2, weight_decay, scale=min(1, 1 / norm), decay=min(0.9, (1 + step) / (10 + step))
    )
    for actual, right in ((p, p1), (m, m1), (v, v1), (average, average1)):
        np.testing.assert_allclose(actual, right["a"], rtol=2e-6, atol=1e-6)
    assert g.tobytes() == g0["a"].tobytes()


@pytest.mark.parametrize("size", [5, 130_001])
def test_without_a_decay_the_average_is_the_weights(size):
    p, g, m, v, average = buffers(0, size)
    optimiser.update(p, g, m, v, average, 1, 1e-2)
    np.testing.assert_array_equal(average, p)


@given(st.sampled_from(SIZES), seeds)
def test_the_squares_add_up_to_the_norm(size, seed):
    g = buffers(seed, size)[1]
    norm = math.sqrt(math.fsum(np.square(g.astype(np.float64))))
    assert math.sqrt(math.fsum(optimiser.squares(g.copy()))) == pytest.approx(norm, rel=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_two_shares_give_the_bits_of_one_call(size):
    assert update(0, size, [(0, 2), (1, 2)], weight_decay=0.1) == update(0, size, weight_decay=0.1)
    _, g, more, *_ = buffers(0, size)
    shared, whole = g.copy(), g.copy()
    sums = [optimiser.squares(shared, [more], (i, 2)) for i in range(2)]
    assert sums[0] + sums[1] == optimiser.squares(whole, [more])
    assert shared.tobytes() == whole.tobytes()


@pytest.mark.parametrize("size", SIZES)
def test_a_share_leaves_the_rest_alone(size):
    before, first, second = buffers(0, size), buffers(0, size), buffers(0, size)
    optimiser.update(*first, 3, 1e-2, share=(0, 2))
    optimiser.update(*second, 3, 1e-2, share=(1, 2))
    changed = [np.not_equal(part[0], before[0]) for part in (first, second)]
    assert not np.any(changed[0] & changed[1])
    assert np.mean(changed[0] | changed[1]) > 0.99


def test_more_is_added_to_the_gradient_before_it_is_squared():
    _, g, more, *_ = buffers(0, 100_001)
    kept, total = more.copy(), g + more
    sums = optimiser.squares(g, [more])
    np.testing.assert_array_equal(g, total)
    np.testing.assert_array_equal(more, kept)
    assert sums == optimiser.squares(total)


def test_gradients_of_four_processes_are_added_up_neighbours_first():
    a, b, c, d = np.random.default_rng(0).standard_normal((4, 1001), dtype=np.float32)
    total = (a + b) + (c + d)
    optimiser.squares(a, [b, c, d])
    np.testing.assert_array_equal(a, total)


def test_bits_do_not_depend_on_threads(use_threads):
    results = []
    for count in (1, 8):
        use_threads(count)
        _, g, more, *_ = buffers(0, 260_003)
        results.append((update(0, 260_003), optimiser.squares(g, [more]), g.tobytes()))
    assert results[0] == results[1]


def test_a_convolution_after_the_step_has_the_new_weights():
    p, g, m, v, average = np.zeros((5, 9 * 32 * 32), np.float32)
    p[...] = np.random.default_rng(0).standard_normal(p.size)
    weight, bias = p.reshape(3, 3, 32, 32), np.zeros(32, np.float32)
    x = np.random.default_rng(1).standard_normal((8, 16, 16, 32)).astype(np.float32)
    for _ in range(3):  # what it makes of the weights is kept from the second time on
        cpu.conv2d(x, weight, bias)
    g[5] = 1  # one number, that nobody would notice
    optimiser.update(p, g, m, v, average, 1, 100.0)
    np.testing.assert_array_equal(cpu.conv2d(x, weight, bias)[0], cpu.conv2d(x, weight.copy(), bias)[0])
