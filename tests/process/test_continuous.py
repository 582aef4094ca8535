"""Schedules in continuous time: what they refuse, and arrays of every kind; what they say is in the claims."""

import inspect

import mpmath
import numpy as np
import pytest

from refdiff import process
from refdiff.process import ContinuousSchedule, between_ends, cosine_gamma, final, linear_gamma
from refdiff.testing import claims
from refdiff.testing.claim import CLAIMS

SCHEDULE = cosine_gamma(-8, 6)


def test_every_function_of_a_continuous_schedule_is_the_subject_of_a_claim():
    assert claims.continuous_bound is not None
    subjects = {claim.of for claim in CLAIMS}
    for name in dir(process):
        f = getattr(process, name)
        if inspect.isfunction(f) and "ContinuousSchedule" in str(inspect.signature(f).parameters.get("schedule")):
            claimed = f"refdiff.process.continuous.{name}" in subjects
            assert claimed or name == "q_sample_at"  # which claims of two others use


def test_a_schedule_that_does_not_rise_is_told_where():
    message = (
        r"^gamma: expected a schedule that rises .*, got gamma\(0.75\d*\) = .* and gamma\(0.75\d*\) = .*; give one"
    )
    with pytest.raises(ValueError, match=message):
        ContinuousSchedule(lambda t: -((t - 0.75) ** 2), lambda t: 1.5 - 2 * t)
    with pytest.raises(ValueError, match=r"^gamma: .* got gamma\(0\) = 1 and gamma\(0.0039062\d*\) = 1;"):
        ContinuousSchedule(np.ones_like, np.zeros_like)


def test_a_schedule_that_is_flat_between_the_points_looked_at_is_refused_where_it_steps():
    def inside(t):
        return t + (1 / 256 - t % (1 / 256)) * (t > 0.5) * (t < 0.5 + 1 / 256), np.ones_like(t)

    schedule = between_ends(-5, 5, inside)
    assert schedule.discretised(256).T == 257
    with pytest.raises(ValueError, match=r"^gamma: expected a schedule that rises .* or fewer steps where it is flat$"):
        schedule.discretised(1024)


def test_a_derivative_of_another_sign_is_refused():
    with pytest.raises(ValueError, match=r"^gamma: expected a derivative that is nowhere negative, got -1 at t = 0;"):
        ContinuousSchedule(lambda t: t, lambda t: -np.ones_like(t))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SCHEDULE.gamma(1.5), r"^t: expected times from 0 to 1, got 1.5"),
        (lambda: SCHEDULE.snr([0.5, -1]), r"^t: expected times from 0 to 1, got -1"),
        (lambda: SCHEDULE.alpha(np.nan), r"^t: expected times from 0 to 1, got nan"),
        (lambda: SCHEDULE.discretised(0), r"^T: expected a number of steps, an integer of at least 1, got 0"),
        (lambda: linear_gamma(2, 2), r"^gamma_0, gamma_1: expected finite ends with gamma_0 < gamma_1, got 2 and 2"),
        (lambda: cosine_gamma(-np.inf, 2), r"^gamma_0, gamma_1: expected finite ends with gamma_0 < gamma_1, got -inf"),
        (lambda: process.beta_linear_gamma(0), r"^first, rest: expected numbers above 0, got 0 and 10"),
        (lambda: between_ends(0, 1, lambda t: (1 - t, t)), r"^inside: expected a function that rises .* 1 and 0"),
        (lambda: ContinuousSchedule(np.log, lambda t: t), r"^gamma: expected finite numbers, got -inf at t = 0$"),
        (lambda: ContinuousSchedule(lambda t: 1.0, np.ones_like), r"^gamma: expected a function that keeps the shape"),
        (lambda: process.antithetic_times(2.0, 3), r"^u: expected a number from 0 to 1, got 2.0"),
        (lambda: process.antithetic_times(0.5, 0), r"^T: expected a number of steps"),
        (
            lambda: process.variational_step(SCHEDULE, *np.ones((1, 2, 2)), 0.2, 0.5, *np.ones((2, 2, 2))),
            r"^s: expected a time no later than t, got s = 0.5 with t = 0.2",
        ),
        (
            lambda: process.discrete_diffusion_loss(SCHEDULE, 0, 5, *np.ones((2, 2, 2))),
            r"^i: expected integers from 1 to T = 5, got 0",
        ),
        (
            lambda: process.diffusion_loss(SCHEDULE, np.ones(3), *np.ones((2, 2, 2))),
            r"^t: expected one step a sample of eps \(2,\), got \(3,\)",
        ),
        (
            lambda: process.reconstruction_loss(SCHEDULE, *np.full((2, 2, 2), 0.3), 3),
            r"^x0: expected data on the 3 levels -1, ..., 1",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, message):
    with np.errstate(divide="ignore"), pytest.raises(ValueError, match=message):
        call()


def test_answers_in_float32_become_float64_before_anything_is_subtracted():
    def inside(t):
        return (t * t + t).astype(np.float32), (2 * t + 1).astype(np.float32)

    schedule = between_ends(-13.3, 5, inside)
    assert schedule.gamma(0.5).dtype == schedule.slope(0.5).dtype == np.float64
    assert (schedule.gamma(0.0), schedule.gamma(1.0)) == (-13.3, 5.0)


@pytest.mark.parametrize("name", ["linear_gamma", "cosine_gamma"])
def test_the_ends_are_those_asked_for(name):
    schedule = getattr(process, name)(-9.2, 10.1)
    assert np.abs(schedule.gamma([0.0, 1.0]) / [-9.2, 10.1] - 1).max() <= 4e-16


def test_the_cosine_is_even_in_its_angle():
    schedule = cosine_gamma(-20, 30)
    with mpmath.workdps(40):
        a, b = (mpmath.atan(mpmath.exp(g / 2)) for g in (mpmath.mpf(-20), mpmath.mpf(30)))
        for t in (0.0, 1e-9, 0.3, 1 - 2**-30, 1.0):
            exact = mpmath.tan(a + (b - a) * mpmath.mpf(t)) ** -2
            assert abs(mpmath.mpf(float(schedule.snr(t))) / exact - 1) <= 4e-14


def test_every_sampler_of_process_works_on_a_discretised_one():
    discrete = SCHEDULE.discretised(20)
    assert discrete.T == 21
    x0 = np.random.default_rng(0).uniform(-1, 1, (3, 2))
    for sampler in (process.ddim, process.heun, process.dpmpp_2m, process.euler):
        predict = process.predictor(discrete, lambda x, t: x0, "x0")
        z_1 = process.q_sample(discrete, x0, 21, np.ones((3, 2)))
        assert np.abs(final(sampler(discrete, predict, z_1, range(1, 22))) - x0).max() <= 1e-12


def test_arrays_of_other_libraries_are_taken_too(library):
    xp = library
    rng = np.random.default_rng(1)
    x, eps, eps_hat = np.round(rng.uniform(-2, 2, (4, 3))) / 2, *rng.standard_normal((2, 4, 3))
    t, calls = np.array([0.1, 0.5, 0.9, 1.0]), []
    calls = [
        (lambda a, b, c: process.q_sample_at(SCHEDULE, a, t, b)),
        (lambda a, b, c: process.variational_step(SCHEDULE, a, t, t / 2, b, c)),
        (lambda a, b, c: process.diffusion_loss(SCHEDULE, t, b, c)),
        (lambda a, b, c: process.discrete_diffusion_loss(SCHEDULE, np.array([1, 2, 3, 4]), 4, b, c)),
        (lambda a, b, c: process.prior_loss(SCHEDULE, a)),
        (lambda a, b, c: process.reconstruction_loss(SCHEDULE, a, b, 5)),
    ]
    for call in calls:
        theirs = call(*(xp.asarray(v) for v in (x, eps, eps_hat)))
        assert np.allclose(np.asarray(theirs), call(x, eps, eps_hat), rtol=1e-12, atol=0)
