"""What the solvers keep in single precision where sigma is large. Their equations and orders are claims."""

import numpy as np
import pytest

from refdiff.process import (
    cosine,
    euler,
    euler_ancestral,
    final,
    from_beta,
    heun,
    linear,
    predictor,
    rescale_zero_terminal_snr,
    sigmoid,
    uniform_steps,
)
from refdiff.testing.orders import PLANE


def nearly_terminal(sigma):
    """Zero terminal SNR but for a last step to this sigma."""
    schedule = rescale_zero_terminal_snr(linear())
    return from_beta([*schedule.beta[1:-1], 1 - 1 / (1 + sigma**2) / schedule.alpha_bar[-2]])


SCHEDULES = {"cosine": cosine(), "sigmoid": sigmoid(), "1e5": nearly_terminal(1e5), "1e6": nearly_terminal(1e6)}
X = np.random.default_rng(0).standard_normal((500, 2)).astype(np.float32)


def runs(solver, schedule, kind, n):
    """The same run in single and in double precision: how far apart, in roundings of 1."""
    ends = []
    for dtype in (np.float32, np.float64):
        model = {"x0": PLANE.x0, "v": PLANE.v, "eps": PLANE.eps}[kind]
        predict = predictor(schedule, lambda x, t, m=model, d=dtype: m(schedule, x, t).astype(d), kind)
        ends.append(final(solver(schedule, predict, X.astype(dtype), uniform_steps(schedule.T, n))))
        assert ends[-1].dtype == dtype
    return float(np.sqrt(((ends[0] - ends[1]) ** 2).mean())) / 2.0**-24


def noisy(schedule, predict, x, timesteps):
    rng = np.random.default_rng(1)
    draws = {t: rng.standard_normal(x.shape) for t in sorted(np.asarray(timesteps).tolist())}
    return euler_ancestral(schedule, predict, x, timesteps, lambda t: draws[t].astype(x.dtype))


@pytest.mark.parametrize("solver", [euler, heun, noisy])
@pytest.mark.parametrize("kind", ["v", "x0"])
@pytest.mark.parametrize("n", [10, 50])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_prediction_with_digits_gives_a_sample_with_digits(name, n, kind, solver):
    # By y_t + (sigma_s - sigma_t) eps_hat, Heun's run on cosine() with 10 steps is off by 2 million roundings, 14 %.
    assert runs(solver, SCHEDULES[name], kind, n) < (1000 if solver is heun else 30)


def test_eps_has_lost_what_sigma_magnifies():
    # x_t - s eps_hat is all that is known of x0_hat: no way of computing brings digits back. Small sigma does no harm.
    assert runs(heun, linear(), "eps", 10) < 8
    assert runs(heun, linear(), "eps", 50) < 30
    assert runs(euler, cosine(), "eps", 50) < 1000
    assert runs(euler, cosine(), "eps", 50) > 10 * runs(euler, cosine(), "v", 50)
