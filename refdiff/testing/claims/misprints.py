"""Formulas in circulation that are wrong, each refuted: the right one passes an independent check, the misprint fails it.

`MISPRINTS` is their list; docs/errata.md is made from it. The size of a misprint is its relative error on the linear
schedule with T = 1000, for data of size 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from ...process import (
    linear,
    posterior_mean,
    posterior_mean_coefficients,
    posterior_mean_from_eps,
    posterior_variance,
    q_sample,
    q_step_moments,
)  # fmt: skip
from ..claim import claim
from ..measures import gauss_hermite, relative_error

__all__ = ["MISPRINTS", "Misprint"]

SCHEDULE = linear(1000)
ABAR = np.cumprod(1 - SCHEDULE.beta)
EXACT = 1e-12  # what the right formula must meet
late_steps = st.integers(20, 1000)


class Misprint(NamedTuple):
    """wrong, right: LaTeX; why: how to see it; size(t): the relative error that the misprint makes at step t."""

    wrong: str
    right: str
    why: str
    size: Callable[[int], float]


def refuted(right_error: float, size: float, least: float) -> float:
    """At most 1 when the right formula is exact and the misprint is off by at least `least`."""
    return max(right_error / EXACT, least / size)


def _step_size(t: int) -> float:
    return relative_error(np.prod(np.sqrt(ABAR[1 : t + 1])), np.sqrt(ABAR[t]))


@claim(
    r"x_t = \sqrt{\alpha_t}\, x_{t-1} + \sqrt{1-\alpha_t}\,\epsilon,\ \text{not}\ \sqrt{\bar\alpha_t}\, x_{t-1} + \dots",
    source="[DDPM] eq. 2", of=q_step_moments, against="the product of t steps", bound=1.0, t=late_steps,
)  # fmt: skip
def a_step_scales_by_sqrt_alpha_not_by_sqrt_alpha_bar(t: int) -> float:
    """Steps that each scale by sqrt(alpha_bar_s) shrink the data far below sqrt(alpha_bar_t); refuted from t = 20 on."""
    mean = np.ones(1)
    for s in range(1, t + 1):
        mean, _ = q_step_moments(SCHEDULE, mean, s)
    return refuted(relative_error(mean[0], np.sqrt(ABAR[t])), _step_size(t), 1e-3)


def _mean_size(t: int) -> float:
    right = np.sqrt(1 - SCHEDULE.beta[t]) * (1 - ABAR[t - 1]) / (1 - ABAR[t])
    wrong = np.sqrt(ABAR[t]) * (1 - ABAR[t - 1]) / (1 - ABAR[t])
    return relative_error(wrong, right)


@claim(
    r"\tilde\mu_t = \tfrac{\sqrt{\bar\alpha_{t-1}}\beta_t}{1-\bar\alpha_t} x_0"
    r" + \tfrac{\sqrt{\alpha_t}(1-\bar\alpha_{t-1})}{1-\bar\alpha_t} x_t,"
    r"\ \text{not}\ \sqrt{\bar\alpha_t}(1-\bar\alpha_{t-1})\dots",
    source="[DDPM] eq. 7", of=posterior_mean_coefficients, against="composition with q(x_t|x_0)", bound=1.0, t=late_steps,
)  # fmt: skip
def the_posterior_mean_holds_sqrt_alpha_not_sqrt_alpha_bar(t: int) -> float:
    """Averaged over x_t the mean must be sqrt(alpha_bar_{t-1}) x_0; with sqrt(alpha_bar_t) in the second term it is not."""
    of_x0, of_xt = posterior_mean_coefficients(SCHEDULE, t)
    expected, wrong = np.sqrt(ABAR[t - 1]), of_xt * np.sqrt(ABAR[t] / (1 - SCHEDULE.beta[t]))
    right_error = relative_error(of_x0 + of_xt * np.sqrt(ABAR[t]), expected)
    return refuted(right_error, min(_mean_size(t), relative_error(of_x0 + wrong * np.sqrt(ABAR[t]), expected)), 1e-3)


def _eps_size(t: int) -> float:
    return relative_error(1.0, np.sqrt(ABAR[t - 1]))


@claim(
    r"\tilde\mu_t = \tfrac{1}{\sqrt{\alpha_t}}\big(x_t - \tfrac{\beta_t}{\sqrt{1-\bar\alpha_t}}\epsilon\big),\ "
    r"\text{not}\ \tfrac{1}{\sqrt{\bar\alpha_t}}\big(\dots\big)",
    source="[DDPM] eq. 11", of=posterior_mean_from_eps, against="quadrature over eps", bound=1.0, t=late_steps,
)  # fmt: skip
def the_eps_form_divides_by_sqrt_alpha_not_by_sqrt_alpha_bar(t: int) -> float:
    """Averaged over eps the mean must be sqrt(alpha_bar_{t-1}) x_0; divided by sqrt(alpha_bar_t) it is x_0 at every t."""
    mean = gauss_hermite(lambda e: posterior_mean_from_eps(SCHEDULE, q_sample(SCHEDULE, np.ones_like(e), t, e), e, t))
    return refuted(relative_error(mean, np.sqrt(ABAR[t - 1])), _eps_size(t), 1e-3)


def _weight_size(t: int) -> float:
    return relative_error(1 / ABAR[t], 1 / (1 - SCHEDULE.beta[t]))


@claim(
    r"\tfrac{1}{2\sigma_t^2}\|\tilde\mu - \mu_\theta\|^2 = \tfrac{\beta_t^2}{2\sigma_t^2\alpha_t(1-\bar\alpha_t)}"
    r"\|\epsilon - \epsilon_\theta\|^2,\ \text{not}\ \tfrac{\beta_t^2}{2\sigma_t^2\bar\alpha_t(1-\bar\alpha_t)}",
    source="[DDPM] eq. 12", of=posterior_mean_from_eps, against="the means of two noises", bound=1.0, t=late_steps,
)  # fmt: skip
def the_weight_of_the_eps_error_holds_alpha_not_alpha_bar(t: int) -> float:
    """|mu(eps) - mu(eps')|^2 / |eps - eps'|^2 is beta^2 / (alpha (1 - alpha_bar)); sigma cancels on both sides."""
    x_t, eps, other = np.full(1, 0.3), np.full(1, 0.5), np.full(1, -0.8)
    means = [posterior_mean_from_eps(SCHEDULE, x_t, e, t)[0] for e in (eps, other)]
    weight = ((means[0] - means[1]) / (eps - other)[0]) ** 2
    expected = SCHEDULE.beta[t] ** 2 / (1 - SCHEDULE.beta[t]) / (1 - ABAR[t])
    return refuted(relative_error(weight, expected), _weight_size(t), 1e-3)


def _norm_size(t: int) -> float:
    return relative_error(1 / posterior_variance(SCHEDULE, t), 1.0)


@claim(
    r"KL\big(\mathcal N(m_1, \sigma^2) \,\|\, \mathcal N(m_2, \sigma^2)\big) = \tfrac{1}{2\sigma^2}(m_1 - m_2)^2,\ "
    r"\text{not}\ \tfrac{1}{2\|\Sigma\|^2}(m_1 - m_2)^2",
    source="[DDPM] eq. 8", of=posterior_variance, against="quadrature of the divergence", bound=1.0, t=late_steps,
)  # fmt: skip
def the_divergence_divides_by_the_variance_not_by_its_square(t: int) -> float:
    """With Sigma = sigma^2 in one dimension, ||Sigma||^2 = sigma^4: wrong by 1 / sigma^2, not even in the same unit."""
    variance = float(posterior_variance(SCHEDULE, t))
    shift = 0.7 * np.sqrt(variance)
    kl = gauss_hermite(lambda x: ((x - shift) ** 2 - x**2) / (2 * variance), sd=np.sqrt(variance))
    return refuted(relative_error(kl, shift**2 / (2 * variance)), _norm_size(t), 1e-3)


def _second_moment_size(t: int) -> float:
    mean = posterior_mean(SCHEDULE, np.array([np.sqrt(ABAR[t])]), np.ones(1), t)[0]
    return float(mean**2 / posterior_variance(SCHEDULE, t))


@claim(
    r"\mathrm{Var}[x_{t-1} \mid x_t, x_0] = \tfrac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\beta_t\ \text{whatever}\ x_t",
    source="[DDPM] eq. 7", of=posterior_variance, against="quadrature of Bayes' rule at several x_t", bound=1.0,
    t=st.integers(20, 700), x_t=st.floats(-3, 3),
)  # fmt: skip
def the_posterior_variance_does_not_depend_on_x_t(t: int, x_t: float) -> float:
    """A "variance" that does is a second moment left uncentred: it is larger by the square of the mean."""
    mean = posterior_mean(SCHEDULE, np.array([x_t]), np.ones(1), t)[0]
    variance = posterior_variance(SCHEDULE, t)
    grid = mean + np.sqrt(variance) * np.linspace(-12, 12, 4001)
    root = np.sqrt(1 - SCHEDULE.beta[t])
    log = -((x_t - root * grid) ** 2) / (2 * SCHEDULE.beta[t]) - (grid - np.sqrt(ABAR[t - 1])) ** 2 / (
        2 - 2 * ABAR[t - 1]
    )
    weight = np.exp(log - log.max())
    centred = grid - (weight * grid).sum() / weight.sum()
    return refuted(
        relative_error((weight * centred**2).sum() / weight.sum(), variance) / 1e3, _second_moment_size(t), 1e-3
    )


def _excess(t: int) -> float:
    """For data N(0, I), whose true reverse step is N(sqrt(alpha_{t+1}) x_{t+1}, beta_{t+1}); see claims/bound.py."""
    u = min(t, SCHEDULE.T - 1)
    return float((1 - SCHEDULE.beta[u + 1]) * SCHEDULE.beta[u] / SCHEDULE.beta[u + 1])


MISPRINTS = [
    Misprint(
        r"x_t = \sqrt{\bar\alpha_t}\, x_{t-1} + \sqrt{1-\alpha_t}\,\epsilon",
        r"x_t = \sqrt{\alpha_t}\, x_{t-1} + \sqrt{1-\alpha_t}\,\epsilon",
        "The factor of one step is its own; the bar is for t steps at once. Size: of the mean after t such steps.",
        _step_size,
    ),
    Misprint(
        r"\tilde\mu_t = \dots + \frac{\sqrt{\bar\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\, x_t",
        r"\tilde\mu_t = \dots + \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\, x_t",
        "It comes from q(x_t | x_{t-1}), one step. Size: of the factor of x_t.",
        _mean_size,
    ),
    Misprint(
        r"\tilde\mu_t = \frac{1}{\sqrt{\bar\alpha_t}}\Big(x_t - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\epsilon\Big)",
        r"\tilde\mu_t = \frac{1}{\sqrt{\alpha_t}}\Big(x_t - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\epsilon\Big)",
        "Averaged over eps it must give the mean of q(x_{t-1} | x_0). Size: of that mean.",
        _eps_size,
    ),
    Misprint(
        r"\frac{\beta_t^2}{2\sigma_t^2\,\bar\alpha_t\,(1-\bar\alpha_t)}\,\|\epsilon-\epsilon_\theta\|^2",
        r"\frac{\beta_t^2}{2\sigma_t^2\,\alpha_t\,(1-\bar\alpha_t)}\,\|\epsilon-\epsilon_\theta\|^2",
        "The same slip in the weight of the bound's terms. Size: of the weight.",
        _weight_size,
    ),
    Misprint(
        r"\frac{1}{2\|\Sigma_t\|^2}\,\|\tilde\mu-\mu_\theta\|^2",
        r"\frac{1}{2\sigma_t^2}\,\|\tilde\mu-\mu_\theta\|^2",
        "The variance divides, not the norm of the covariance squared. Size: of the divergence, in one dimension.",
        _norm_size,
    ),
    Misprint(
        r"\mathrm{Var}[x_{t-1} \mid x_t, x_0]\ \text{with}\ x_t\ \text{in it}",
        r"\mathrm{Var}[x_{t-1} \mid x_t, x_0] = \frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\,\beta_t",
        "A product of Gaussians has a variance that does not know where they stand. Size: of the uncentred second moment.",
        _second_moment_size,
    ),
    Misprint(
        r"\mathbb E_{x_{t-1}, x_{t+1}}\Big[KL\big(q(x_t \mid x_{t-1}) \,\|\, p_\theta(x_t \mid x_{t+1})\big)\Big]",
        r"\mathbb E_{x_{t-1}, x_t, x_{t+1}}\Big[\log\frac{q(x_t \mid x_{t-1})}{p_\theta(x_t \mid x_{t+1})}\Big]",
        "The divergence draws x_t given x_{t-1} alone, but x_{t+1} was made from x_t. A claim about the bound measures what "
        "that adds, another one that it does so for any encoder; in the example of docs/from-vae-to-diffusion.md, of three "
        "steps, the bound comes out 0.65 nats too low. Size: the excess in nats per dimension of one term, for data N(0, I) "
        "and the true reverse process.",
        _excess,
    ),
]
