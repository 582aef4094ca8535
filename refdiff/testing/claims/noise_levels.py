"""Claims about noise at a level that is learned, as engines compute it, [VDM], and about a step of learned beta, [DPM]."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...engines import reference
from ..claim import claim
from ..measures import gauss_hermite, normal_logpdf
from ..strategies import seeds

gammas: Any = st.floats(-20, 20)


def _level(gamma: float) -> tuple[Any, Any]:
    """alpha^2 and sigma^2, in the arithmetic that is set."""
    return 1 / (1 + mpmath.exp(mpmath.mpf(gamma))), 1 / (1 + mpmath.exp(-mpmath.mpf(gamma)))


@claim(
    r"\mathrm{softplus}(x) = \log(1 + e^x) = -\log\mathrm{sigmoid}(-x),\quad \mathrm{softplus}'(x) = \mathrm{sigmoid}(x)"
    r" = \frac{1}{1 + e^{-x}},\quad e^x - 1",
    source="[VDM] eqs. 3 and 4", of=reference.softplus, against="50-digit arithmetic", bound=2e-15, seed=seeds(),
    size=st.sampled_from([1e-9, 1.0, 30.0, 600.0]),
)  # fmt: skip
def what_a_level_is_made_of_keeps_its_digits(seed: int, size: float) -> float:
    """Each number relative to itself, however small."""
    x, errors = size * np.random.default_rng(seed).uniform(-1, 1, 20), []
    (plus, saved), (grown, _) = reference.softplus(x), reference.expm1(x)
    slope = reference.softplus_backward(np.ones_like(x), saved)
    with mpmath.workdps(50):
        for a, *values in zip(x.tolist(), slope.tolist(), plus.tolist(), grown.tolist(), strict=True):
            exact = _level(a)[1], mpmath.log1p(mpmath.exp(mpmath.mpf(a))), mpmath.expm1(mpmath.mpf(a))
            errors += [abs(value / e - 1) for value, e in zip(values, exact, strict=True)]
        return float(max(errors))


@claim(
    r"z = \alpha x + \sigma \epsilon,\quad \sigma^2 = \mathrm{sigmoid}(\gamma),\ \alpha^2 = \mathrm{sigmoid}(-\gamma)",
    source="[VDM] eqs. 1, 3 and 4", of=reference.diffuse, against="50-digit arithmetic", bound=1e-15, seed=seeds(),
    gamma=gammas,
)  # fmt: skip
def noise_of_a_level_is_mixed_in_by_its_two_roots(seed: int, gamma: float) -> float:
    """For gamma from -20 to 20, in units of the terms; its derivative by gamma too, against the closed form."""
    x, eps = np.random.default_rng(seed).standard_normal((2, 1, 4))
    z, saved = reference.diffuse(x, eps, np.array([gamma]))
    slope = reference.diffuse_backward(np.ones_like(z), saved)[0]
    with mpmath.workdps(50):
        alpha, sigma = map(mpmath.sqrt, _level(gamma))
        errors, total, size = [], mpmath.mpf(0), mpmath.mpf(0)
        for a, e, value in zip(x[0].tolist(), eps[0].tolist(), z[0].tolist(), strict=True):
            errors.append(abs(value - (alpha * a + sigma * e)) / (alpha * abs(a) + sigma * abs(e)))
            total += alpha * sigma * (alpha * e - sigma * a) / 2
            size += alpha * sigma * (alpha * abs(e) + sigma * abs(a)) / 2
        return float(max(*errors, abs(slope - total) / size))


@claim(
    r"D_{KL}\big(q(z_1 \mid x)\,\|\,\mathcal N(0, I)\big) = \tfrac12 \sum_i \big(\alpha_1^2 x_i^2 + \sigma_1^2 - 1"
    r" - \log\sigma_1^2\big) = \mathbb E_q\big[\log q(z_1 \mid x) - \log p(z_1)\big]",
    source="[VDM] eq. 11", of=reference.prior_kl, against="50-digit arithmetic, and Gauss-Hermite quadrature", bound=1e-13,
    seed=seeds(), gamma=gammas,
)  # fmt: skip
def the_last_latent_costs_its_divergence_from_the_prior(seed: int, gamma: float) -> float:
    """For gamma from -20 to 20, in units of the terms: alpha^2 (x^2 + 1) where there is little signal left, for -log sigma^2
    is all but alpha^2; 1e-15 of them against 50 digits."""
    x = np.random.default_rng(seed).standard_normal((1, 3))
    y, _ = reference.prior_kl(x, np.array([gamma]))
    with mpmath.workdps(50):
        alpha2, sigma2 = _level(gamma)
        squares = mpmath.fsum(mpmath.mpf(a) ** 2 for a in x[0].tolist())
        size = alpha2 * (squares + 3) - 3 * mpmath.log(sigma2)
        exact = (alpha2 * squares - 3 * alpha2 - 3 * mpmath.log(sigma2)) / 2
        error = float(abs(y[0] - exact) / size)
    if not error <= 1e-15:
        return np.inf
    alpha, variance = float(mpmath.sqrt(alpha2)), float(sigma2)
    total = 0.0
    for m in (alpha * x[0]).tolist():

        def ratio(z: np.ndarray, m: float = m) -> np.ndarray:
            return normal_logpdf(z, m, variance) - normal_logpdf(z, 0, 1)

        total += float(gauss_hermite(ratio, m, variance**0.5, 8))
    return float(abs(y[0] - total) / (1 + float(size)))


@claim(
    r"p(x \mid z_0) = \frac{\mathcal N(z_0; \alpha_0 x, \sigma_0^2)}{\sum_k \mathcal N(z_0; \alpha_0 v_k, \sigma_0^2)},"
    r"\quad v_k = \tfrac{2k}{B - 1} - 1",
    source="[VDM] eq. 8", of=reference.levels_log_likelihood, against="Bayes over all levels, in 50 digits", bound=2e-14,
    seed=seeds(), gamma=st.floats(-20, 10), bins=st.integers(2, 256), examples=15,
)  # fmt: skip
def a_level_is_as_likely_as_its_share_of_all_densities(seed: int, gamma: float, bins: int) -> float:
    """In units of 1 and the exponents of the nearest levels, each of which is a rounded square."""
    rng = np.random.default_rng(seed)
    level = rng.integers(0, bins, 2)
    x, eps = np.linspace(-1, 1, bins)[level][None], rng.standard_normal((1, 2))
    y, _ = reference.levels_log_likelihood(x, eps, np.array([gamma]), bins)
    with mpmath.workdps(50):
        alpha, sigma = map(mpmath.sqrt, _level(gamma))
        total, size = mpmath.mpf(0), mpmath.mpf(1)
        for k, noise in zip(level.tolist(), eps[0].tolist(), strict=True):
            values = [mpmath.mpf(2 * j) / (bins - 1) - 1 for j in range(bins)]
            z = alpha * values[k] + sigma * noise
            exponents = [-(((z - alpha * v) / sigma) ** 2) / 2 for v in values]
            total += exponents[k] - mpmath.log(mpmath.fsum(map(mpmath.exp, exponents)))
            size += abs(exponents[k]) + abs(max(exponents))
        return float(abs(y[0] - total) / size)


@claim(
    r"f(t) = \frac{m(t) - m(0)}{m(1) - m(0)},\quad m(t) = |a|\, t + \frac1K \sum_k |w_k|\, \mathrm{sigmoid}(|u_k|\, t"
    r" + c_k)",
    source="[VDM] eq. 59, appendix H", of=reference.monotone, against="50-digit arithmetic, f and its derivative",
    bound=2e-14, seed=seeds(), units=st.integers(0, 12), size=st.sampled_from([0.1, 1.0, 10.0]), t=st.floats(0, 1),
)  # fmt: skip
def a_monotone_network_rises_from_0_to_1(seed: int, units: int, size: float, t: float) -> float:
    """Whatever the signs of its parameters, f in units of 1, f' relative to 1 and itself; at 0 and at 1 exactly."""
    rng = np.random.default_rng(seed)
    slope, (rate, shift, weight) = rng.uniform(0.5, 3, 1) * rng.choice([-1, 1]), size * rng.standard_normal((3, units))
    (f, f1), _ = reference.monotone(np.array([t, 0.0, 1.0]), slope, rate, shift, weight)
    if (f[1], f[2]) != (0, 1):
        return np.inf
    with mpmath.workdps(50):
        units_ = [tuple(map(mpmath.mpf, three)) for three in zip(rate.tolist(), shift.tolist(), weight.tolist(),
                                                                 strict=True)]  # fmt: skip

        def m(t: Any) -> Any:
            curves = [abs(w) / (1 + mpmath.exp(-abs(u) * t - c)) for u, c, w in units_]
            return abs(mpmath.mpf(slope[0])) * t + mpmath.fsum(curves) / max(units, 1)

        span, at = m(mpmath.mpf(1)) - m(mpmath.mpf(0)), mpmath.mpf(t)
        exact, derivative = (m(at) - m(mpmath.mpf(0))) / span, mpmath.diff(m, at) / span
        return float(max(abs(f[0] - exact), abs(f1[0] - derivative) / (1 + derivative)))


@claim(
    r"\big[x,\ \sin(2^n \pi x),\ \cos(2^n \pi x)\big]",
    source="[VDM] appendix C", of=reference.fourier_features, against="50-digit arithmetic", bound=1e-15, seed=seeds(),
    n=st.integers(0, 8),
)  # fmt: skip
def fourier_features_are_sines_of_all_octaves(seed: int, n: int) -> float:
    """In units of 1 and the angle, which is rounded."""
    x = np.random.default_rng(seed).uniform(-1, 1, (1, 5, 1))
    y, _ = reference.fourier_features(x, (n,))
    if not np.array_equal(y[..., :1], x):
        return np.inf
    with mpmath.workdps(50):
        angles = [mpmath.mpf(2) ** n * mpmath.pi * a for a in x.ravel().tolist()]
        pairs = zip(angles, y[0, :, 1].tolist(), y[0, :, 2].tolist(), strict=True)
        return float(max(max(abs(s - mpmath.sin(a)), abs(c - mpmath.cos(a))) / (1 + abs(a)) for a, s, c in pairs))


@claim(
    r"\gamma_t = \log\frac{1 - \bar\alpha_t}{\bar\alpha_t},\quad q(x_{t-1} \mid x_t, x_0) = \mathcal N\Big("
    r"\tfrac{\sqrt{\bar\alpha_{t-1}}\, \beta_t}{1 - \bar\alpha_t} x_0 + \tfrac{\sqrt{\alpha_t} (1 - \bar\alpha_{t-1})}"
    r"{1 - \bar\alpha_t} x_t,\ \tfrac{1 - \bar\alpha_{t-1}}{1 - \bar\alpha_t} \beta_t\Big),\quad \beta_t ="
    r" \mathrm{sigmoid}(l)",
    source="[DDPM] eqs. 6 and 7, [DPM]", of=reference.posterior_step, against="50-digit arithmetic", bound=2e-14,
    log_alpha_bar=st.floats(-9, 1.3).map(lambda e: -(10.0**e)), logit=st.floats(-20, 20),
)  # fmt: skip
def the_posterior_of_a_learned_beta_keeps_its_digits(log_alpha_bar: float, logit: float) -> float:
    """Of log alpha_bar_{t-1} from -1e-9 to -20 and logits of beta from -20 to 20: factors relative to themselves and to the
    exponents that they are powers of, logarithms in units of 1 and themselves."""
    actual, _ = reference.posterior_step(np.array([log_alpha_bar]), np.array([logit]))
    with mpmath.workdps(50):
        log, (alpha, beta) = mpmath.mpf(log_alpha_bar), _level(logit)
        before = mpmath.exp(log)
        now = before * alpha
        expected = (
            mpmath.log((1 - now) / now), mpmath.sqrt(before) * beta / (1 - now),
            mpmath.sqrt(alpha) * (1 - before) / (1 - now), mpmath.log(beta * (1 - before) / (1 - now)),
            mpmath.sqrt(alpha), mpmath.sqrt(beta),
        )  # fmt: skip
        logarithms = 0, 3
        return float(max(
            abs(a[0] - e) / ((1 + abs(e)) if i in logarithms else e)
            for i, (a, e) in enumerate(zip(actual, expected, strict=True))
        ))  # fmt: skip
