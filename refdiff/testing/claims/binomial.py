"""Claims about the diffusion of bits: its closed form, its posterior, and its bound, by enumeration of all states."""

from __future__ import annotations

from itertools import product
from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...process import (
    Schedule,
    binomial_log_odds,
    binomial_marginal,
    binomial_posterior,
    binomial_posterior_entropy,
    binomial_prior_matching,
    binomial_step,
    binomial_term,
    kl_binomial,
    reciprocal,
)
from ..claim import claim
from ..measures import relative_error
from ..strategies import lengths, schedules, seeds, steps

with_step: Any = schedules(terminal=True).flatmap(lambda s: st.tuples(st.just(s), steps(s)))
few: Any = schedules(max_T=3, terminal=True)
ended: Any = st.one_of(
    st.integers(1, 3).map(reciprocal), schedules(max_T=3, terminal=True).filter(lambda s: s.beta[-1] == 1)
)
BOTH = np.array([0.0, 1.0])


def states(D: int) -> np.ndarray:
    """All states of D bits.   -> (2^D, D)"""
    return np.array(list(product(BOTH, repeat=D)))


def kernel(p: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The probability of each state of x (M, D) for elements that are 1 with probability p (K, D).   -> (K, M)"""
    return np.prod(np.where(x[None] == 1, p[:, None], 1 - p[:, None]), axis=2)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def expected_terms(schedule: Schedule, logits: np.ndarray, data: np.ndarray) -> np.ndarray:
    """L_0 .. L_T in nats in the mean over data and x_t; logits (T, 2^D, D), of t and x_t.   -> (T + 1,)"""
    x = states(logits.shape[2])
    x0, x_t = (a.reshape(-1, x.shape[1]) for a in (np.repeat(x[:, None], len(x), 1), np.repeat(x[None], len(x), 0)))
    terms = []
    for t in range(1, schedule.T + 1):
        chance = (data[:, None] * kernel(binomial_marginal(schedule, x, t), x)).ravel()
        of_t = np.tile(logits[t - 1], (len(x), 1))
        terms.append(chance @ binomial_term(schedule, x0, x_t, t, of_t, "nats"))
    return np.array([*terms, data @ binomial_prior_matching(schedule, x, "nats")])


def sum_over_paths(schedule: Schedule, logits: np.ndarray, data: np.ndarray) -> float:
    """E_q[log q(x_1, ..., x_T | x_0) - log p(x_T) - sum_t log p(x_{t-1} | x_t)], the bound's definition, path by path."""
    x, T = states(logits.shape[2]), schedule.T
    forward = [kernel(binomial_step(schedule, x, t), x) for t in range(1, T + 1)]
    reverse = [kernel(sigmoid(l), x) for l in logits]  # (of x_t, of x_{t-1})
    total = 0.0
    for path in product(range(len(x)), repeat=T + 1):
        q = np.prod([forward[t - 1][path[t - 1], path[t]] for t in range(1, T + 1)])
        p = np.prod([reverse[t - 1][path[t], path[t - 1]] for t in range(1, T + 1)]) / len(x)
        if q > 0 and data[path[0]] > 0:
            total += data[path[0]] * q * (np.log(q) - np.log(p))
    return total


def log_density(logits: np.ndarray) -> np.ndarray:
    """log p(x_0) of every state: uniform at T, and one matrix a step.   -> (2^D,)"""
    x = states(logits.shape[2])
    p = np.full(len(x), 1 / len(x))
    for of_t in logits[::-1]:
        p = p @ kernel(sigmoid(of_t), x)
    return np.log(p)


def entropy(p: np.ndarray) -> float:
    return float(-np.sum(p[p > 0] * np.log(p[p > 0])))


def _case(schedule: Schedule, D: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a reverse process and a distribution of data, both of chance."""
    rng = np.random.default_rng(seed)
    data = rng.uniform(size=2**D) ** 3
    return 2 * rng.standard_normal((schedule.T, 2**D, D)), 0.1 / 2**D + 0.9 * data / data.sum()


@claim(
    r"q(x_t \mid x_0) = \mathcal B\big(x_0 \bar\alpha_t + \tfrac12 (1 - \bar\alpha_t)\big)"
    r" = \sum_{x_1 \dots x_{t-1}} \prod_s q(x_s \mid x_{s-1})",
    source="[DPM]", of=binomial_marginal, against="t single steps, each a matrix of two states", bound=1e-13,
    schedule=schedules(max_T=60, terminal=True),
)  # fmt: skip
def the_closed_form_of_bits_equals_t_single_steps(schedule: Schedule) -> float:
    """At every t, for both values of x_0."""
    x, worst = BOTH[:, None], 0.0
    rows = np.eye(2)
    for t in range(1, schedule.T + 1):
        rows = rows @ kernel(binomial_step(schedule, x, t), x)
        worst = max(worst, relative_error(binomial_marginal(schedule, x, t)[:, 0], rows[:, 1]))
    return worst


@claim(
    r"\beta_t = \frac{1}{T - t + 1} \;\Rightarrow\; \bar\alpha_t = \frac{T - t}{T},\quad L_T = 0",
    source="[DPM]", of=reciprocal, against="the fraction", bound=1e-14, T=lengths(),
)  # fmt: skip
def the_reciprocal_schedule_takes_the_same_share_at_every_step(T: int) -> float:
    """And nothing is left at the end: q(x_T | x_0) is a throw of a coin."""
    schedule = reciprocal(T)
    after = float(binomial_prior_matching(schedule, np.array([[0.0, 1.0]]))[0])
    return max(relative_error(schedule.alpha_bar, np.arange(T, -1, -1) / T), after)


@claim(
    r"q(x_{t-1} \mid x_t, x_0) = \frac{q(x_t \mid x_{t-1})\, q(x_{t-1} \mid x_0)}{q(x_t \mid x_0)}"
    r" = \mathcal B(c + c_0 x_0 + c_t x_t)",
    source="[DPM]", of=binomial_posterior, against="Bayes' rule on two states, in 50 digits", bound=1e-14,
    case=with_step,
)  # fmt: skip
def the_posterior_of_bits_is_bayes_rule(case: tuple[Schedule, int]) -> float:
    """For the four pairs of bits: an affine function of the two, without a product."""
    schedule, t = case
    worst = 0.0
    for x0, x_t in product((0, 1), repeat=2):
        actual = binomial_posterior(schedule, np.full(1, float(x_t)), np.full(1, float(x0)), t)[0]
        worst = max(worst, float(abs(actual - _bayes(schedule, t, x0, x_t))))
    return worst


@claim(
    r"H\big(q(x_{t-1} \mid x_t, x_0)\big) = h_{[x_t = x_0]}", source="[DPM]", of=binomial_posterior_entropy,
    against="-p log p - (1 - p) log(1 - p) of Bayes' rule, in 50 digits", bound=1e-12, case=with_step,
)  # fmt: skip
def the_entropy_of_the_posterior_asks_only_whether_the_bits_agree(case: tuple[Schedule, int]) -> float:
    """For the four pairs of bits."""
    schedule, t = case
    agree, differ = binomial_posterior_entropy(schedule, t)
    worst = 0.0
    for x0, x_t in product((0, 1), repeat=2):
        with mpmath.workdps(50):
            p = _bayes(schedule, t, x0, x_t)
            expected = float(-mpmath.fsum(v * mpmath.log(v) for v in (p, 1 - p) if v > 0))
        worst = max(worst, relative_error(agree if x0 == x_t else differ, expected))
    return worst


def _bayes(schedule: Schedule, t: int, x0: int, x_t: int) -> Any:
    """q(x_{t-1} = 1 | x_t, x_0) in 50 digits, from the schedule's own alpha and beta."""
    with mpmath.workdps(50):
        kept = [mpmath.mpf(a) if b > 0.5 else 1 - mpmath.mpf(b)
                for a, b in zip(schedule.alpha.tolist(), schedule.beta.tolist(), strict=True)]  # fmt: skip
        before, alpha = mpmath.fprod(kept[1:t]), kept[t]

        def towards_half(x: int, a: Any) -> Any:
            return x * a + (1 - a) / 2

        joint = []
        for middle in (0, 1):
            first, then = towards_half(x0, before), towards_half(middle, alpha)
            joint.append((first if middle else 1 - first) * (then if x_t else 1 - then))
        return joint[1] / (joint[0] + joint[1])


@claim(
    r"\mathrm{KL}(\mathcal B(p) \,\|\, \mathcal B(\sigma(\ell)))"
    r" = p \log\frac{p}{\sigma(\ell)} + (1 - p) \log\frac{1 - p}{\sigma(-\ell)}",
    source="[DPM]", of=kl_binomial, against="150-digit arithmetic, p from 0 to 1, logits to 100", bound=1e-14, seed=seeds(),
)  # fmt: skip
def the_divergence_of_two_bits_is_its_sum(seed: int) -> float:
    """Relative to the sizes of its terms."""
    rng = np.random.default_rng(seed)
    p = np.concatenate([BOTH, rng.uniform(size=10), 10.0 ** -rng.uniform(1, 12, 3)])
    logits = rng.standard_normal(15) * np.repeat([1, 10, 40], 5)
    actual, worst = kl_binomial(p, logits), 0.0
    for a, b, l in zip(actual.tolist(), p.tolist(), logits.tolist(), strict=True):
        with mpmath.workdps(150):
            s = 1 / (1 + mpmath.exp(-mpmath.mpf(l)))
            parts = [v * mpmath.log(v / w) for v, w in ((mpmath.mpf(b), s), (1 - mpmath.mpf(b), 1 - s)) if v > 0]
            worst = max(worst, relative_error(a, float(mpmath.fsum(parts)), scale=1 + float(sum(map(abs, parts)))))
    return worst


@claim(
    r"\sum_{t=0}^{T} \mathbb E_q L_t = \mathbb E_q\Big[\log\frac{q(x_1 \dots x_T \mid x_0)}"
    r"{p(x_T) \prod_t p(x_{t-1} \mid x_t)}\Big]",
    source="[DPM]", of=binomial_term, against="the sum over all paths of D bits, T and D up to 3", bound=1e-12, examples=12,
    schedule=few, D=st.integers(1, 3), seed=seeds(),
)  # fmt: skip
def the_terms_of_the_bits_bound_add_up_to_its_definition(schedule: Schedule, D: int, seed: int) -> float:
    """For a reverse process and data of chance: every path x_0 .. x_T with its probability."""
    logits, data = _case(schedule, D if schedule.T < 3 else min(D, 2), seed)
    terms = expected_terms(schedule, logits, data)
    return relative_error(terms.sum(), sum_over_paths(schedule, logits, data), scale=np.abs(terms).sum())


@claim(
    r"\mathbb E_q\Big[\sum_t L_t\Big] \ge \mathbb E[-\log p(x_0)] \ge H(x_0)", source="[DPM]", of=binomial_term,
    against="log p(x_0) by a sum over all x_1 .. x_T, and the data's entropy", bound=1e-12, schedule=few,
    D=st.integers(1, 3), seed=seeds(),
)  # fmt: skip
def the_bits_bound_is_never_below_the_entropy(schedule: Schedule, D: int, seed: int) -> float:
    """By how much one of the two inequalities fails, if it does."""
    logits, data = _case(schedule, D, seed)
    bound, loss = expected_terms(schedule, logits, data).sum(), -data @ log_density(logits)
    return max(0.0, loss - bound, entropy(data) - loss) / bound


@claim(
    r"p(x_{t-1} \mid x_t) = q(x_{t-1} \mid x_t),\ \bar\alpha_T = 0,\ q(x_0) = \prod_i q(x_0^i)"
    r" \;\Rightarrow\; \mathbb E_q\Big[\sum_t L_t\Big] = H(x_0)",
    source="[DPM]", of=binomial_term, against="the entropy of independent bits", bound=1e-12, schedule=ended,
    D=st.integers(1, 3), seed=seeds(),
)  # fmt: skip
def the_perfect_reverse_process_of_independent_bits_attains_their_entropy(
    schedule: Schedule, D: int, seed: int
) -> float:
    """q(x_{t-1} | x_t) is a product over elements here, as p is; of bits that hang together it is none, see below."""
    rate, x = np.random.default_rng(seed).uniform(0.05, 0.95, D), states(D)
    data = kernel(rate[None], x)[0]
    terms = expected_terms(schedule, _perfect(schedule, data), data)
    return relative_error(terms.sum(), entropy(data))


@claim(
    r"T = 1,\ \beta_1 = 1:\quad \min_p L_0 = \sum_i H(x_0^i)", source="[DPM]", of=binomial_term,
    against="the entropies of the single bits", bound=1e-12, D=st.integers(1, 3), seed=seeds(),
)  # fmt: skip
def one_step_from_noise_is_worth_independent_bits(D: int, seed: int) -> float:
    """The best that a single step can do; more steps lie between this and the entropy."""
    _, data = _case(reciprocal(1), D, seed)
    rate = data @ states(D)
    bound = expected_terms(reciprocal(1), _perfect(reciprocal(1), data), data).sum()
    return relative_error(bound, sum(entropy(np.array([r, 1 - r])) for r in rate))


@claim(
    r"\mathbb E_q \sum_t L_t \searrow H(x_0) \text{ as } T \to \infty,\ \beta_t = \frac{1}{T - t + 1}", source="[DPM]",
    of=reciprocal, against="the entropy of correlated bits; T times the gap, at T = 150 and 300", bound=0.05, examples=10,
    D=st.integers(2, 3), seed=seeds(),
)  # fmt: skip
def the_gap_of_the_perfect_factorised_process_falls_as_one_over_T(D: int, seed: int) -> float:
    """|gap(150) / gap(300) / 2 - 1|: in small steps hardly two bits change at once, and a product is enough."""
    _, data = _case(reciprocal(1), D, seed)
    gaps = []
    for T in (150, 300):
        schedule = reciprocal(T)
        gaps.append(expected_terms(schedule, _perfect(schedule, data), data).sum() - entropy(data))
    return abs(gaps[0] / gaps[1] / 2 - 1)


def _perfect(schedule: Schedule, data: np.ndarray) -> np.ndarray:
    """The logits of q(x_{t-1} = 1 | x_t), of each element, by Bayes' rule over all states.   -> (T, 2^D, D)"""
    D = int(np.log2(len(data)))
    x, logits = states(D), []
    for t in range(1, schedule.T + 1):
        before = data @ kernel(binomial_marginal(schedule, x, t - 1), x)
        joint = before[:, None] * kernel(binomial_step(schedule, x, t), x)  # of x_{t-1} and x_t
        of_one, of_zero = joint.T @ x, joint.T @ (1 - x)
        logits.append(np.log(of_one) - np.log(of_zero))
    return np.array(logits)


@claim(
    r"q(x_0) = \mathcal B(\tfrac12):\quad \log\frac{q(x_{t-1} = x_t \mid x_t)}{q(x_{t-1} \ne x_t \mid x_t)}"
    r" = \log\frac{1 - \beta_t / 2}{\beta_t / 2}",
    source="[DPM]", of=binomial_log_odds, against="Bayes' rule over all states", bound=1e-12, schedule=few,
)  # fmt: skip
def bits_of_a_coin_run_backwards_as_they_run_forwards(schedule: Schedule) -> float:
    """Relative to 1 + their size: where beta is small, the joint probabilities have lost its digits."""
    odds = binomial_log_odds(schedule, np.arange(1, schedule.T + 1))
    lost = 1 + np.abs(odds) + 1e-3 / schedule.beta[1:]
    actual = _perfect(schedule, np.full(2, 0.5))[:, :, 0]
    return float(np.max(np.abs(actual - odds[:, None] * np.array([-1, 1])) / lost[:, None]))
