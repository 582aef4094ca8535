"""The parts of the bound where the claims do not look: shapes, dtypes, libraries, each sample's own t, extremes, errors."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.linalg import norm

from refdiff.process import (
    bound_terms,
    constant,
    decoder_log_likelihood,
    decoder_log_likelihood_backward,
    fixed_log_variance,
    fixed_reverse,
    from_beta,
    kl_gaussian,
    kl_gaussian_backward,
    l_vlb_term,
    l_vlb_term_backward,
    linear,
    posterior_log_variance,
    posterior_mean,
    predictor,
    prior_matching,
    q_sample,
    step_log_variance,
)
from refdiff.testing.derivatives import check_backward
from refdiff.testing.strategies import schedules, seeds, shapes, steps


def levels(rng, shape, bins=256):
    return 2 * rng.integers(0, bins, shape) / (bins - 1) - 1


def case(rng, shape, schedule, t, bins=256):
    """x0, x_t and a model's mean and log variance near the posterior's."""
    x0 = levels(rng, shape, bins)
    x_t = q_sample(schedule, x0, t, rng.standard_normal(shape))
    log_variance = fixed_log_variance(schedule, x_t, t) + 0.3 * rng.standard_normal(shape)
    mean = posterior_mean(schedule, x_t, x0, t) + np.exp(0.5 * log_variance) * rng.standard_normal(shape)
    return x0, x_t, mean, log_variance


# Divergence


@given(shapes(min_dims=0), seeds())
def test_a_gaussian_does_not_diverge_from_itself_and_diverges_from_all_others(shape, seed):
    m, lv, other_m, other_lv = (np.array(a) for a in np.random.default_rng(seed).standard_normal((4, *shape)))
    assert np.array_equal(kl_gaussian(m, lv, m, lv)[0], np.zeros(shape))
    assert np.all(kl_gaussian(m, lv, other_m, other_lv)[0] > 0)


@given(shapes(), seeds())
def test_the_divergences_gradient_is_its_derivative(shape, seed):
    rng = np.random.default_rng(seed)
    check_backward(kl_gaussian, kl_gaussian_backward, tuple(rng.standard_normal((4, *shape))), rng)


def test_the_divergence_has_no_seam_between_series_and_difference():
    d = np.array([0.5, -0.5])
    for inside, outside in ((d * (1 - 1e-12), d * (1 + 1e-12)),):
        a, b = (kl_gaussian(0 * d, v, 0 * d, 0 * d)[0] for v in (inside, outside))
        assert norm(a - b) < 1e-11 * norm(a)
        assert norm(a - 0.5 * (np.exp(d) - 1 - d)) < 1e-11 * norm(a)


def test_the_divergence_of_extreme_variances_is_finite():
    lv = np.array([-600.0, -80.0, 0.0, 80.0, 300.0])
    kl, _ = kl_gaussian(0 * lv, lv, 0 * lv, 0 * lv)
    assert np.isfinite(kl).all()
    assert kl[0] == pytest.approx(299.5)
    kl, _ = kl_gaussian(0 * lv, lv, 0 * lv + 1, lv)
    assert np.allclose(kl, 0.5 * np.exp(-lv), rtol=1e-14)


# Decoder


@pytest.mark.parametrize("bins", [2, 17, 256, None])
@given(seed=seeds(), log_ratio=st.floats(-3, 6), off=st.floats(-2, 0.5))
def test_the_decoders_gradient_is_its_derivative(bins, seed, log_ratio, off):
    # Deviations from e^-3 to e^6 half bins: for smaller ones all gradients underflow under a complex step of 1e-30.
    rng, log_sigma = np.random.default_rng(seed), log_ratio - math.log((bins or 256) - 1)
    x0 = levels(rng, (3, 5), bins or 256)
    mean = x0 + 10**off * rng.standard_normal((3, 5))
    log_variance = 2 * log_sigma + 0.3 * rng.standard_normal((3, 5))
    check_backward(
        lambda m, v: decoder_log_likelihood(x0, m, v, bins), decoder_log_likelihood_backward, (mean, log_variance), rng
    )


def test_the_outermost_bins_are_open():
    mean, log_variance = np.array([30.0, -30.0]), np.zeros(2)
    log_mass, (slope, _) = decoder_log_likelihood(np.array([1.0, -1.0]), mean, log_variance)
    assert np.all(abs(log_mass) < 1e-100)  # everything beyond belongs to them
    assert np.all(abs(slope) < 1e-100)
    far, (slope, _) = decoder_log_likelihood(np.array([-1.0, 1.0]), mean, log_variance)
    assert np.all(far < -400)
    assert np.allclose(slope, [-31, 31], atol=0.1)


def test_a_bin_is_no_wider_than_its_neighbours_allow():
    # Mass on bin k of a density that is flat there: 2 / (bins - 1) times the density.
    for bins in (17, 256):
        x0 = np.array([2 * 5 / (bins - 1) - 1])
        log_mass, _ = decoder_log_likelihood(x0, x0, np.array([8.0]), bins)
        assert log_mass[0] == pytest.approx(math.log(2 / (bins - 1)) - 4 - 0.5 * math.log(2 * math.pi), abs=1e-5)


def test_extreme_variances_give_numbers_and_no_nan():
    for dtype, extreme in ((np.float64, 600.0), (np.float32, 80.0)):
        x0 = np.array([-1, -1, 1, 1, 1 / 255, 1 / 255], dtype)
        mean = np.array([-1, 1, 1, -1, 1 / 255, -0.7], dtype)
        for log_variance in (-extreme, -20.0, 20.0, extreme):
            saved = decoder_log_likelihood(x0, mean, np.full(6, log_variance, dtype))
            for array in (saved[0], *saved[1]):
                assert array.dtype == dtype
                assert np.isfinite(array).all()
            assert np.all(saved[0] <= 0)
        sharp, _ = decoder_log_likelihood(x0, mean, np.full(6, -extreme, dtype))
        assert np.array_equal(sharp == 0, [True, False, True, False, True, False])
        flat, _ = decoder_log_likelihood(x0, mean, np.full(6, extreme, dtype))
        assert np.allclose(flat[:4], math.log(0.5), rtol=1e-6)


def test_a_density_is_asked_for_without_bins():
    x0, mean = np.array([0.3, -5.0]), np.array([0.1, -4.0])
    actual, _ = decoder_log_likelihood(x0, mean, np.log(np.array([0.25, 4.0])), None)
    z = (x0 - mean) / np.array([0.5, 2.0])
    assert np.allclose(actual, -0.5 * z**2 - np.log(np.array([0.5, 2.0])) - 0.5 * math.log(2 * math.pi), rtol=1e-15)


def test_data_that_are_not_in_range_or_not_on_levels_are_refused():
    good = np.array([0.0, 0.5])
    with pytest.raises(
        ValueError, match=r"x0: expected data in \[-1, 1\].*got -1 to 1.5; scale them, or give bins=None"
    ):
        decoder_log_likelihood(np.array([-1.0, 1.5]), good, good, 17)
    with pytest.raises(ValueError, match=r"x0: expected data in \[-1, 1\]"):
        decoder_log_likelihood(np.array([0.0, np.nan]), good, good, 17)
    with pytest.raises(ValueError, match=r"x0: expected data on the 256 levels.*0.25 of a step away.*number of levels"):
        decoder_log_likelihood(np.array([0.5, 1.0]), good, good)
    for bins in (1, 0, 2.5):
        with pytest.raises(ValueError, match="bins: expected a number of levels, an integer of at least 2, or None"):
            decoder_log_likelihood(good, good, good, bins)
    assert np.isfinite(decoder_log_likelihood(good, good, good, np.int64(17))[0]).all()
    # Bytes as float32 are off their levels by rounding, which is no fault.
    pixels = np.arange(256, dtype=np.float32) / np.float32(127.5) - 1
    assert np.isfinite(decoder_log_likelihood(pixels, pixels, 0 * pixels)[0]).all()


def test_other_shapes_are_refused_and_not_broadcast():
    a, b = np.ones((2, 3)) / 7, np.ones((1, 3)) / 3
    with pytest.raises(ValueError, match=r"other_mean: expected the shape \(2, 3\) of mean, got \(1, 3\); nothing is"):
        kl_gaussian(a, a, b, a)
    with pytest.raises(ValueError, match=r"log_variance: expected the shape \(2, 3\) of x0, got \(1, 3\)"):
        decoder_log_likelihood(a, a, b, None)
    with pytest.raises(ValueError, match=r"mean: expected the shape \(2, 3\) of x0"):
        l_vlb_term(linear(10), a, a, 3, b, a)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (kl_gaussian, ("mean", "log_variance", "other_mean", "other_log_variance")),
        (lambda x0, mean, log_variance: decoder_log_likelihood(x0, mean, log_variance, None),
         ("x0", "mean", "log_variance")),
        (lambda x0, x_t, mean, log_variance: l_vlb_term(linear(10), x0, x_t, 3, mean, log_variance, None),
         ("x0", "x_t", "mean", "log_variance")),
    ],
)  # fmt: skip
def test_each_argument_of_another_shape_is_named(call, names):
    for name in names[1:]:
        arguments = {other: np.ones((2, 3)) / 7 for other in names} | {name: np.ones((1, 3)) / 7}
        with pytest.raises(ValueError, match=f"^{name}: expected the shape"):
            call(*arguments.values())


@pytest.mark.parametrize("outside", [-2.0, 2.0])
def test_a_level_beyond_the_ends_is_refused(outside):
    x0 = np.array([[0.0, outside]])
    with pytest.raises(ValueError, match=r"x0: expected data in \[-1, 1\]"):
        decoder_log_likelihood(x0, np.zeros((1, 2)), np.zeros((1, 2)), 3)


def test_the_bins_of_the_first_term_are_those_asked_for():
    x0, x_t = np.array([[-1.0, 0.0, 1.0]]), np.array([[-0.9, 0.1, 0.8]])
    log_variance = np.full((1, 3), -2.0)
    for bins in (3, 5, None):
        term, _ = l_vlb_term(linear(10), x0, x_t, 1, x_t, log_variance, bins, unit="nats")
        log_mass, _ = decoder_log_likelihood(x0, x_t, log_variance, bins)
        assert term == pytest.approx(-log_mass.sum())
    of_256 = np.array([[-1.0, 1 / 255, 1.0]])  # 256 levels, and no other number of them, unless told
    assert l_vlb_term(linear(10), of_256, x_t, 1, x_t, log_variance)[0] == pytest.approx(
        l_vlb_term(linear(10), of_256, x_t, 1, x_t, log_variance, 256)[0], rel=1e-12
    )


# Terms


@given(schedules(max_T=50), shapes(), seeds(), st.data())
def test_each_sample_may_have_its_own_t(schedule, shape, seed, data):
    rng = np.random.default_rng(seed)
    t = np.array([data.draw(st.just(1) | steps(schedule)) for _ in range(shape[0])])
    for bins in (256, None):
        x0, x_t, mean, log_variance = case(rng, shape, schedule, t)
        together, _ = l_vlb_term(schedule, x0, x_t, t, mean, log_variance, bins)
        assert together.shape == shape[:1]
        for i, t_i in enumerate(t.tolist()):
            one = slice(i, i + 1)
            alone, _ = l_vlb_term(schedule, x0[one], x_t[one], t_i, mean[one], log_variance[one], bins)
            assert abs(alone[0] - together[i]) <= 1e-14 * abs(together[i])


@given(schedules(max_T=50), shapes(), seeds(), st.sampled_from(["first", "late", "mixed"]))
def test_a_terms_gradient_is_its_derivative_whatever_the_mixture_of_t(schedule, shape, seed, kind):
    rng = np.random.default_rng(seed)
    t = {"first": 1, "late": rng.integers(min(2, schedule.T), schedule.T + 1, shape[0]), "mixed": None}[kind]
    if t is None:
        t = np.where(np.arange(shape[0]) % 2, 1, schedule.T)
    for bins, unit in ((256, "bits"), (None, "nats")):
        x0, x_t, mean, log_variance = case(rng, shape, schedule, t)
        check_backward(
            lambda m, v: l_vlb_term(schedule, x0, x_t, t, m, v, bins, unit),  # noqa: B023
            l_vlb_term_backward,
            (mean, log_variance),
            rng,
        )


@given(shapes(), seeds())
def test_bits_are_nats_over_dimensions_and_log_two(shape, seed):
    schedule, rng = linear(10), np.random.default_rng(seed)
    x0, x_t, mean, log_variance = case(rng, shape, schedule, 4)
    factor = math.prod(shape[1:]) * math.log(2)
    bits, _ = l_vlb_term(schedule, x0, x_t, 4, mean, log_variance)
    nats, _ = l_vlb_term(schedule, x0, x_t, 4, mean, log_variance, unit="nats")
    assert norm(bits * factor - nats) <= 1e-15 * norm(nats)
    bits, nats = prior_matching(schedule, x0), prior_matching(schedule, x0, "nats")
    assert norm(bits * factor - nats) <= 1e-15 * norm(nats)
    assert bits.shape == shape[:1]


def test_a_prior_without_signal_has_no_term():
    assert np.array_equal(prior_matching(from_beta([0.5, 1.0]), np.ones((2, 3)) / 3), np.zeros(2))


def test_the_prior_term_is_continuous_where_its_logarithm_changes_form():
    x0 = np.full((1, 2), 0.3)
    below, above = (prior_matching(from_beta([beta]), x0) for beta in (0.5 - 1e-12, 0.5 + 1e-12))
    assert abs(below - above)[0] < 1e-11
    want = (0.5 * 0.09 + 0.5 - 1 - math.log(0.5)) / 2 / math.log(2)
    assert below[0] == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize(
    "beta", [[1e-10], [1e-10, 1e-10], [1e-6, 0.3], [0.49], [0.51], [0.9, 1 - 1e-3], [1 - 1e-9] * 2]
)
@pytest.mark.parametrize("x0", [0.0, 0.3, 1.0])
def test_the_prior_term_has_all_its_digits_at_both_ends_of_alpha_bar(beta, x0):
    """Whichever way its logarithm is taken, the other one loses digits: alpha_bar all but 1, all but 0."""
    with mpmath.workdps(80):
        a2 = mpmath.fprod(1 - mpmath.mpf(b) for b in beta)
        exact = (a2 * mpmath.mpf(x0) ** 2 + (1 - a2) - 1 - mpmath.log(1 - a2)) / 2
    assert prior_matching(from_beta(beta), np.full((1, 1), x0), "nats")[0] == pytest.approx(
        float(exact), rel=1e-14, abs=0
    )


@given(schedules(max_T=30), seeds())
def test_the_terms_over_a_batch_are_the_terms_one_by_one(schedule, seed):
    rng = np.random.default_rng(seed)
    x0, eps = levels(rng, (3, 4), 17), rng.standard_normal((schedule.T + 1, 3, 4))
    predict = predictor(schedule, lambda x, t: 0.5 * x)
    for fixed in (posterior_log_variance, step_log_variance):
        reverse = fixed_reverse(schedule, predict, fixed)
        actual = bound_terms(schedule, reverse, x0, lambda t: eps[t], 17)
        assert actual.shape == (schedule.T + 1, 3)
        for t in range(1, schedule.T + 1):
            x_t = q_sample(schedule, x0, t, eps[t])
            mean = posterior_mean(schedule, x_t, predict(x_t, t)[0], t)
            log_variance = np.full_like(x_t, fixed(schedule, t))
            term, _ = l_vlb_term(schedule, x0, x_t, t, mean, log_variance, 17)
            assert np.array_equal(actual[t - 1], term)
        assert np.array_equal(actual[-1], prior_matching(schedule, x0))


def test_a_fixed_log_variance_has_the_shape_of_x_and_one_value_a_sample():
    x = np.ones((3, 2), np.float32) / 3
    actual = fixed_log_variance(linear(10), x, np.array([1, 2, 10]))
    assert actual.dtype == np.float32
    assert np.array_equal(actual, np.repeat(posterior_log_variance(linear(10), [1, 2, 10])[:, None], 2, 1).astype("f4"))
    assert np.all(fixed_log_variance(constant(5, 0.3), x, 2, step_log_variance) == np.float32(math.log(0.3)))


def test_a_perfect_prediction_with_the_posteriors_variance_costs_nothing():
    schedule, rng = linear(20), np.random.default_rng(0)
    x0 = rng.standard_normal((4, 3))
    x_t = q_sample(schedule, x0, 7, rng.standard_normal((4, 3)))
    mean = posterior_mean(schedule, x_t, x0, 7)
    term, _ = l_vlb_term(schedule, x0, x_t, 7, mean, fixed_log_variance(schedule, x_t, 7))
    assert np.array_equal(term, np.zeros(4))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_kept_and_inputs_are_left_alone(dtype):
    schedule, rng = linear(10), np.random.default_rng(1)
    for t in (1, 6, np.array([1, 6, 10])):
        arrays = [a.astype(dtype) for a in case(rng, (3, 4), schedule, t)]
        for a in arrays:
            a.flags.writeable = False
        x0, x_t, mean, log_variance = arrays
        term, saved = l_vlb_term(schedule, x0, x_t, t, mean, log_variance)
        x0_, x_t_, mean_, log_variance_ = (a.astype(np.float64) for a in arrays)
        exact, _ = l_vlb_term(schedule, x0_, x_t_, t, mean_, log_variance_)
        assert term.dtype == dtype
        assert norm(term - exact) <= 1e4 * np.finfo(dtype).eps * (1 + norm(exact))
        gradients = l_vlb_term_backward(np.ones(3, dtype), saved)
        assert [g.dtype for g in gradients] == [dtype, dtype]
        assert [g.shape for g in gradients] == [(3, 4), (3, 4)]
        assert prior_matching(schedule, x0).dtype == dtype


def test_wrong_steps_units_and_samples_are_refused_by_name():
    a = np.zeros((2, 3))
    for t in (0, 11, [1, 11], 2.0):
        with pytest.raises(ValueError, match="t: expected"):
            l_vlb_term(linear(10), a, a, t, a, a)
    with pytest.raises(ValueError, match="t: expected one step a sample"):
        l_vlb_term(linear(10), a, a, [2, 3, 4], a, a)
    with pytest.raises(ValueError, match="unit: expected one of bits, nats, got 'nat'; did you mean nats"):
        l_vlb_term(linear(10), a, a, 2, a, a, unit="nat")
    with pytest.raises(ValueError, match="unit: expected one of bits, nats"):
        prior_matching(linear(10), a, "bpd")
    for x in (np.array(0.5), np.zeros((0, 3))):
        with pytest.raises(ValueError, match=r"x0: expected at least one sample \(N, ...\), got shape"):
            prior_matching(linear(10), x)


# Other libraries


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bins", [None, 256])
@pytest.mark.parametrize("t", [1, 4, [1, 4, 10]])
def test_arrays_of_any_library_give_what_numpy_gives(library, dtype, bins, t):
    schedule = linear(10, 0.1, 0.4)
    arrays = [a.astype(dtype) for a in case(np.random.default_rng(3), (3, 2, 2), schedule, np.array(t))]
    there = [library.asarray(a) for a in arrays]

    def run(x0, x_t, mean, log_variance):
        term, saved = l_vlb_term(schedule, x0, x_t, t, mean, log_variance, bins)
        yield from (term, *l_vlb_term_backward(term, saved), prior_matching(schedule, x0))
        reverse = fixed_reverse(schedule, predictor(schedule, lambda x, t: x / 2))
        yield bound_terms(schedule, reverse, x0, lambda t: x_t, bins)
        kl, saved = kl_gaussian(mean, log_variance, x0, x_t)
        yield from (kl, *kl_gaussian_backward(kl, saved))

    for actual, expected in zip(run(*there), run(*arrays), strict=True):
        assert type(actual) is type(there[0])
        actual = np.asarray(actual)
        assert actual.dtype == expected.dtype == dtype
        assert actual.shape == expected.shape
        assert norm(actual - expected) <= 64 * np.finfo(dtype).eps * norm(expected)


def test_the_bound_takes_bytes_unless_told_otherwise():
    schedule, rng = linear(3), np.random.default_rng(9)
    x0, eps = levels(rng, (2, 3)), rng.standard_normal((4, 2, 3))
    reverse = fixed_reverse(schedule, predictor(schedule, lambda x, t: 0.5 * x))
    given = bound_terms(schedule, reverse, x0, lambda t: eps[t])
    assert np.array_equal(given, bound_terms(schedule, reverse, x0, lambda t: eps[t], 256))


def test_a_fixed_log_variance_of_integers_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"^x_t: expected floating-point numbers, got int64"):
        fixed_log_variance(linear(5), np.ones((2, 3), int), np.array([1, 2]))
