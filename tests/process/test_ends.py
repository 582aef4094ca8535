"""The variances and the bound at both ends of alpha_bar against 500 digits, in every precision that they are offered in."""

import mpmath
import numpy as np
import pytest
from helpers import ends_and_middle

from refdiff.process import (
    constant,
    fixed_log_variance,
    from_beta,
    l_hybrid,
    l_vlb_term,
    learned_log_variance,
    linear,
    posterior_log_variance,
    posterior_mean,
    posterior_mean_coefficients,
    posterior_variance,
    prior_matching,
    q_sample,
    rescale_zero_terminal_snr,
    step_variance,
)

SCHEDULES = {
    "terminal": rescale_zero_terminal_snr(linear()),
    "one step": from_beta([1.0]),
    "two steps": from_beta([1e-9, 1.0]),
    "small": constant(100, 1e-10),
    "from nothing": from_beta([1e-200, 1e-8, 0.5, 1.0]),
}
ELEMENTS = 100_000


def exact(schedule, t):
    """alpha and beta of the step, alpha_bar of t - 1 and of t, as numbers of 500 digits."""
    alpha = [
        mpmath.mpf(a) if b > 0.5 else 1 - mpmath.mpf(b) for a, b in zip(schedule.alpha, schedule.beta, strict=True)
    ]
    before = mpmath.fprod(alpha[:t])
    return alpha[t], 1 - alpha[t], before, before * alpha[t]


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_posterior_and_its_variances_in_500_digits(name):
    schedule = SCHEDULES[name]
    for t in ends_and_middle(schedule):
        with mpmath.workdps(500):  # 1 - 1e-200 has 200 of them
            alpha, beta, before, now = exact(schedule, t)
            tilde = beta * (1 - before) / (1 - now)
            of_x0, of_xt = mpmath.sqrt(before) * beta / (1 - now), mpmath.sqrt(alpha) * (1 - before) / (1 - now)
            expected = [float(v) for v in (of_x0, of_xt, tilde, beta)]
            log = float(mpmath.log(tilde)) if t > 1 else None
        actual = [
            *posterior_mean_coefficients(schedule, t),
            posterior_variance(schedule, t),
            step_variance(schedule, t),
        ]
        assert actual == pytest.approx(expected, rel=1e-14, abs=0)
        assert log is None or posterior_log_variance(schedule, t) == pytest.approx(log, rel=1e-14)


@pytest.fixture(params=["float16", "float32", "float64"], scope="module")
def numbers(request):
    """Numbers from -1 to 1 of this precision, and the distance of 1 to its neighbour; bfloat16's in tests/peers."""
    v = np.random.default_rng(0).uniform(-1, 1, ELEMENTS)
    return v.astype(request.param), float(np.finfo(request.param).eps)


def double(v):
    return v.double().numpy() if hasattr(v, "double") else v.astype(np.float64)


@pytest.mark.parametrize("name", SCHEDULES)
def test_learned_log_variances_in_every_precision(name, numbers):
    schedule, (v, eps) = SCHEDULES[name], numbers
    for t in ends_and_middle(schedule):
        with mpmath.workdps(500):
            _, beta, before, now = exact(schedule, max(t, min(2, schedule.T)))
            low = mpmath.log(beta * (1 - before) / (1 - now) if before < 1 else beta)
            high = mpmath.log(exact(schedule, t)[1])
            low, gap = float(low), float(high - low)
        actual = double(learned_log_variance(schedule, v, t)[0])
        assert np.abs(actual - (low + (1 + double(v)) / 2 * gap)).max() <= eps * (abs(low) + abs(gap) + 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_terms_of_the_bound_over_many_elements(name, dtype):
    schedule = SCHEDULES[name]
    eps = float(np.finfo(dtype).eps)
    rng = np.random.default_rng(1)
    for t in (
        t
        for t in ends_and_middle(schedule)
        if t > 1 and (dtype == "float64" or posterior_variance(schedule, t) > 1e-30)
    ):
        x0, z, off, more = rng.standard_normal((4, 1, ELEMENTS)).astype(dtype)
        x_t, sigma = q_sample(schedule, x0, t, z), np.sqrt(posterior_variance(schedule, t))
        mean = posterior_mean(schedule, x_t, x0, t) + (sigma * off).astype(dtype)
        log_variance = fixed_log_variance(schedule, x_t, t) + more
        with mpmath.workdps(500):
            alpha, beta, before, now = exact(schedule, t)
            tilde = beta * (1 - before) / (1 - now)
            of_x0, of_xt = mpmath.sqrt(before) * beta / (1 - now), mpmath.sqrt(alpha) * (1 - before) / (1 - now)
            of_x0, of_xt, log_tilde = float(of_x0), float(of_xt), float(mpmath.log(tilde))
        a, b, m, lv = (v.astype(np.longdouble) for v in (x0, x_t, mean, log_variance))
        d = log_tilde - lv
        away = (of_x0 * a + of_xt * b - m) * np.exp(-lv / 2)
        expected = ((np.exp(d) - 1 - d + away**2) / 2).sum()
        # A last digit of the means counts 1 / sigma times, one of the log variance as many as it is large.
        lost = np.abs(away) * (np.abs(a) + np.abs(b)) * np.exp(-lv / 2) + (np.abs(lv) + 1) * np.abs(np.expm1(d))
        actual = l_vlb_term(schedule, x0, x_t, t, mean, log_variance, None, "nats")[0]
        assert abs(actual[0] - expected) <= 4 * eps * (float(lost.sum()) + float(expected))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_last_term_where_nothing_or_little_is_left_of_the_data(dtype):
    x0 = np.random.default_rng(2).uniform(-1, 1, (2, ELEMENTS)).astype(dtype)
    for name in ("terminal", "one step", "two steps", "from nothing"):
        assert np.array_equal(prior_matching(SCHEDULES[name], x0), np.zeros(2))
    for schedule in (linear(), SCHEDULES["small"]):
        with mpmath.workdps(500):
            now = exact(schedule, schedule.T)[3]
            constant_part, slope = float(-now - mpmath.log(1 - now)), float(now)
        expected = (slope * x0.astype(np.float64) ** 2 + constant_part).sum(axis=1) / 2
        assert prior_matching(schedule, x0, "nats") == pytest.approx(expected, rel=8 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_hybrid_loss_with_v_is_finite_where_alpha_bar_is_0_and_with_eps_refused(dtype):
    schedule = SCHEDULES["terminal"]
    x0, eps = np.random.default_rng(3).uniform(-0.9, 0.9, (2, 4, 50)).astype(dtype)
    output, t = np.concatenate([eps, 0 * eps], axis=1), np.array([1, 2, 999, 1000])
    assert np.isfinite(l_hybrid(schedule, "v", x0, eps, t, output, bins=None)[0])
    with pytest.raises(ValueError, match=r"got t = 1000, where it is 0 and eps says nothing of .*; predict v"):
        l_hybrid(schedule, "eps", x0, eps, t, output, bins=None)
