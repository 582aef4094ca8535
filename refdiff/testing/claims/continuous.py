"""Claims about noise in continuous time: a learned schedule, its loss, and what of it no schedule changes, [VDM]."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...process import (
    ContinuousSchedule,
    ancestral_step,
    antithetic_times,
    between_ends,
    diffusion_loss,
    discrete_diffusion_loss,
    eps_from_x0,
    kl_gaussian,
    linear_gamma,
    posterior_log_variance,
    posterior_mean,
    q_sample,
    q_sample_at,
    variational_step,
    vlb_weight,
    x0_from_eps,
)
from ..claim import claim
from ..measures import gauss_hermite, quotient, relative_error
from ..strategies import continuous_schedules, lengths, rising_curve, seeds

plain: Any = continuous_schedules()
times: Any = st.floats(0, 1)


@claim(
    r"\sigma_t^2 = \mathrm{sigmoid}(\gamma(t)),\quad \alpha_t^2 = \mathrm{sigmoid}(-\gamma(t)),\quad"
    r" \mathrm{SNR}(t) = e^{-\gamma(t)}",
    source="[VDM] eqs. 3 to 5", of=ContinuousSchedule, against="50-digit arithmetic, of the same gamma(t)", bound=2e-15,
    schedule=plain, t=times,
)  # fmt: skip
def signal_and_noise_follow_from_gamma(schedule: ContinuousSchedule, t: float) -> float:
    """Each relative to itself, however little there is of it."""
    with mpmath.workdps(50):
        gamma = mpmath.mpf(float(schedule.gamma(t)))
        noise, signal = 1 / (1 + mpmath.exp(-gamma)), 1 / (1 + mpmath.exp(gamma))
        expected = [signal, noise, mpmath.sqrt(signal), mpmath.sqrt(noise), mpmath.exp(-gamma), -gamma]
        actual = [
            f(t) for f in (
                schedule.alpha_bar, schedule.one_minus_alpha_bar, schedule.alpha, schedule.sigma, schedule.snr,
                schedule.log_snr,
            )
        ]  # fmt: skip
        return max(
            float(abs(mpmath.mpf(float(a)) - e) / abs(e)) if e else float(a)
            for a, e in zip(actual, expected, strict=True)
        )


@claim(
    r"\gamma'(t) = \frac{d}{dt} \gamma(t)",
    source="[ComplexStep], [VDM] appendix H", of=ContinuousSchedule, against="a complex step along gamma", bound=1e-13,
    schedule=plain, t=times,
)  # fmt: skip
def the_slope_of_gamma_is_its_derivative(schedule: ContinuousSchedule, t: float) -> float:
    """Of each kind of schedule, relative to the mean slope."""
    gamma: Any = schedule.function
    slope = np.imag(gamma(np.array([t + 1e-30j])))[0] / 1e-30
    mean = float(schedule.gamma(1.0) - schedule.gamma(0.0))
    return abs(slope - float(schedule.slope(t))) / max(mean, float(schedule.slope(t)))


@claim(
    r"\gamma(t) = \gamma_0 + (\gamma_1 - \gamma_0)\, \frac{m(t) - m(0)}{m(1) - m(0)}",
    source="[VDM] eq. 59", of=between_ends, against="50-digit arithmetic, and its ends", bound=1e-14, seed=seeds(),
    low=st.floats(-14, 0), high=st.floats(1, 10), t=times,
)  # fmt: skip
def an_inside_of_any_size_has_the_ends_it_is_given(seed: int, low: float, high: float, t: float) -> float:
    """The inside times 100 and plus 3 is the same inside. Relative to the larger end."""
    inside = rising_curve(seed)
    schedule, same = (
        between_ends(low, high, inside),
        between_ends(low, high, lambda t: (100 * inside(t)[0], 100 * inside(t)[1])),
    )
    m, m_0, m_1 = (mpmath.mpf(float(inside(np.array(v))[0])) for v in (t, 0.0, 1.0))
    with mpmath.workdps(50):
        expected = [low, high, float(low + (mpmath.mpf(high) - low) * (m - m_0) / (m_1 - m_0))]
    actual = [[float(s.gamma(v)) for v in (0.0, 1.0, t)] for s in (schedule, same)]
    return float(np.max(np.abs(np.array(actual) - expected))) / max(-low, high)


@claim(
    r"\bar\alpha_{i+1} = \alpha_{i/T}^2,\qquad \beta_{i+1} = \sigma_{t|s}^2 = \sigma_t^2 - \frac{\alpha_t^2}{\alpha_s^2}"
    r" \sigma_s^2 = -\sigma_t^2\, \mathrm{expm1}(\gamma_s - \gamma_t)",
    source="[VDM] eqs. 2 and 22", of=ContinuousSchedule.discretised,
    against="alpha, sigma and SNR at each t = i / T, and 50-digit arithmetic", bound=1e-13, schedule=plain, T=lengths(200),
)  # fmt: skip
def a_discretised_schedule_is_the_continuous_one_seen_at_its_steps(schedule: ContinuousSchedule, T: int) -> float:
    """alpha_bar, 1 - alpha_bar and the signal-to-noise ratio relative to themselves, each beta to what gamma's last digit
    leaves of it: a step's rise in gamma, a difference of numbers of size 10, is not sharper."""
    t, discrete = np.arange(T + 1) / T, schedule.discretised(T)
    pairs = [
        (discrete.alpha_bar, schedule.alpha_bar), (discrete.one_minus_alpha_bar, schedule.one_minus_alpha_bar),
        (discrete.snr, schedule.snr),
    ]  # fmt: skip
    worst = max(float(np.max(np.abs(a[1:] / f(t) - 1))) for a, f in pairs)
    gamma = schedule.gamma(t)
    with mpmath.workdps(50):
        noise = [1 / (1 + mpmath.exp(-mpmath.mpf(g))) for g in gamma.tolist()]
        beta = [float(b - (1 - b) / (1 - a) * a) for a, b in pairwise(noise)]
    return max(worst, float(np.max(np.abs(discrete.beta[2:] / beta - 1), initial=0.0)))


@claim(
    r"T\, \mathrm{KL}(q(z_s \mid z_t, x) \,\|\, q(z_s \mid z_t, \hat x)) = \tfrac T2\, \mathrm{expm1}(\gamma_t - \gamma_s)\,"
    r" |\epsilon - \hat\epsilon|^2",
    source="[VDM] eqs. 12 to 14, [DDPM] eq. 12", of=discrete_diffusion_loss,
    against="the divergence of the two Gaussians, and vlb_weight, on the discretised schedule", bound=1e-11, schedule=plain,
    T=lengths(50), seed=seeds(),
)  # fmt: skip
def a_step_of_the_discrete_loss_is_a_divergence(schedule: ContinuousSchedule, T: int, seed: int) -> float:
    """The reverse variance is the posterior's. x from z and eps_hat loses the digits that the division by alpha takes."""
    rng, discrete = np.random.default_rng(seed), schedule.discretised(T)
    i = int(rng.integers(1, T + 1))
    x, eps, eps_hat = rng.standard_normal((3, 2, 3))
    z = q_sample(discrete, x, i + 1, eps)
    means = [posterior_mean(discrete, z, x0_from_eps(discrete, z, i + 1, e), i + 1) for e in (eps, eps_hat)]
    log_variance = np.full_like(x, posterior_log_variance(discrete, i + 1))
    kl, _ = kl_gaussian(means[0], log_variance, means[1], log_variance)
    actual = discrete_diffusion_loss(schedule, i, T, eps, eps_hat)
    weighted = T * vlb_weight(discrete, i + 1) * ((eps - eps_hat) ** 2).sum(1)
    lost = 1 + np.abs(means).max() / np.abs(means[0] - means[1]).max()
    return max(relative_error(actual, weighted), relative_error(actual, T * kl.sum(1)) / lost)


@claim(
    r"\tfrac T2\, \mathrm{expm1}(\gamma(t) - \gamma(t - \tfrac1T)) \to \tfrac12 \gamma'(t)",
    source="[VDM] eqs. 14 and 17", of=diffusion_loss, against="the loss of T and of 2 T steps, extrapolated", bound=2e-5,
    schedule=plain, t=st.sampled_from([0.125, 0.25, 0.5, 0.75, 1.0]), seed=seeds(),
)  # fmt: skip
def the_continuous_loss_is_the_limit_of_the_discrete_one(schedule: ContinuousSchedule, t: float, seed: int) -> float:
    """2 L_{2T} - L_T, T = 2^14, whose error falls as 1/T^2; relative to the largest slope of the schedule."""
    eps, eps_hat = np.random.default_rng(seed).standard_normal((2, 1, 3))
    T = 1 << 14
    one, two = (discrete_diffusion_loss(schedule, int(t * n), n, eps, eps_hat) for n in (T, 2 * T))
    size = 0.5 * schedule.slope(np.linspace(0, 1, 257)).max() * ((eps - eps_hat) ** 2).sum()
    return relative_error(diffusion_loss(schedule, t, eps, eps_hat), 2 * two - one, scale=size)


@claim(
    r"L_\infty = \tfrac12 \log \frac{1 + c\, \mathrm{SNR}_{\max}}{1 + c\, \mathrm{SNR}_{\min}} \le L_{2T} \le L_T,"
    r"\qquad x \sim \mathcal N(0, c)",
    source="[VDM] eqs. 14 and 17, section 4.1", of=diffusion_loss, against="the integral, in closed form", bound=1e-9,
    schedule=plain, c=st.floats(0.05, 4),
)  # fmt: skip
def for_a_gaussian_the_loss_is_the_information_in_the_first_latent(schedule: ContinuousSchedule, c: float) -> float:
    """Of the perfect denoiser, E|eps - eps_hat|^2 = c SNR / (1 + c SNR), by quadrature over t; and more steps cost less."""

    def loss(weight: Any, t: np.ndarray) -> np.ndarray:
        root = np.sqrt(c * schedule.snr(t) / (1 + c * schedule.snr(t)))[:, None]
        return np.asarray(weight(root, 0 * root))

    t, w = times_and_weights()
    limit = float(w @ loss(lambda e, e_hat: diffusion_loss(schedule, t, e, e_hat), t))
    expected = 0.5 * float(np.log1p(c * schedule.snr(0.0)) - np.log1p(c * schedule.snr(1.0)))
    of_steps = []
    for T in (4, 8, 16):
        i = np.arange(1, T + 1)
        of_steps.append(
            loss(lambda e, e_hat, i=i, T=T: discrete_diffusion_loss(schedule, i, T, e, e_hat), i / T).mean()
        )
    if not of_steps[0] >= of_steps[1] >= of_steps[2] >= expected * (1 - 1e-12):
        return np.inf
    return relative_error(limit, expected)


@claim(
    r"\tfrac12\, \mathbb E_\epsilon \int_0^1 \gamma'(t)\, |\epsilon - \hat\epsilon(z_t, \gamma(t))|^2\, dt ="
    r" \tfrac12\, \mathbb E_\epsilon \int_{\gamma_0}^{\gamma_1} |\epsilon - \hat\epsilon(z, \gamma)|^2\, d\gamma",
    source="[VDM] eqs. 17 and 18", of=diffusion_loss, against="quadrature for two insides with the same ends", bound=1e-12,
    low=st.floats(-8, -1), high=st.floats(0, 6), seed=seeds(),
)  # fmt: skip
def the_loss_does_not_know_the_schedule_between_its_ends(low: float, high: float, seed: int) -> float:
    """Of a denoiser that is wrong, and a function of z and gamma: over eps by Gauss-Hermite, over t by Gauss-Legendre."""
    rng = np.random.default_rng(seed)
    x, a, b = rng.uniform(-1, 1), *rng.standard_normal(2)

    def loss(schedule: ContinuousSchedule) -> float:
        t, w = times_and_weights()

        def along(eps: np.ndarray) -> np.ndarray:
            e = np.broadcast_to(eps, (len(t), len(eps)))
            z = q_sample_at(schedule, np.full_like(e, x), t, e)
            gamma = schedule.gamma(t)[:, None]
            e_hat = 0.5 * z + a * np.sin(z) * np.cos(gamma / 4) + b / (1 + gamma**2 / 50)
            return w @ np.stack(
                [diffusion_loss(schedule, t, e[:, [k]], e_hat[:, [k]]) for k in range(len(eps))], axis=1
            )

        return float(gauss_hermite(along, nodes=40))

    one, other = loss(linear_gamma(low, high)), loss(between_ends(low, high, rising_curve(seed)))
    return relative_error(other, one)


@claim(
    r"t_i = (u + i/N) \bmod 1,\qquad \mathrm{Var}_u\Big[\tfrac1N \textstyle\sum_i f(t_i)\Big] < \tfrac1N \mathrm{Var}[f(t)]",
    source="[VDM] appendix I.1", of=antithetic_times, against="the variance with independent t, by quadrature", bound=1.0,
    schedule=plain, n=st.sampled_from([4, 8, 16, 32, 64]), c=st.floats(0.05, 4),
)  # fmt: skip
def antithetic_times_lower_the_variance(schedule: ContinuousSchedule, n: int, c: float) -> float:
    """f is the expected loss at t of the perfect denoiser of N(0, c). The error is the quotient of the variances; infinite
    if the mean over u is another."""

    def f(t: np.ndarray) -> np.ndarray:
        return 0.5 * schedule.slope(t) * c * schedule.snr(t) / (1 + c * schedule.snr(t))

    u = (np.arange(4096) + 0.5) / 4096
    means = np.array(
        [f(antithetic_times(v, n)).mean() for v in u[: 4096 // n]]
    )  # of every u one is among these, but for order
    values = f(u)
    if not relative_error(means.mean(), values.mean()) <= 1e-12:
        return np.inf
    return quotient(float(means.var()), float(values.var()) / n)


@claim(
    r"z_s = \frac{\alpha_s}{\alpha_t} \big(z_t + \sigma_t\, \mathrm{expm1}(\gamma_s - \gamma_t)\, \hat\epsilon\big)"
    r" + \sigma_s \sqrt{-\mathrm{expm1}(\gamma_s - \gamma_t)}\, \epsilon",
    source="[VDM] eqs. 31 to 33", of=variational_step, against="the ancestral step on the discretised schedule", bound=1e-12,
    schedule=plain, T=lengths(50), seed=seeds(),
)  # fmt: skip
def the_variational_step_is_the_ancestral_one(schedule: ContinuousSchedule, T: int, seed: int) -> float:
    """From one t = i / T to any earlier one; what the division of z by alpha_t takes of x0_hat counts as its size."""
    rng, discrete = np.random.default_rng(seed), schedule.discretised(T)
    i = int(rng.integers(1, T + 1))
    j = int(rng.integers(0, i))
    z, eps_hat, eps = rng.standard_normal((3, 2, 3))
    x0_hat = x0_from_eps(discrete, z, i + 1, eps_hat)
    assert np.all(np.isfinite(eps_from_x0(discrete, z, i + 1, x0_hat)))
    expected = ancestral_step(discrete, z, i + 1, j + 1, x0_hat, eps)
    return relative_error(
        variational_step(schedule, z, i / T, j / T, eps_hat, eps), expected, scale=np.abs(expected) + np.abs(x0_hat)
    )


def times_and_weights() -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre over [0, 1], 24 nodes on each of 28 pieces, shorter near 0, where a schedule that is linear in beta is
    steep.   -> t, weights"""
    v, w = np.polynomial.legendre.leggauss(24)
    edges = np.concatenate([[0], 2.0 ** np.arange(-16, -4), np.arange(1, 17) / 16])
    begin, length = edges[:-1, None], np.diff(edges)[:, None]
    return (begin + length * (v + 1) / 2).ravel(), (length * w / 2).ravel()
