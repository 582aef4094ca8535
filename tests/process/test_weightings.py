"""Weightings at their limits: constants, terminal schedules, shapes and refusals. The claims hold their values."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.process import (
    PREDICTIONS,
    error_scale,
    from_beta,
    linear,
    min_snr_weight,
    p2_weight,
    posterior_variance,
    rescale_zero_terminal_snr,
    step_variance,
    vlb_weight,
)
from refdiff.testing.strategies import schedules

ALL = {
    "error_scale": error_scale,
    "vlb_weight": lambda s, t, kind="eps": vlb_weight(s, t, kind, step_variance),
    "min_snr_weight": min_snr_weight,
    "p2_weight": p2_weight,
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", PREDICTIONS)
@given(schedule=schedules(max_T=100))
def test_weights_are_float64_positive_and_one_a_step(name, kind, schedule):
    t = np.arange(1, schedule.T + 1)
    weight = ALL[name](schedule, t, kind)
    assert weight.dtype == np.float64
    assert weight.shape == t.shape
    assert np.all((weight > 0) & np.isfinite(weight))
    one = ALL[name](schedule, schedule.T, kind)
    assert np.shape(one) == ()
    assert one == pytest.approx(weight[-1], rel=1e-15)
    # A weighting for eps times the scale is that weighting for the kind.
    expected = weight if name == "error_scale" else ALL[name](schedule, t, "eps") * error_scale(schedule, t, kind)
    assert np.allclose(weight, expected, rtol=1e-13, atol=0)


def test_eps_is_the_default():
    t = np.arange(2, 11)
    for weight in (vlb_weight, min_snr_weight, p2_weight):
        assert np.array_equal(weight(linear(10), t), weight(linear(10), t, "eps"))
    assert np.array_equal(vlb_weight(linear(10), t), vlb_weight(linear(10), t, "eps", posterior_variance))


@given(schedules(max_T=100), st.floats(0.1, 20))
def test_min_snr_is_one_until_the_signal_exceeds_gamma_and_then_falls(schedule, gamma):
    t = np.arange(1, schedule.T + 1)
    weight, snr = min_snr_weight(schedule, t, gamma=gamma), schedule.snr[1:]
    assert np.all(weight[snr < gamma] == 1)
    assert np.allclose(weight[snr >= gamma] * snr[snr >= gamma], gamma, rtol=1e-14)
    assert min_snr_weight(schedule, t)[0] == min_snr_weight(schedule, t, gamma=5.0)[0]


def test_without_signal_at_the_last_step_weights_stay_finite():
    schedule = from_beta([0.3, 0.6, 1.0])
    assert min_snr_weight(schedule, 3) == 1
    assert min_snr_weight(schedule, 3, "x0") == 0
    assert p2_weight(schedule, 3) == 1
    assert p2_weight(schedule, 3, k=2.0) == 0.5
    assert p2_weight(schedule, 3, gamma=3.0, k=2.0) == 0.125


ENDS = {
    "terminal": rescale_zero_terminal_snr(linear()),
    "two steps": from_beta([0.3, 1.0]),
    "one step": from_beta([1.0]),
    "small": from_beta(np.full(50, 1e-10)),
    "from nothing": from_beta([1e-200, 1e-8, 0.5, 1.0]),
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_weights_at_both_ends_in_500_digits(name, kind):
    schedule = ENDS[name]
    T = schedule.T
    with mpmath.workdps(500):  # 1 - 1e-200 has 200 of them
        alpha = [
            mpmath.mpf(a) if b > 0.5 else 1 - mpmath.mpf(b) for a, b in zip(schedule.alpha, schedule.beta, strict=True)
        ]
        for t in sorted({1, 2, T // 2, T - 1, T} & set(range(1, T + 1))):
            before = mpmath.fprod(alpha[:t])
            now, beta = before * alpha[t], 1 - alpha[t]
            s2, infinite = 1 - now, mpmath.inf if now == 0 else None
            scale = {"eps": 1, "x0": now / s2, "v": now, "score": s2, "mu": alpha[t] * s2 / beta**2}[kind]
            # The squared move of the mean of p(x_{t-1} | x_t) for an error of 1.
            move = {
                "eps": infinite or beta**2 / alpha[t] / s2, "x0": before * (beta / s2) ** 2, "v": before * beta**2 / s2,
                "score": infinite or beta**2 / alpha[t], "mu": 1,
            }[kind]  # fmt: skip
            tilde = beta * (1 - before) / s2
            snr = now / s2
            expected = {
                error_scale: scale,
                lambda s, t, k: vlb_weight(s, t, k, step_variance): move / beta / 2,
                min_snr_weight: scale * (min(1, 5 / snr) if snr else 1),
                p2_weight: scale / (1 + snr),
            }
            if t > 1:
                expected[vlb_weight] = move / tilde / 2
            for weight, value in expected.items():
                assert weight(schedule, t, kind) == pytest.approx(float(value), rel=1e-13, abs=0)


def test_the_bounds_weight_where_nothing_is_left_of_the_data():
    schedule = rescale_zero_terminal_snr(linear())
    for kind, expected in {"x0": 2.1066e-9, "v": 2.1066e-9, "eps": np.inf, "score": np.inf}.items():
        assert vlb_weight(schedule, 1000, kind) == pytest.approx(expected, rel=1e-4)
        assert vlb_weight(schedule, np.array([2, 1000]), kind)[1] == vlb_weight(schedule, 1000, kind)
    assert vlb_weight(schedule, 1000, "x0") == pytest.approx(schedule.snr[999] / 2, rel=1e-14)  # [VDM] eq. 14


def test_p2_without_an_exponent_is_the_simple_loss():
    t = np.arange(1, 11)
    assert np.array_equal(p2_weight(linear(10), t, gamma=0.0), np.ones(10))


def test_the_bounds_weight_falls_with_t_as_the_papers_does():
    # [DDPM] section 3.4: the simple loss down-weights small t.
    assert np.all(np.diff(vlb_weight(linear(1000), np.arange(2, 200))) < 0)


def test_what_cannot_be_weighted_is_refused_by_name():
    schedule = linear(10)
    with pytest.raises(ValueError, match=r"t: expected steps whose variance is above 0, from 2 on.*got t = 1"):
        vlb_weight(schedule, 1)
    with pytest.raises(ValueError, match="t: expected steps whose variance is above 0"):
        vlb_weight(schedule, [1, 2], "mu")
    assert vlb_weight(schedule, 1, "mu", step_variance) == 1 / (2 * schedule.beta[1])
    for weight in ALL.values():
        with pytest.raises(ValueError, match=r"kind: expected one of eps, x0, mu, v, score, got 'noise'"):
            weight(schedule, 3, "noise")
        for t in (0, 11, [2, 11]):
            with pytest.raises(ValueError, match="t: expected integers from 1 to T = 10"):
                weight(schedule, t, "eps")
    for gamma in (0, -1.0, np.nan):
        with pytest.raises(ValueError, match="gamma: expected a number above 0, the paper's is 5, got"):
            min_snr_weight(schedule, 3, gamma=gamma)
    for bad in ({"gamma": -0.1}, {"k": 0.0}, {"gamma": np.nan}, {"k": np.nan}):
        with pytest.raises(ValueError, match="gamma, k: expected gamma >= 0 and k > 0, the paper's are 1 and 1, got"):
            p2_weight(schedule, 3, **bad)


def test_the_papers_parameters_are_the_defaults():
    schedule, t = linear(), np.arange(1, 1001)
    assert np.array_equal(min_snr_weight(schedule, t), min_snr_weight(schedule, t, "eps", 5.0))
    assert not np.array_equal(min_snr_weight(schedule, t), min_snr_weight(schedule, t, "eps", 6.0))
    assert np.array_equal(p2_weight(schedule, t), p2_weight(schedule, t, "eps", 1.0, 1.0))
    assert not np.array_equal(p2_weight(schedule, t), p2_weight(schedule, t, "eps", 2.0, 1.0))
