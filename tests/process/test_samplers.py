"""Each sampler against its equation, against the others, and against data whose distribution it must give back."""

import json
from functools import partial
from pathlib import Path

import mpmath
import numpy as np
import pytest
from helpers import draws, exact
from hypothesis import given
from hypothesis import strategies as st
from numpy.linalg import norm

from refdiff.process import (
    GaussianMixture,
    ancestral,
    ancestral_step,
    cosine,
    ddim,
    ddim_inversion,
    ddim_step,
    dpmpp_2m,
    dpmpp_2s,
    euler,
    euler_ancestral,
    final,
    from_beta,
    heun,
    linear,
    posterior_mean,
    posterior_variance,
    predictor,
    q_sample,
    step_variance,
    uniform_steps,
)
from refdiff.random import Sequence, normal
from refdiff.testing import orders
from refdiff.testing.strategies import pairs, schedules, seeds, shapes, timesteps

mpmath.mp.dps = 50


etas = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.01, 0.99))


def sure_of(x0, schedule, kind):
    """A network that says x0, or v of it, whatever x is."""

    def model(x, t):
        a, s = np.sqrt(schedule.alpha_bar[t]), np.sqrt(schedule.one_minus_alpha_bar[t])
        return x0 if kind == "x0" else (a * x - x0) / s

    return model


def recorded():
    """A `predict`, and the list of the steps at which it was asked."""
    seen = []

    def predict(x, t):
        seen.append(t)
        return 0.5 * x, 0.1 * x

    return predict, seen


def noise_of(seed, shape):
    return lambda t: normal(Sequence(seed, 7, t), np.arange(shape[0]), shape[1:], np.float64)


def strange_network(T):
    """A predict that is nobody's denoiser but depends on x and on t, in two outputs that need not agree."""

    def predict(x, t):
        assert isinstance(t, int)
        return np.tanh(x + t / T), np.sin(2 * x - t / T)

    return predict


def of_one_point(schedule, x0):
    """The perfect denoiser of data that is always x0."""

    def eps(x, t):
        return (x - np.sqrt(schedule.alpha_bar[t]) * x0) / np.sqrt(schedule.one_minus_alpha_bar[t])

    return predictor(schedule, eps, "eps")


@given(schedules(max_T=200, terminal=True), etas, seeds(), st.data())
def test_a_ddim_step_is_equation_12_in_50_digits(schedule, eta, seed, data):
    s, t = data.draw(pairs(schedule, strict=True))
    x, x0_hat, eps_hat, eps = draws(seed, (3,), 4)
    # 1 - beta; where beta is near 1, alpha as it is, of which a respaced schedule has more digits.
    alpha = np.where(schedule.beta > 0.5, exact(schedule.alpha), 1 - exact(schedule.beta))
    a2_s, a2_t = mpmath.fprod(alpha[: s + 1]), mpmath.fprod(alpha[: t + 1])
    sigma = mpmath.mpf(eta) * mpmath.sqrt((1 - a2_s) / (1 - a2_t)) * mpmath.sqrt(1 - a2_t / a2_s)
    along = mpmath.sqrt(max(0, 1 - a2_s - sigma**2))  # 0 for eta = 1 from pure noise, to 50 digits
    expected = mpmath.sqrt(a2_s) * exact(x0_hat) + along * exact(eps_hat) + sigma * exact(eps)
    terms = mpmath.sqrt(a2_s) * norm(x0_hat) + along * norm(eps_hat) + sigma * norm(eps)
    actual = ddim_step(schedule, x, t, s, x0_hat, eps_hat, eta, eps)
    assert mpmath.norm(exact(actual) - expected) <= 1e-14 * terms
    if eta == 0:
        assert np.array_equal(ddim_step(schedule, x, t, s, x0_hat, eps_hat), actual)


@pytest.mark.parametrize("variance", [posterior_variance, step_variance])
@given(schedules(terminal=True), shapes(), seeds(), st.data())
def test_an_ancestral_step_is_the_mean_plus_noise_of_the_variance_asked_for(variance, schedule, shape, seed, data):
    s, t = data.draw(pairs(schedule, strict=True))
    x, x0_hat, eps = draws(seed, shape, 3)
    x.flags.writeable = x0_hat.flags.writeable = eps.flags.writeable = False
    mean = posterior_mean(schedule, x, x0_hat, t, s)
    expected = mean + (s > 0) * np.sqrt(variance(schedule, t, s)) * eps
    assert norm(ancestral_step(schedule, x, t, s, x0_hat, eps, variance) - expected) <= 1e-14 * (norm(mean) + norm(eps))
    if variance is posterior_variance:
        assert np.array_equal(
            ancestral_step(schedule, x, t, s, x0_hat, eps), ancestral_step(schedule, x, t, s, x0_hat, eps, variance)
        )


@given(schedules(terminal=True), shapes(), seeds(), st.data())
def test_a_ddim_step_with_eta_one_is_the_ancestral_step(schedule, shape, seed, data):
    s, t = data.draw(pairs(schedule, strict=True))
    x0_hat, eps_hat, eps = draws(seed, shape, 3)
    x = q_sample(schedule, x0_hat, t, eps_hat)
    one, other = ddim_step(schedule, x, t, s, x0_hat, eps_hat, 1.0, eps), ancestral_step(schedule, x, t, s, x0_hat, eps)
    assert norm(one - other) <= 1e-13 * (norm(x0_hat) + norm(eps_hat) + norm(eps))


@given(schedules(max_T=60), seeds(), st.data())
def test_whole_runs_with_eta_one_are_ancestral_runs(schedule, seed, data):
    chosen, shape = data.draw(timesteps(schedule)), (2, 3)
    (x,) = draws(seed, shape, 1)
    predict = predictor(schedule, lambda x, t: np.tanh(x + t / schedule.T), "x0")  # both outputs agree with x
    one = ddim(schedule, predict, x, chosen, noise_of(seed, shape), eta=1.0)
    other = ancestral(schedule, predict, x, chosen, noise_of(seed, shape))
    for (t, x_one), (t_other, x_other) in zip(one, other, strict=True):
        assert t == t_other
        assert norm(x_one - x_other) <= 1e-12 * norm(x_other)  # tanh is tame, so the steps' 1e-14 only add up


@pytest.mark.parametrize("sampler", ["ancestral", "step variance", "ddim"])
@given(schedules(max_T=200, terminal=True), etas, seeds(), st.data())
def test_a_subsequence_is_a_run_of_the_respaced_schedule(sampler, schedule, eta, seed, data):
    chosen, shape = data.draw(timesteps(schedule)), (2, 3)
    (x,) = draws(seed, shape, 1)
    network, noise = strange_network(1000), noise_of(seed, shape)

    def run(schedule, chosen):
        """(original step, x) along the way; network and noise are told the original step by either schedule."""
        name = schedule.timestep.tolist()
        predict, named_noise = lambda x, t: network(x, name[t]), lambda t: noise(name[t])
        if sampler == "ddim":
            trajectory = ddim(schedule, predict, x, chosen, named_noise, eta)
        else:
            variance = posterior_variance if sampler == "ancestral" else step_variance
            trajectory = ancestral(schedule, predict, x, chosen, named_noise, variance)
        return [(name[t], x) for t, x in trajectory]

    sparse, dense = run(schedule, chosen), run(schedule.respaced(chosen), range(1, len(chosen) + 1))
    for (t, x_sparse), (t_dense, x_dense) in zip(sparse, dense, strict=True):
        assert t == t_dense
        assert norm(x_sparse - x_dense) <= 1e-13 * norm(x_dense)


@given(schedules(max_T=60, terminal=True), etas, seeds(), st.data())
def test_a_run_yields_the_result_of_every_step_on_its_way_down(schedule, eta, seed, data):
    chosen, shape = data.draw(timesteps(schedule)), (2, 3)
    (x,) = draws(seed, shape, 1)
    x.flags.writeable = False
    predict, noise = strange_network(schedule.T), noise_of(seed, shape)
    times = [*chosen.tolist()[::-1], 0]

    def ancestral_alone(x, t, s):
        return ancestral_step(schedule, x, t, s, predict(x, t)[0], noise(t))

    def ddim_alone(x, t, s):
        return ddim_step(schedule, x, t, s, *predict(x, t), eta, noise(t))

    for trajectory, step in (
        (ancestral(schedule, predict, x, chosen, noise), ancestral_alone),
        (ddim(schedule, predict, x, chosen, noise, eta), ddim_alone),
    ):
        yielded = list(trajectory)
        assert [t for t, _ in yielded] == times[1:]
        here = x
        for t, (s, there) in zip(times, yielded, strict=False):
            here = step(here, t, s)
            assert np.array_equal(here, there)
    assert np.array_equal(final(ddim(schedule, predict, x, list(chosen), noise, eta)), here)


@given(schedules(), shapes(), seeds(), st.data())
def test_without_noise_data_at_one_point_is_reached_along_a_straight_line(schedule, shape, seed, data):
    """eta = 0 and the exact eps of one x_0: every x_s is a_s x_0 + s_s eps with the eps of the start; the last is x_0."""
    chosen = data.draw(timesteps(schedule))
    x0, eps = draws(seed, shape)
    x = q_sample(schedule, x0, chosen[-1], eps)
    runs = [list(ddim(schedule, of_one_point(schedule, x0), x, chosen, noise)) for noise in (None, lambda t: 1 / 0)]
    # x0_hat = (x_t - s eps_hat) / a: the rounding of x_t, magnified by 1 / a at each of the steps.
    magnified = 1e-14 * np.sum(1 / np.sqrt(schedule.alpha_bar[chosen]))
    for s, x_s in runs[0]:
        assert norm(x_s - q_sample(schedule, x0, s, eps)) <= magnified * (norm(x0) + norm(eps))
    assert s == 0
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(*runs, strict=True))


@pytest.mark.parametrize("kind", ["x0", "v"])
def test_a_run_may_start_where_alpha_bar_is_zero(kind):
    x0, x = draws(5, (2, 3))
    schedule = from_beta([*np.full(9, 0.2), 1.0])

    model = sure_of(x0, schedule, kind)
    for eta in (0.0, 0.6, 1.0):
        actual = final(ddim(schedule, predictor(schedule, model, kind), x, range(1, 11), noise_of(5, (2, 3)), eta))
        assert norm(actual - x0) <= 1e-14 * norm(x0)


def linear_step(step):
    """(c, d) of a step x_s = c x_t + d eps, tried on numbers."""
    one, zero = np.ones(1), np.zeros(1)
    return step(one, zero).item(), step(zero, one).item()


@given(schedules(terminal=True), st.data())
def test_step_variance_keeps_standard_normal_data_standard_normal(schedule, data):
    """For data N(0, I), x_0 is expected at a x_t: the variance of x_s is that of x_t, 1, exactly."""
    s, t = data.draw(pairs(schedule, strict=True))
    a = np.sqrt(schedule.alpha_bar[t])
    c, d = linear_step(lambda x, eps: ancestral_step(schedule, x, t, s, a * x, eps, step_variance))
    if s:
        assert abs(c**2 + d**2 - 1) <= 1e-14
    else:  # the last step adds no noise, and leaves the mean only
        assert d == 0
        assert abs(c - a) <= 1e-14 * a


@given(schedules(terminal=True), etas, st.data())
def test_posterior_variance_and_every_eta_keep_the_marginals_of_data_at_one_point(schedule, eta, data):
    """x_0 = 0: the variance of x_t is 1 - alpha_bar_t, and that of x_s must be 1 - alpha_bar_s, exactly."""
    s, t = data.draw(pairs(schedule, strict=True))
    v_t, v_s = schedule.one_minus_alpha_bar[[t, s]]
    for step in (
        lambda x, eps: ancestral_step(schedule, x, t, s, 0 * x, eps, posterior_variance),
        lambda x, eps: ddim_step(schedule, x, t, s, 0 * x, x / np.sqrt(v_t), eta, eps),
    ):
        c, d = linear_step(step)
        assert abs(c**2 * v_t + d**2 - v_s) <= 1e-14 * v_s


@given(schedules(max_T=60), etas, seeds(), st.data())
def test_the_last_step_adds_no_noise(schedule, eta, seed, data):
    chosen, shape = data.draw(timesteps(schedule)), (2, 3)
    (x,) = draws(seed, shape, 1)
    predict, noise = strange_network(schedule.T), noise_of(seed, shape)

    def other(t):
        return noise(t) + (t == chosen[0])

    for sampler, arguments in ((ancestral, ()), (ddim, (eta,))):
        one, two = (list(sampler(schedule, predict, x, chosen, n, *arguments)) for n in (noise, other))
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(one, two, strict=True))


def gaussian_run(sampler, T):
    """Mean and variance of what a sampler makes of N(0, 1) with the perfect denoiser of N(1.5, 0.3), by recursion."""
    schedule = linear(T, 0.1 / T, 20 / T)
    data = GaussianMixture([1.0], [[1.5]], [[[0.3]]])
    predict = predictor(schedule, lambda x, t: data.eps(schedule, x, t))
    mean, variance = 0.0, 1.0
    for t in range(T, 0, -1):

        def step(x, eps, t=t):
            x, eps = np.array([[x]]), np.array([[eps]])
            if sampler == "ddim":
                return ddim_step(schedule, x, t, t - 1, *predict(x, t)).item()
            kind = posterior_variance if sampler == "ancestral" else step_variance
            return ancestral_step(schedule, x, t, t - 1, predict(x, t)[0], eps, kind).item()

        at_zero = step(0.0, 0.0)
        c, d = step(1.0, 0.0) - at_zero, step(0.0, 1.0) - at_zero
        mean, variance = c * mean + at_zero, c**2 * variance + d**2
    return mean, variance


@pytest.mark.parametrize("sampler", ["ancestral", "step variance", "ddim"])
def test_twice_the_steps_halve_the_error_of_a_gaussians_variance(sampler):
    (_, e1), (_, e2), (mean, e3) = (np.subtract(gaussian_run(sampler, T), (1.5, 0.3)) for T in (100, 200, 400))
    assert abs(mean) <= 0.01  # the start is N(0, 1), which x_T is to e^-5 only
    assert 0.45 <= e2 / e1 <= 0.6  # methods of first order
    assert 0.45 <= e3 / e2 <= 0.6
    assert abs(e3) <= 0.011


MIXTURE = GaussianMixture(
    [0.35, 0.65], [[-1.2, 0.4], [0.8, -0.6]], [[[0.10, 0.05], [0.05, 0.20]], [[0.15, -0.06], [-0.06, 0.08]]]
)


@pytest.mark.parametrize("sampler", ["ancestral", "step variance", "ddim", "half"])
def test_samples_with_the_perfect_denoiser_have_the_mixtures_moments(sampler):
    """Mean, covariance and third moments of 10,000 samples, each within 5 standard errors of the mixture's own."""
    n, schedule = 10_000, cosine(200)
    predict = predictor(schedule, lambda x, t: MIXTURE.eps(schedule, x, t))
    start = normal(Sequence(21, 6), np.arange(n), (2,), np.float64)
    chosen, noise = uniform_steps(200, 200), noise_of(21, (n, 2))
    if sampler in ("ddim", "half"):
        x = final(ddim(schedule, predict, start, chosen, noise, eta=0.5 if sampler == "half" else 0.0))
    else:
        variance = posterior_variance if sampler == "ancestral" else step_variance
        x = final(ancestral(schedule, predict, start, chosen, noise, variance))

    w, m, c = MIXTURE.weights, MIXTURE.means, MIXTURE.covariances
    mean = w @ m
    covariance = np.einsum("k,kde->de", w, c + (m - mean)[:, :, None] * (m - mean)[:, None, :])
    assert np.all(np.abs(x.mean(axis=0) - mean) <= 5 * x.std(axis=0) / np.sqrt(n))
    products = (x - mean)[:, :, None] * (x - mean)[:, None, :]
    assert np.all(np.abs(products.mean(axis=0) - covariance) <= 5 * products.std(axis=0) / np.sqrt(n))
    cubes = (x - mean) ** 3
    third = np.einsum("k,kd->d", w, (m - mean) ** 3 + 3 * (m - mean) * np.diagonal(c, axis1=1, axis2=2))
    assert np.all(np.abs(cubes.mean(axis=0) - third) <= 5 * cubes.std(axis=0) / np.sqrt(n))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samplers_keep_the_dtype(dtype):
    schedule, (x,) = linear(20), draws(3, (2, 3), 1).astype(dtype)
    predict = predictor(schedule, lambda x, t: np.tanh(x), "v", clip_x0=(-1, 1))
    noise = lambda t: noise_of(3, (2, 3))(t).astype(dtype)  # noqa: E731
    for trajectory in (
        ancestral(schedule, predict, x, range(1, 21), noise),
        ancestral(schedule, predict, x, range(1, 21), noise, step_variance),
        ddim(schedule, predict, x, range(1, 21)),
        ddim(schedule, predict, x, range(1, 21), noise, 0.5),
    ):
        for _, x_s in trajectory:
            assert x_s.dtype == dtype
            assert np.isfinite(x_s).all()


X = np.random.default_rng(0).standard_normal((2, 3))
RISING = "timesteps: expected at least one, each larger than the last"


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([], "timesteps: expected"),
        (5, RISING),
        ([3, 3], RISING),
        ([3, 2], RISING),
        ([0, 3], "timesteps: expected integers from 1 to T = 10, got 0"),
        ([3, 11], "timesteps: expected integers from 1 to T = 10, got 11"),
        ([1.0, 2.0], "timesteps: expected an integer"),
        ([[1, 2]], "timesteps: expected an integer"),
    ],
)
def test_samplers_refuse_steps_that_do_not_rise_from_one_to_T(chosen, message):
    predict = strange_network(10)
    for sampler in (ancestral, ddim, euler_ancestral):
        with pytest.raises(ValueError, match=message):
            final(sampler(linear(10), predict, X, chosen, lambda t: X))
    for solver in (*SOLVERS, ddim_inversion):
        with pytest.raises(ValueError, match=message):
            final(solver(linear(10), predict, X, chosen))


def test_no_noise_is_asked_for_at_the_last_step():
    asked = []
    final(euler_ancestral(linear(10), strange_network(10), X, [1, 4, 9], lambda t: asked.append(t) or X))
    assert asked == [9, 4]


@pytest.mark.parametrize("eta", [-0.1, 1.1, np.nan])
def test_ddim_refuses_an_eta_out_of_range(eta):
    message = r"eta: expected a number from 0 \(deterministic\) to 1 \(ancestral\), got"
    with pytest.raises(ValueError, match=message):
        final(ddim(linear(10), strange_network(10), X, [1, 5], lambda t: X, eta))
    with pytest.raises(ValueError, match=message):
        ddim_step(linear(10), X, 5, 1, X, X, eta, X)


def test_ddim_refuses_to_go_without_the_noise_it_needs():
    with pytest.raises(ValueError, match=r"noise: expected fresh noise because eta = 0\.5, got None"):
        final(ddim(linear(10), strange_network(10), X, [1, 5], eta=0.5))
    with pytest.raises(ValueError, match=r"eps: expected fresh noise because eta = 0\.5, got None"):
        ddim_step(linear(10), X, 5, 1, X, X, eta=0.5)


@pytest.mark.parametrize(("t", "t_prev"), [(5, 5), (5, 6), (0, 0), (11, 5), (5, -1)])
def test_single_steps_refuse_to_stand_still_or_go_up(t, t_prev):
    for step in (
        lambda: ancestral_step(linear(10), X, t, t_prev, X, X),
        lambda: ddim_step(linear(10), X, t, t_prev, X, X),
        lambda: ddim_step(linear(10), X, t, t_prev, X, X, 0.5, X),
    ):
        with pytest.raises(ValueError, match=r"(t|t_prev): expected"):
            step()


SOLVERS = (euler, heun, dpmpp_2m, dpmpp_2s)


@given(schedules(max_T=60), seeds(), st.data())
def test_solvers_yield_every_step_on_the_way_down_and_inversion_on_the_way_up(schedule, seed, data):
    chosen = data.draw(timesteps(schedule))
    (x,) = draws(seed, (2, 3), 1)
    x.flags.writeable = False
    predict, down = strange_network(schedule.T), [*chosen.tolist()[::-1][1:], 0]
    runs = {solver: list(solver(schedule, predict, x, chosen)) for solver in (*SOLVERS, ddim_inversion)}
    runs[euler_ancestral] = list(euler_ancestral(schedule, predict, x, chosen, noise_of(seed, (2, 3))))
    for solver, run in runs.items():
        assert [t for t, _ in run] == (chosen.tolist() if solver is ddim_inversion else down)
        assert all(type(t) is int and x_t.shape == (2, 3) and np.isfinite(x_t).all() for t, x_t in run)
        if solver is not euler_ancestral:
            again = list(solver(schedule, predict, x, list(chosen)))
            assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(run, again, strict=True))


@pytest.mark.parametrize(
    ("solver", "asked"),
    [
        (euler, [300, 200, 100, 10]),
        (dpmpp_2m, [300, 200, 100, 10]),
        (heun, [300, 200, 200, 100, 100, 10, 10]),
        (ddim_inversion, [10, 10, 100, 200]),
    ],
)
def test_a_solver_asks_at_the_steps_given_only(solver, asked):
    predict, seen = recorded()
    final(solver(linear(), predict, X, [10, 100, 200, 300]))
    assert seen == asked


def test_2s_asks_halfway_in_lambda_or_at_the_neighbour():
    schedule, (predict, seen) = linear(), recorded()
    final(dpmpp_2s(schedule, predict, X, [9, 10, 300]))
    assert [seen[0], *seen[2:]] == [300, 10, 9, 9]
    half_log_snr = np.log(schedule.snr[1:]) / 2
    middle = (half_log_snr[9] + half_log_snr[299]) / 2
    assert seen[1] == 1 + abs(half_log_snr - middle).argmin()
    assert 10 < seen[1] < 300


def test_inversion_goes_up_by_eps_hat_where_it_stands():
    schedule, predict = linear(50, 0.01, 0.2), strange_network(50)
    a, sigma = np.sqrt(schedule.alpha_bar), np.sqrt(1 / schedule.alpha_bar - 1)
    here = X
    # The first step takes eps_hat at the first of the timesteps, shown x_0 scaled as x_7 would be.
    for (t, x_t), asked, before in zip(
        ddim_inversion(schedule, predict, X, [7, 20, 50]), (7, 7, 20), (0, 7, 20), strict=True
    ):
        y = here / a[before]
        here = a[t] * (y + (sigma[t] - sigma[before]) * predict(a[asked] * y, asked)[1])
        assert norm(x_t - here) <= 1e-13 * norm(here)


def test_the_second_step_of_2m_draws_a_line_through_two_predictions():
    schedule, predict = linear(50, 0.01, 0.2), strange_network(50)
    (_, first), (_, second), _ = dpmpp_2m(schedule, predict, X, [5, 20, 50])
    lam = np.log(schedule.snr[[5, 20, 50]]) / 2
    d = predict(first, 20)[0] + (lam[0] - lam[1]) / (lam[1] - lam[2]) / 2 * (predict(first, 20)[0] - predict(X, 50)[0])
    s, a = np.sqrt(schedule.one_minus_alpha_bar), np.sqrt(schedule.alpha_bar[5])
    expected = s[5] / s[20] * first + a * (1 - np.exp(lam[1] - lam[0])) * d
    assert norm(second - expected) <= 1e-13 * norm(expected)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_last_step_of_a_solver_is_the_data_expected(solver):
    schedule, predict = linear(50, 0.01, 0.2), strange_network(50)
    consistent = predictor(schedule, lambda x, t: predict(x, t)[0], "x0")
    *_, (_, before), (_, last) = solver(schedule, consistent, X, [3, 20, 50])
    assert norm(last - consistent(before, 3)[0]) <= 1e-13 * norm(last)


@pytest.mark.parametrize("kind", ["x0", "v"])
def test_dpm_solvers_may_start_where_alpha_bar_is_zero(kind):
    x0, x = draws(6, (2, 3))
    schedule = from_beta([*np.full(9, 0.2), 1.0])

    model = sure_of(x0, schedule, kind)
    for solver in (dpmpp_2m, dpmpp_2s):
        for chosen in (range(1, 11), [10], [1, 5, 10]):
            way = dict(solver(schedule, predictor(schedule, model, kind), x, chosen))
            assert norm(way[0] - x0) <= 1e-14 * norm(x0)
            if 5 in way:
                assert norm(way[5] - q_sample(schedule, x0, 5, x)) <= 1e-14 * (norm(x0) + norm(x))


def test_solvers_in_sigma_refuse_an_infinite_one_and_say_what_to_do():
    schedule, predict = from_beta([0.1, 0.3, 1.0]), strange_network(3)
    for solver in (euler, heun, ddim_inversion, partial(euler_ancestral, noise=lambda t: X)):
        message = (
            "timesteps: expected steps with alpha_bar > 0, got one where it is 0 and sigma infinite; "
            "use ddim, ancestral or dpmpp_2m, or leave that step out"
        )
        with pytest.raises(ValueError, match=f"^{message}$"):
            final(solver(schedule, predict, X, [1, 3]))
        assert np.isfinite(final(solver(schedule, predict, X, [1, 2]))).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("numpy", [True, False])
def test_solvers_keep_library_and_dtype(library, dtype, numpy):
    library = np if numpy else library
    schedule, x = linear(20, 0.01, 0.3), draws(3, (2, 3), 1)[0].astype(dtype)
    predict = predictor(schedule, lambda x, t: x / (2 + 0.1 * t), "v", clip_x0=(-1, 1))
    for solver in (*SOLVERS, ddim_inversion, partial(euler_ancestral, noise=lambda t: library.asarray(x))):
        for _, x_t in solver(schedule, predict, library.asarray(x), [1, 7, 20]):
            assert type(x_t) is type(library.asarray(x))
            assert np.asarray(x_t).dtype == dtype
            assert np.isfinite(np.asarray(x_t)).all()
        with pytest.raises(ValueError, match=r"expected floating-point numbers, got .*int64"):
            final(solver(schedule, lambda x, t: (x, x), library.asarray(X.astype(int)), [1, 7]))


def test_the_page_of_orders_is_what_is_measured():
    page = json.loads((Path(__file__).parents[2] / "docs/orders.json").read_text())
    assert set(page["solvers"]) == set(orders.ODE_SOLVERS)
    assert set(page["stochastic"]) == set(orders.STOCHASTIC)
    for group in ("solvers", "stochastic"):
        for row in page[group].values():
            assert abs(row["measured"] - row["published"]) <= 0.05
            assert abs(orders.order(row["errors"]) - row["measured"]) <= 0.002
    for name, (solver, _) in orders.ODE_SOLVERS.items():
        assert np.allclose(
            orders.solver_errors(solver, (8, 32)), np.array(page["solvers"][name]["errors"])[[0, 2]], 1e-3
        )
    sampler, _ = orders.STOCHASTIC["DDIM, eta = 0.5"]
    assert np.allclose(orders.weak_errors(sampler, (8, 16)), page["stochastic"]["DDIM, eta = 0.5"]["errors"][:2], 1e-3)


def test_orders_are_plotted_and_written(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    row = {"published": 1, "measured": 1.0, "errors": [0.2, 0.1]}
    monkeypatch.setattr(
        orders, "measure", lambda: {"steps": [8, 16], "solvers": {"DDIM": row}, "stochastic": {"ancestral": row}}
    )
    orders.main(["--out", str(tmp_path / "new")])
    assert json.loads((tmp_path / "new/orders.json").read_text())["solvers"]["DDIM"] == row
    assert (tmp_path / "new/orders.png").read_bytes().startswith(b"\x89PNG")
    assert "DDIM                             order 1.000   published 1" in capsys.readouterr().out
