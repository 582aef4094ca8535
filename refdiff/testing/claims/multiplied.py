"""Claims about models multiplied with another distribution: single steps and whole chains, against exact products."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import strategies as st

from ...process import (
    Schedule,
    binomial_ancestral,
    conditioned,
    final,
    multiplied_binomial,
    multiplied_gaussian,
    observed_bits,
    observed_gaussian,
    reciprocal,
)
from ...random import Key, uniform
from ..claim import claim
from ..measures import gauss_hermite, normal_logpdf, relative_error, standard_errors
from ..strategies import seeds
from .binomial import kernel, sigmoid, states


@claim(
    r"\log r(x) = g x + \text{const}:\quad \mathcal N(x; m, v)\, r(x) / Z = \mathcal N(x; m + v g, v)",
    source="[DPM] section 2.5", of=multiplied_gaussian, against="mean and variance of the product, by quadrature",
    bound=1e-12, log_variance=st.floats(-8, 1), seed=seeds(),
)  # fmt: skip
def a_gaussian_step_times_an_exponential_is_shifted(log_variance: float, seed: int) -> float:
    """Exact for every variance; of unit size, since r stands as an integrand."""
    m, g = np.random.default_rng(seed).standard_normal(2)
    sd = np.exp(log_variance / 2)
    g = g / max(1.0, sd)
    mean = multiplied_gaussian(np.full(1, m), np.full(1, log_variance), np.full(1, g))[0]
    weight = gauss_hermite(lambda x: np.exp(g * (x - m)), m, sd)
    first = gauss_hermite(lambda x: (x - m) * np.exp(g * (x - m)), m, sd) / weight
    second = gauss_hermite(lambda x: (x - m) ** 2 * np.exp(g * (x - m)), m, sd) / weight - first**2
    return max(relative_error(mean - m, first, scale=abs(m) + abs(first)), relative_error(second, sd**2))


@claim(
    r"r(x) = \mathcal N(y; x, s^2):\quad |m + v\, \partial_m \log r(m) - \mathbb E_{p r / Z}[x]|"
    r" = \frac{v^2\, |y - m|}{s^2 (s^2 + v)}",
    source="[DPM] section 2.5", of=multiplied_gaussian, against="the exact posterior mean of two Gaussians", bound=1e-12,
    log_ratio=st.floats(-12, 1), seed=seeds(),
)  # fmt: skip
def what_a_gaussian_step_leaves_out_is_of_second_order_in_its_variance(log_ratio: float, seed: int) -> float:
    """The shift itself is of first order: in small steps the product is exact. log_ratio: of v / s^2."""
    m, y = np.random.default_rng(seed).standard_normal(2)
    s2 = 0.3
    v = s2 * np.exp(log_ratio)
    mean = multiplied_gaussian(np.full(1, m), np.full(1, np.log(v)), np.full(1, (y - m) / s2))[0]
    exact = (m / v + y / s2) / (1 / v + 1 / s2)
    return relative_error(abs(mean - exact), v**2 * abs(y - m) / (s2 * (s2 + v)), scale=1 + abs(mean))


@claim(
    r"\mathcal B(x; \sigma(\ell))\, r(x) / Z = \mathcal B\big(x; \sigma(\ell + \log r(1) - \log r(0))\big)",
    source="[DPM] section 2.5", of=multiplied_binomial, against="the two products, divided by their sum", bound=1e-12,
    seed=seeds(),
)  # fmt: skip
def a_binomial_step_times_a_function_of_each_bit_is_one(seed: int) -> float:
    """Exact for every r that is a product over elements: of all states of three bits."""
    rng = np.random.default_rng(seed)
    logits, log_r_1, log_r_0 = 3 * rng.standard_normal((3, 1, 3))
    x = states(3)
    expected = kernel(sigmoid(logits), x)[0] * np.exp(np.where(x == 1, log_r_1, log_r_0).sum(axis=1))
    return relative_error(
        kernel(sigmoid(multiplied_binomial(logits, log_r_1, log_r_0)), x)[0], expected / expected.sum()
    )


@claim(
    r"\mathcal N(x; m, v)\, \mathcal N(y; x, s^2) = Z\, \mathcal N\big(x; m + v'(y - m) / s^2, v'\big),"
    r" \quad 1 / v' = 1 / v + 1 / s^2,\ Z = \mathcal N(y; m, v + s^2)",
    source="[DPM] section 2.5", of=observed_gaussian, against="the product of densities, point by point", bound=1e-12,
    log_ratio=st.floats(-12, 12), seed=seeds(),
)  # fmt: skip
def a_gaussian_step_times_a_noisy_observation_is_gaussian(log_ratio: float, seed: int) -> float:
    """Exact in steps of any size, at points all over the step. log_ratio: of v / s^2."""
    m, y, *points = np.random.default_rng(seed).standard_normal(8)
    s2 = 0.3
    v = s2 * np.exp(log_ratio)
    mean, log_variance = observed_gaussian(np.full(6, m), np.full(6, np.log(v)), np.full(6, y), s2**0.5)
    x = m + v**0.5 * np.array(points)
    product = normal_logpdf(x, m, v) + normal_logpdf(y, x, s2) - normal_logpdf(y, m, v + s2)
    return relative_error(normal_logpdf(x, mean, np.exp(log_variance)), product)


@claim(
    r"\mathcal B(x; \sigma(\ell))\, P(y \mid x) / Z,\quad P(y \mid x) = (1 - p)^{[x = y]}\, p^{[x \neq y]}",
    source="[DPM] section 2.5", of=observed_bits, against="the products of all states, divided by their sum", bound=1e-12,
    flipped=st.floats(1e-3, 0.499), seed=seeds(),
)  # fmt: skip
def a_binomial_step_times_a_noisy_observation_is_binomial(flipped: float, seed: int) -> float:
    """Of three bits, each of which is seen turned over with probability p."""
    rng = np.random.default_rng(seed)
    logits, x = 3 * rng.standard_normal((1, 3)), states(3)
    y = (rng.uniform(size=(1, 3)) < 0.5).astype(float)
    expected = kernel(sigmoid(logits), x)[0] * np.where(x == y, 1 - flipped, flipped).prod(axis=1)
    return relative_error(kernel(sigmoid(observed_bits(logits, y, flipped)), x)[0], expected / expected.sum())


@claim(
    r"r_t = r,\ p(x_t) = \mathcal B(\tfrac12) \text{ at all } t,\ \beta \to 0:\quad"
    r" \tilde p(x_0) \to \frac{p(x_0)\, r(x_0)^2}{Z}",
    source="[DPM] section 2.5", of=observed_bits, against="the state that two-state chains of small steps come to",
    bound=1.0, unit="steps' beta", exponent=st.floats(-9, -3), flipped=st.floats(0.05, 0.45),
)  # fmt: skip
def a_likelihood_that_is_the_same_at_all_t_counts_twice_in_a_chain_at_rest(exponent: float, flipped: float) -> float:
    """The error of the odds against ((1 - p) / p)^2, relative, is of the order of beta = 10^exponent."""
    beta, x = 10**exponent, np.array([[0.0], [1.0]])
    stay = np.log((2 - beta) / beta) * (2 * x - 1)
    to_1 = sigmoid(observed_bits(stay, np.ones_like(x), flipped))[:, 0]
    from_1 = sigmoid(-observed_bits(stay, np.ones_like(x), flipped))[:, 0]
    odds, twice = to_1[0] / from_1[1], ((1 - flipped) / flipped) ** 2
    return abs(odds / twice - 1) / (beta * twice**0.5)


@claim(
    r"r_t(x_t) = \mathbb E_p[r(x_0) \mid x_t]:\quad \tilde p(x_0) = \frac{p(x_0)\, r(x_0)}{Z}",
    source="[DPM] section 2.5", of=multiplied_binomial, against="the exact product of a chain of one bit", bound=1e-12,
    T=st.integers(1, 6), seed=seeds(),
)  # fmt: skip
def multiplied_steps_draw_the_product_of_a_whole_chain(T: int, seed: int) -> float:
    """Every step multiplied by r_{t-1}, and the first state by r_T: the chain's last state is in proportion to p r."""
    rng, x = np.random.default_rng(seed), np.array([[0.0], [1.0]])
    logits, r = 2 * rng.standard_normal((T, 2, 1)), [rng.uniform(0.1, 1, 2)]
    for of_t in logits:
        r.append(kernel(sigmoid(of_t), x) @ r[-1])
    p, multiplied = np.full(2, 0.5), r[-1] / r[-1].sum()
    for t in range(T, 0, -1):
        log_1, log_0 = (np.full((2, 1), np.log(r[t - 1][bit])) for bit in (1, 0))
        multiplied = multiplied @ kernel(sigmoid(multiplied_binomial(logits[t - 1], log_1, log_0)), x)
        p = p @ kernel(sigmoid(logits[t - 1]), x)
    return relative_error(multiplied, p * r[0] / (p @ r[0]))


@claim(
    r"\tilde p(x_{t-1} \mid x_t) \propto p(x_{t-1} \mid x_t)\, \delta(x^{\text{known}}_{t-1} - y)", of=conditioned,
    source="[DPM] section 2.5", against="the exact chain of the unknown bit, in standard errors", bound=5.0,
    unit="standard errors", examples=6, T=st.integers(1, 4), seed=seeds(),
)  # fmt: skip
def held_elements_stay_and_the_others_follow_them(T: int, seed: int) -> float:
    """Two bits, of which the first is held: 20,000 samples of `binomial_ancestral` beside the chain by matrices."""
    rng, schedule = np.random.default_rng(seed), reciprocal(T)
    logits, x, n = 2 * rng.standard_normal((T, 4, 2)), states(2), 20_000
    known, mask = np.tile([1.0, 0.0], (n, 1)), np.tile([1.0, 0.0], (n, 1))
    samples = final(_held(schedule, logits, known, mask, seed))
    exact = np.array([0.5, 0.5])  # of the second bit
    held = x[x[:, 0] == 1][:, 1:]
    for of_t in logits[::-1]:
        exact = exact @ kernel(sigmoid(of_t[2:, 1:]), held)
    wrong = float(np.any(samples[:, 0] != 1))
    return np.inf if wrong else standard_errors(samples[:, 1:], exact[1])


def _held(
    schedule: Schedule, logits: np.ndarray, known: np.ndarray, mask: np.ndarray, seed: int
) -> Iterator[tuple[int, np.ndarray]]:
    """The chain with known bits, held before each step is asked for and after the last."""
    place = np.array([2, 1])

    def reverse(x: np.ndarray, t: int) -> np.ndarray:
        return logits[t - 1][(conditioned(x, known, mask) @ place).astype(int)]

    def draws(t: int) -> np.ndarray:
        return uniform(Key(seed, t)("step"), np.arange(len(known)), (2,))

    start = (draws(schedule.T + 1) < 0.5).astype(np.float64)
    for t, x in binomial_ancestral(schedule, reverse, start, draws):
        yield t, conditioned(x, known, mask)
