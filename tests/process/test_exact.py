"""Gaussian mixtures against direct formulas, quadrature and differences: density, score and the expected noise."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.linalg import norm

from refdiff.process import GaussianMixture, from_beta, linear, posterior_log_variance, posterior_variance, q_sample
from refdiff.random import Key, Sequence, normal, uniform
from refdiff.testing.strategies import schedules, seeds, steps


def mixture(rng, K, D):
    weights = rng.dirichlet(np.full(K, 5.0)) * 0.9 + 0.1 / K
    roots = rng.standard_normal((K, D, D)) * 0.5
    return GaussianMixture(weights, rng.standard_normal((K, D)), roots @ roots.swapaxes(1, 2) + 0.05 * np.eye(D))


@st.composite
def cases(draw, D=None, first=0):
    """(mixture, schedule, t, x): x about where x_t lies."""
    rng = np.random.default_rng(draw(seeds()))
    data = mixture(rng, draw(st.integers(1, 3)), D or draw(st.integers(1, 3)))
    schedule = draw(schedules(terminal=True))
    return data, schedule, draw(steps(schedule, first)), 1.5 * rng.standard_normal((5, data.means.shape[1]))


def direct_density(data, schedule, x, t):
    """sum_k w_k N(x; a m_k, a^2 C_k + s^2 I), by inverse and determinant."""
    a2, s2 = schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t]
    total = 0
    for w, m, c in zip(data.weights, data.means, data.covariances, strict=True):
        spread = a2 * c + s2 * np.eye(len(m))
        away = x - np.sqrt(a2) * m
        power = np.einsum("nd,de,ne->n", away, np.linalg.inv(spread), away)
        total += w * np.exp(-power / 2) / np.sqrt(np.linalg.det(2 * np.pi * spread))
    return total


@given(cases())
def test_the_density_is_the_mixtures_formula(case):
    data, schedule, t, x = case
    expected = np.log(direct_density(data, schedule, x, t))
    actual = data.log_density(schedule, x, t)
    assert actual.shape == (5,)
    assert np.all(
        abs(actual - expected) <= 1e-11 * (1 + abs(expected))
    )  # an inverse of condition 100, powers up to 100


@given(cases(D=2))
def test_the_density_integrates_to_one(case):
    data, schedule, t, _ = case
    reach = abs(data.means).max() + 8 * np.sqrt(max(1, np.linalg.eigvalsh(data.covariances).max()))
    line, width = np.linspace(-reach, reach, 251, retstep=True)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    assert abs(np.exp(data.log_density(schedule, grid, t)).sum() * width**2 - 1) <= 1e-9


@given(cases(D=1, first=1))
def test_density_and_expected_noise_are_those_of_the_forward_process_by_quadrature(case):
    """q(x_t) = int q(x_t|x_0) q(x_0) dx_0 and E[eps|x_t], over a grid of x_0; eps is what turns x_0 into x_t."""
    data, schedule, t, x = case
    a, s = np.sqrt(schedule.alpha_bar[t]), np.sqrt(schedule.one_minus_alpha_bar[t])
    # The product of both densities is as narrow as the narrower: close in on where it lies for each x_t.
    for x_t in x[:, 0]:
        low, high = -14.0, 14.0
        for _ in range(6):
            x0 = np.linspace(low, high, 2001)
            prior = direct_density(data, schedule, x0[:, None], 0)
            logs = np.log(np.maximum(prior, 1e-300)) - ((x_t - a * x0) / s) ** 2 / 2
            inside = x0[logs > logs.max() - 50]
            low, high = inside[0] - (x0[1] - x0[0]), inside[-1] + (x0[1] - x0[0])
        joint, width = np.exp(logs) / np.sqrt(2 * np.pi) / s, x0[1] - x0[0]
        log_density = np.log(joint.sum() * width)
        expected = (joint * (x_t - a * x0) / s).sum() / joint.sum()
        point = np.array([[x_t]])
        assert abs(data.log_density(schedule, point, t).item() - log_density) <= 1e-9 * (1 + abs(log_density))
        # The quadrature's own rounding: x_t - a x_0 cancels to s.
        assert abs(data.eps(schedule, point, t).item() - expected) <= 1e-9 * (1 + abs(expected)) + 1e-13 / s


@given(cases())
def test_the_score_is_the_gradient_of_the_log_density(case):
    data, schedule, t, x = case
    h = 2e-3
    score = data.score(schedule, x, t)
    assert score.shape == x.shape
    for d, direction in enumerate(np.eye(x.shape[1])):
        near, far, farther = (
            (
                data.log_density(schedule, x + i * h * direction, t)
                - data.log_density(schedule, x - i * h * direction, t)
            )
            for i in (1, 2, 3)
        )
        slope = (45 * near - 9 * far + farther) / (60 * h)  # error of order h^6
        assert np.all(abs(score[:, d] - slope) <= 1e-8 * (1 + abs(slope)))


@given(cases(first=1))
def test_the_expected_noise_is_the_score_times_minus_its_deviation(case):
    data, schedule, t, x = case
    s = np.sqrt(schedule.one_minus_alpha_bar[t])
    assert norm(data.eps(schedule, x, t) + s * data.score(schedule, x, t)) <= 1e-15 * norm(
        s * data.score(schedule, x, t)
    )


@given(schedules(terminal=True), seeds(), st.data())
def test_one_gaussian_has_its_closed_form(schedule, seed, data):
    t = data.draw(steps(schedule))
    rng = np.random.default_rng(seed)
    m, c, x = rng.standard_normal(), rng.uniform(0, 2), rng.standard_normal((6, 3))
    one = GaussianMixture([1.0], [[m] * 3], [c * np.eye(3)])
    a2, s2 = schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t]
    variance, away = a2 * c + s2, x - np.sqrt(a2) * m
    log_density = -(away**2).sum(axis=1) / (2 * variance) - 1.5 * np.log(2 * np.pi * variance)
    assert np.all(abs(one.log_density(schedule, x, t) - log_density) <= 1e-13 * (1 + abs(log_density)))
    assert norm(one.score(schedule, x, t) + away / variance) <= 1e-14 * norm(away / variance)
    assert norm(one.eps(schedule, x, t) - np.sqrt(s2) * away / variance) <= 1e-14 * norm(np.sqrt(s2) * away / variance)


@given(schedules(), seeds(), st.data())
def test_data_at_one_point_gives_back_the_very_noise(schedule, seed, data):
    t = data.draw(steps(schedule))
    point, eps = np.random.default_rng(seed).standard_normal((2, 1, 2))
    x = q_sample(schedule, point, t, eps)
    actual = GaussianMixture([1.0], point, np.zeros((1, 2, 2))).eps(schedule, x, t)
    # x_t - a x_0 cancels where s is small: the rounding of x_t divided by s.
    assert norm(actual - eps) <= 1e-15 * (norm(x) + norm(eps)) / np.sqrt(schedule.one_minus_alpha_bar[t])


@given(seeds())
def test_where_alpha_bar_is_zero_there_is_only_noise(seed):
    rng = np.random.default_rng(seed)
    data, x, schedule = mixture(rng, 2, 3), rng.standard_normal((4, 3)), from_beta([0.1, 1.0])
    assert norm(data.score(schedule, x, 2) + x) <= 1e-14 * norm(x)
    assert norm(data.eps(schedule, x, 2) - x) <= 1e-14 * norm(x)
    expected = -(x**2).sum(axis=1) / 2 - 1.5 * np.log(2 * np.pi)
    assert norm(data.log_density(schedule, x, 2) - expected) <= 1e-14 * norm(expected)


@given(cases(), seeds())
def test_a_step_a_sample_mixes_the_results_of_each(case, seed):
    data, schedule, _, x = case
    x.flags.writeable = False
    for method, first in ((data.log_density, 0), (data.score, 0), (data.eps, 1)):
        t = np.random.default_rng(seed).integers(first, schedule.T + 1, len(x))
        mixed = method(schedule, x, t)
        alone = np.concatenate([method(schedule, x[i : i + 1], t_i) for i, t_i in enumerate(t.tolist())])
        assert norm(mixed - alone) <= 1e-14 * norm(alone)


@given(cases(first=1))
def test_points_far_from_everything_have_finite_answers(case):
    data, schedule, t, x = case
    for far in (x * (distance / norm(x, axis=1, keepdims=True)) for distance in (1e3, 1e6)):
        score = data.score(schedule, far, t)
        assert np.isfinite(data.log_density(schedule, far, t)).all()
        assert np.isfinite(score).all()
        assert np.all((score * far).sum(axis=1) < 0)  # the way back


def test_float32_points_are_computed_in_float64():
    data, x = mixture(np.random.default_rng(4), 2, 2), np.random.default_rng(5).standard_normal((3, 2))
    for method in (data.log_density, data.score, data.eps):
        actual = method(linear(10), x.astype(np.float32), 3)
        assert actual.dtype == np.float64
        assert np.array_equal(actual, method(linear(10), x.astype(np.float32).astype(np.float64), 3))


EYE = np.eye(2)


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "message"),
    [
        (
            [[1.0]],
            [[0.5, 1]],
            [EYE],
            r"expected weights \(K,\), means \(K, D\), covariances \(K, D, D\), got \(1, 1\)",
        ),
        ([1.0], [0.5, 1], [EYE], r"expected weights \(K,\)"),
        ([1.0], [[0.5, 1], [2, 3]], [EYE], r"expected weights \(K,\)"),
        ([1.0], [[0.5, 1]], EYE, r"expected weights \(K,\)"),
        ([1.0], [[0.5]], [EYE], r"expected weights \(K,\)"),
        ([0.5, 0.4], [[0.5, 1], [2, 3]], [EYE, EYE], "weights: expected positive numbers that sum to 1"),
        ([1.5, -0.5], [[0.5, 1], [2, 3]], [EYE, EYE], "weights: expected positive numbers"),
        ([1.0, 0.0], [[0.5, 1], [2, 3]], [EYE, EYE], "weights: expected positive numbers"),
        ([np.nan], [[0.5, 1]], [EYE], "weights: expected positive numbers"),
        ([1.0], [[0.5, 1]], [[[1, 0.5], [0.2, 1]]], "covariances: expected symmetric matrices"),
        (
            [1.0],
            [[0.5, 1]],
            [[[1, 2], [2, 1]]],
            "covariances: expected symmetric matrices without negative eigenvalues$",
        ),
        (
            [0.3, 0.3, 0.4],
            np.zeros((2, 2)),
            np.stack([np.eye(2)] * 2),
            r"expected weights \(K,\), means \(K, D\), covariances \(K, D, D\), got \(3,\), \(2, 2\), \(2, 2, 2\)",
        ),
    ],
)
def test_what_is_no_mixture_is_refused_by_name(weights, means, covariances, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        GaussianMixture(weights, means, covariances)


@pytest.mark.parametrize(
    ("x", "t", "message"),
    [
        (np.ones((3, 1)), 3, r"x: expected points \(N, 2\), got shape \(3, 1\)"),
        (np.ones((3, 3)), 3, r"x: expected points \(N, 2\), got shape \(3, 3\)"),
        (np.ones(2), 3, r"x: expected points \(N, 2\), got shape \(2,\)"),
        (np.ones((3, 2)), 11, r"t: expected integers from [01] to T = 10, got 11"),
        (np.ones((3, 2)), -1, r"t: expected integers from [01] to T = 10, got -1"),
        (np.ones((3, 2)), 1.5, "t: expected an integer or one a sample"),
    ],
)
def test_points_of_another_space_and_wrong_times_are_refused_by_name(x, t, message):
    data = mixture(np.random.default_rng(6), 2, 2)
    for method in (data.log_density, data.score, data.eps):
        with pytest.raises(ValueError, match=message):
            method(linear(10), x / 7, t)


@given(cases(first=1))
def test_all_predictions_of_one_x_agree(case):
    data, schedule, t, x = case
    a, s = np.sqrt(schedule.alpha_bar[t]), np.sqrt(schedule.one_minus_alpha_bar[t])
    x0, eps = data.x0(schedule, x, t), data.eps(schedule, x, t)
    assert norm(a * x0 + s * eps - x) <= 1e-13 * (norm(x) + norm(x0) + norm(eps))
    assert norm(data.v(schedule, x, t) - (a * eps - s * x0)) <= 1e-15 * (norm(x0) + norm(eps))
    assert np.all(data.x0_error(schedule, x, t) >= 0)


@given(cases(first=1), seeds())
def test_a_step_a_sample_mixes_the_results_of_the_data_also(case, seed):
    data, schedule, _, x = case
    x.flags.writeable = False
    t = np.random.default_rng(seed).integers(1, schedule.T + 1, len(x))
    for method in (data.x0, data.v, data.x0_error):
        mixed = method(schedule, x, t)
        alone = np.concatenate([method(schedule, x[i : i + 1], t_i) for i, t_i in enumerate(t.tolist())])
        assert norm(mixed - alone) <= 1e-14 * norm(alone)
        assert method(schedule, x.astype(np.float32), t).dtype == np.float64


def test_of_pure_noise_the_mean_of_the_data_is_expected():
    rng, schedule = np.random.default_rng(7), from_beta([0.1, 1.0])
    data, x = mixture(rng, 3, 2), rng.standard_normal((4, 2))
    assert norm(data.x0(schedule, x, 2) - data.weights @ data.means) <= 1e-14
    away = data.means - data.weights @ data.means
    spread = data.weights @ (np.trace(data.covariances, axis1=1, axis2=2) + (away**2).sum(axis=1))
    assert np.all(abs(data.x0_error(schedule, x, 2) - spread) <= 1e-14 * spread)


def test_data_at_one_point_are_expected_there_without_error():
    point, schedule, x = np.array([[0.3, -1.0]]), linear(10), np.random.default_rng(8).standard_normal((3, 2))
    data = GaussianMixture([1.0], point, np.zeros((1, 2, 2)))
    assert np.array_equal(data.x0(schedule, x, 4), np.broadcast_to(point, (3, 2)))
    assert np.array_equal(data.x0_error(schedule, x, 4), np.zeros(3))
    assert np.array_equal(data.sample(3), np.broadcast_to(point, (3, 2)))


def test_a_point_of_a_sample_depends_on_its_number_and_the_seed_alone():
    data = mixture(np.random.default_rng(9), 3, 2)
    many = data.sample(50, 4)
    assert many.shape == (50, 2)
    assert np.array_equal(data.sample(20, 4), many[:20])
    assert np.abs(data.sample(50, 5) - many).min() > 0
    assert np.array_equal(data.sample(5), data.sample(5, 0))


def test_components_and_noise_of_a_sample_are_two_uses_of_the_seed():
    """Far apart and narrow, so that a point tells its component and its noise."""
    data = GaussianMixture([0.5, 0.5], [[-1e3], [1e3]], [[[1.0]], [[1.0]]])
    x = {seed: data.sample(400, seed)[:, 0] for seed in (0, 1)}
    side, noise = ({seed: f(x[seed]) for seed in x} for f in (np.sign, lambda x: x - 1e3 * np.sign(x)))
    assert 0.3 < (side[0] == side[1]).mean() < 0.7
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 0.2
    assert abs(np.corrcoef(side[0], noise[0])[0, 1]) < 0.2
    assert abs(np.corrcoef(np.abs(noise[0]), side[0])[0, 1]) < 0.2


def test_lists_of_integers_become_float64_arrays():
    data = GaussianMixture([1], [[3, 4]], [[[2, 1], [1, 2]]])
    for array in (data.weights, data.means, data.covariances):
        assert isinstance(array, np.ndarray)
        assert array.dtype == np.float64
    assert data.sample(3).dtype == np.float64


def test_weights_and_means_must_agree_in_number_and_in_dimensions_each():
    for weights, means in (([[0.5, 0.5]], [[0.0], [1.0]]), ([0.5, 0.5], [[[0.0]], [[1.0]]])):
        with pytest.raises(ValueError, match="expected weights"):
            GaussianMixture(weights, means, [EYE[:1, :1], EYE[:1, :1]])


def test_a_singular_covariance_is_no_less_than_zero_after_rounding():
    flat = np.outer([1.0, 3.0, 0.1], [1.0, 3.0, 0.1])
    data = GaussianMixture([1.0], np.zeros((1, 3)), flat[None])
    x = data.sample(20, 1)
    assert np.isfinite(x).all()
    assert norm(x - x[:, :1] * [1.0, 3.0, 0.1]) <= 1e-6 * norm(x)


def test_the_bound_has_a_term_for_each_step_and_repeats_itself():
    data, schedule = mixture(np.random.default_rng(10), 2, 2), linear(12, 0.01, 0.5)
    terms = data.bound(schedule, n=50, seed=2)
    assert terms.shape == (13,)
    assert np.array_equal(data.bound(schedule, n=50, seed=2), terms)
    assert not np.array_equal(data.bound(schedule, n=50, seed=3), terms)
    assert np.all(terms[1:] > 0)
    assert data.bound(from_beta([0.5])).shape == (2,)
    other = data.bound(schedule, lambda s, t: np.exp(posterior_log_variance(s, t)), n=50, seed=2)
    assert terms[-1] == other[-1]  # L_T knows no variance
    assert not np.isclose(terms[:-1], other[:-1]).any()


def test_the_last_term_of_the_bound_is_the_prior_matching_of_the_mixture():
    """KL(N(a x_0, s^2) || N(0, 1)) averaged over x_0, whose square has the mean w . (tr C + |m|^2)."""
    data, schedule = mixture(np.random.default_rng(14), 3, 2), linear(6, 0.05, 0.3)
    a2, s2 = schedule.alpha_bar[-1], schedule.one_minus_alpha_bar[-1]
    square = sum(w * (np.trace(c) + m @ m) for w, m, c in zip(data.weights, data.means, data.covariances, strict=True))
    expected = 0.5 * (a2 * square + 2 * (s2 - 1 - np.log(s2)))
    assert data.bound(schedule, n=10)[-1] == pytest.approx(expected, rel=1e-12)


def test_a_bound_over_many_samples_of_a_mixture_is_no_bound_over_one():
    data, schedule = mixture(np.random.default_rng(15), 2, 1), linear(4, 0.1, 0.5)
    few, many = (np.array([data.bound(schedule, n=n, seed=i)[:-1].sum() for i in range(6)]) for n in (1, 400))
    assert many.std() < few.std() / 5


def test_a_bound_at_alpha_bar_zero_has_no_prior_term():
    data = mixture(np.random.default_rng(11), 2, 1)
    assert data.bound(from_beta([0.2, 0.5, 1.0]), n=50)[-1] == 0


def test_bounds_and_samples_refuse_what_they_cannot_use():
    data = mixture(np.random.default_rng(12), 2, 2)
    with pytest.raises(
        ValueError, match=r"^variance: expected values above 0 at every step; at t = 1 the posterior's is 0$"
    ):
        data.bound(linear(5), posterior_variance)
    with pytest.raises(ValueError, match="n: expected at least one point, got 0"):
        data.sample(0)
    for method in (data.x0, data.v, data.x0_error):
        with pytest.raises(ValueError, match="t: expected integers from 1 to T = 10, got 0"):
            method(linear(10), np.ones((3, 2)), 0)
        with pytest.raises(ValueError, match=r"x: expected points \(N, 2\), got shape \(3, 1\)"):
            method(linear(10), np.ones((3, 1)), 1)


def test_samples_are_those_of_their_own_streams_in_double_precision():
    """So that they stay the same: which component, and where in it, from words of their own."""
    data = mixture(np.random.default_rng(13), 3, 2)
    k = np.searchsorted(np.cumsum(data.weights)[:-1], uniform(Sequence(5, 2, 0), np.arange(40)))
    z = normal(Sequence(5, 2, 1), np.arange(40), (2,), np.float64)
    values, vectors = np.linalg.eigh(data.covariances)
    expected = data.means[k] + np.einsum("nij,nj->ni", vectors[k], np.sqrt(values[k]) * z)
    assert np.abs(data.sample(40, 5) - expected).max() <= 1e-14
    assert len(set(k.tolist())) == 3


def test_covariances_of_less_than_full_rank_are_taken_for_what_they_are():
    """Their eigenvalues may come out below zero by rounding."""
    rng = np.random.default_rng(14)
    roots = rng.standard_normal((50, 4, 1))
    flat = roots @ roots.swapaxes(1, 2)
    assert np.linalg.eigvalsh(flat).min() < 0
    data = GaussianMixture(np.full(50, 0.02), np.zeros((50, 4)), flat)
    x = data.sample(100, 0)
    assert np.isfinite(x).all()
    assert np.isfinite(data.log_density(linear(10), x, 3)).all()


def test_a_bound_averages_over_its_own_stream_of_noise_in_double_precision():
    data, schedule, n, seed = mixture(np.random.default_rng(15), 2, 2), linear(5, 0.1, 0.3), 30, 4
    assert np.array_equal(data.bound(schedule), data.bound(schedule, n=2000, seed=0))
    found, x = data.bound(schedule, n=n, seed=seed), data.sample(n, seed)
    for t in (2, 5):
        z = normal(Key(seed, t).under("mixture")("eps"), np.arange(n), (2,), np.float64)
        error = data.x0_error(schedule, q_sample(schedule, x, t, z), t).mean()
        beta, before, now = schedule.beta[t], schedule.one_minus_alpha_bar[t - 1], schedule.one_minus_alpha_bar[t]
        ratio = before / now
        expected = schedule.alpha_bar[t - 1] * beta * error / (2 * now**2) + ratio - 1 - np.log(ratio)
        assert found[t - 1] == pytest.approx(expected, rel=1e-12)


@given(cases())
def test_a_class_is_told_by_its_share_of_the_density(case):
    """Of one component and of two, by log densities apart; certain of all components together."""
    data, schedule, t, x = case
    K, D = data.means.shape
    total = np.exp(data.log_density(schedule, x, t))
    for y in ([0], list(range(1, K))) if K > 1 else ():
        own = data.only(tuple(y))
        assert own.weights.sum() == pytest.approx(1, abs=1e-15)
        assert np.array_equal(own.means, data.means[y])
        share = data.weights[y].sum() * np.exp(own.log_density(schedule, x, t)) / total
        actual = np.exp(data.log_posterior(schedule, x, t, tuple(y)))
        assert np.all(abs(actual - share) <= 1e-12)
        slope = own.score(schedule, x, t) - data.score(schedule, x, t)
        size = abs(own.score(schedule, x, t)) + abs(data.score(schedule, x, t)) + 1
        assert np.all(abs(data.dlog_posterior(schedule, x, t, tuple(y)) - slope) <= 1e-11 * size)
    assert np.array_equal(data.log_posterior(schedule, x, t, tuple(range(K))), np.zeros(5))
    assert np.array_equal(data.dlog_posterior(schedule, x, t, tuple(range(K))), np.zeros((5, D)))


def test_what_a_sure_classifier_still_says_keeps_its_digits():
    """Where the other class has a share of e^-50, log p is minus that, and no difference of two numbers near 1."""
    data = GaussianMixture(np.array([0.5, 0.5]), np.array([[-5.0], [5.0]]), np.ones((2, 1, 1)))
    schedule, x = linear(10, 0.05, 0.3), np.array([[5.0]])
    assert data.log_posterior(schedule, x, 0, 1) == pytest.approx([-np.exp(-50.0)], rel=1e-12)
    assert data.dlog_posterior(schedule, x, 0, 1) == pytest.approx(np.array([[10 * np.exp(-50.0)]]), rel=1e-12)
    assert data.log_posterior(schedule, x, 0, 0) == pytest.approx([-50.0], rel=1e-12)


@pytest.mark.parametrize("y", [-1, 2, (), (0, 0), (0, 2)])
def test_a_class_of_no_components_is_refused(y):
    data = mixture(np.random.default_rng(12), 2, 2)
    for call in (
        data.only,
        *(partial(f, linear(5), np.ones((3, 2)), 1) for f in (data.log_posterior, data.dlog_posterior)),
    ):
        with pytest.raises(ValueError, match="y: expected components from 0 to 1, each once, got"):
            call(y)
