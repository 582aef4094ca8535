"""A term of the bound on the CUDA engine against the reference in float64."""

import numpy as np
import pytest
from emulator.agreement import bound

from refdiff.engines import cuda, reference
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import Context
from refdiff.process import (
    learned_log_variance,
    learned_log_variance_backward,
    linear,
    posterior_log_variance,
)
from refdiff.testing.measures import relative_error

LEVELS = 17


def case(T, t, seed, shape, beta=0.02, near=1.0):
    """v, mean, x0, posterior_mean and the three numbers of t, with means so many deviations apart."""
    rng, schedule = np.random.default_rng(seed), linear(T, 1e-4 if T > 1 else beta, beta)
    shape = (len(t), *shape)
    x0 = 2 * rng.integers(0, LEVELS, shape) / (LEVELS - 1) - 1
    _, saved = learned_log_variance(schedule, np.zeros(len(t)), t)
    half_gap, log_variance = learned_log_variance_backward(np.ones(len(t)), saved), posterior_log_variance(schedule, t)
    deviation = np.exp(0.5 * log_variance).reshape(-1, *[1] * (len(shape) - 1))
    true_mean = x0 + near * deviation * rng.standard_normal(shape)
    mean = true_mean + near * deviation * rng.standard_normal(shape)
    return [rng.standard_normal(shape), mean, x0, true_mean, log_variance, half_gap, (t == 1).astype(float)]


def on_device(context, given, dtype):
    v, *others = given
    return [context.array(v, dtype), *(context.array(a) for a in others)]


@pytest.mark.parametrize("bins", [LEVELS, None])
@pytest.mark.parametrize("T", [1, 2, 1000])
@pytest.mark.parametrize("shape", [(1,), (4, 4, 2), (5, 7, 3)])
def test_it_is_the_reference(context, dtype, T, bins, shape):
    """Each term and each sample's gradient, not all of them in one norm: those at t = 1 are larger by orders. A gradient
    whose two parts all but cancel is held against the size of those parts."""
    t = np.array([1, T, 1, max(T // 2, 1), min(T, 2)])
    given = on_device(context, case(T, t, 0, shape), dtype)
    term, saved = cuda.variational_term(*given, bins)
    exact, exact_saved = reference.variational_term(*(cuda.host(a).astype(np.float64) for a in given), bins)
    assert (term.dtype, term.shape) == ("float32", (5,))
    dterm = np.random.default_rng(1).standard_normal(5).astype(np.float32)
    for ours, theirs in ((context.array(dterm), dterm.astype(np.float64)), (0.5, 0.5)):
        dv = cuda.variational_term_backward(ours, saved)
        expected = reference.variational_term_backward(theirs, exact_saved)
        assert (dv.dtype, dv.shape) == (dtype, given[0].shape)
        actual, parts = cuda.host(dv).astype(np.float64), theirs * cuda.host(given[5]).astype(np.float64) / np.log(2)
        for n in range(5):
            size = max(np.linalg.norm(expected[n]), abs(parts[n]) * expected[n].size ** -0.5)
            assert np.linalg.norm(actual[n] - expected[n]) <= bound(dtype, dv.size // 5) * size
    for n in range(5):
        assert relative_error(cuda.host(term)[n].astype(np.float64), exact[n]) <= bound("float32", given[0].size // 5)


@pytest.mark.parametrize("beta", [1e-6, 1e-3, 0.05, 0.9])
@pytest.mark.parametrize("near", [0.01, 1.0, 30.0])
def test_each_form_of_a_log_mass(context, beta, near):
    """Bins that are short, long to one side, long about the middle, and at either end, near and far from the mean."""
    given = on_device(context, case(1, np.ones(1, np.int64), 3, (96,), beta, near), "float32")
    term, saved = cuda.variational_term(*given, LEVELS)
    exact, exact_saved = reference.variational_term(*(cuda.host(a).astype(np.float64) for a in given), LEVELS)
    assert relative_error(cuda.host(term).astype(np.float64), exact) <= bound("float32", 96)
    given[5] = context.array(np.array([0.3]))  # at T = 1 the gap is 0, and with it each gradient
    term, saved = cuda.variational_term(*given, LEVELS)
    exact, exact_saved = reference.variational_term(*(cuda.host(a).astype(np.float64) for a in given), LEVELS)
    expected = reference.variational_term_backward(1.0, exact_saved)
    assert expected.any()
    dv = cuda.host(cuda.variational_term_backward(1.0, saved)).astype(np.float64)
    assert relative_error(cuda.host(term).astype(np.float64), exact) <= bound("float32", 96)
    assert relative_error(dv, expected) <= bound("float32")


def test_a_large_sample_is_shared_by_several_blocks(context):
    given = on_device(context, case(1000, np.array([500, 2]), 0, (41, 41, 3)), "float32")
    term, _ = cuda.variational_term(*given, LEVELS)
    assert [kernel.name for kernel in context.device.launches] == ["variational_term", "sample_means"]
    exact, _ = reference.variational_term(*(cuda.host(a).astype(np.float64) for a in given), LEVELS)
    assert relative_error(cuda.host(term).astype(np.float64), exact) <= bound("float32", 41 * 41 * 3)


def test_v_may_be_a_part_of_what_the_network_said(context, dtype):
    given = case(1000, np.array([1, 500]), 0, (3, 4))
    both = context.array(np.concatenate([given[0] + 1, given[0]], axis=-1), dtype)
    _, (_, v) = 0, cuda.split(both, 2)[0]
    others = [context.array(a) for a in given[1:]]
    term, saved = cuda.variational_term(v, *others, LEVELS)
    whole, _ = cuda.variational_term(context.array(cuda.host(v), dtype), *others, LEVELS)
    assert np.array_equal(cuda.host(term), cuda.host(whole))
    assert cuda.variational_term_backward(1.0, saved).dense


def test_a_captured_term_follows_what_it_is_given(context):
    arena, kept = Context(context.device, Arena(context.device, 1 << 16)), []
    given = on_device(arena, case(1000, np.array([1, 500, 3]), 0, (3, 4)), "float32")

    def run():
        term, saved = cuda.variational_term(*given, LEVELS)
        kept[:] = term, cuda.variational_term_backward(term, saved)

    run()
    graph = arena.capture(run)
    for seed, t in ((1, [1, 1, 1]), (2, [999, 1, 2])):
        new = [a.astype(np.float32) for a in case(1000, np.array(t), seed, (3, 4))]
        for array, values in zip(given, new, strict=True):
            context.device.write(array.pointer, values)
        graph.replay()
        exact, saved = reference.variational_term(*(a.astype(np.float64) for a in new), LEVELS)
        assert relative_error(cuda.host(kept[0]).astype(np.float64), exact) <= 1e-6
        expected = reference.variational_term_backward(cuda.host(kept[0]).astype(np.float64), saved)
        assert relative_error(cuda.host(kept[1]).astype(np.float64), expected) <= 1e-6


def test_means_of_16_bits_and_too_few_bins_are_refused(context):
    given = on_device(context, case(10, np.array([1, 5]), 0, (4,)), "bfloat16")
    with pytest.raises(AssertionError, match="at least 2 bins"):
        cuda.variational_term(*given, 1)
    given[1] = context.array(np.ones((2, 4)), "bfloat16")
    with pytest.raises(AssertionError, match="variational_term: expected float32"):
        cuda.variational_term(*given, LEVELS)
