"""Claims about the likelihoods, divergences and draws that the bound of a variational autoencoder is made of."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...engines import reference
from ..claim import claim
from ..measures import gauss_hermite, normal_logpdf, relative_error
from ..strategies import seeds

log_variances: Any = st.floats(-30, 20)
apart: Any = st.floats(-9, 1).map(lambda e: 10**e)


def _exact(f: Any, *numbers: float) -> Any:
    """f of these numbers, in 50-digit arithmetic."""
    with mpmath.workdps(50):
        return f(*map(mpmath.mpf, numbers))


def _log_density(x: Any, mean: Any, log_variance: Any) -> tuple[Any, Any]:
    """log N(x; mean, e^l), and the sum of the sizes of its terms: l is rounded, and so is its power of e."""
    square = (x - mean) ** 2 * mpmath.exp(-log_variance)
    terms = square, log_variance, mpmath.log(2 * mpmath.pi)
    return -sum(terms) / 2, sum(map(abs, terms)) + abs(log_variance) * square


@claim(
    r"\log\mathcal N(x; \mu, e^l) = -\tfrac12 \sum_i \big((x_i - \mu_i)^2 e^{-l_i} + l_i + \log 2\pi\big)",
    source="[VAE] appendix C.2", of=reference.gaussian_log_likelihood, against="50-digit arithmetic", bound=1e-15,
    seed=seeds(), log_variance=log_variances, far=apart,
)  # fmt: skip
def a_gaussian_log_likelihood_is_that_of_its_density(seed: int, log_variance: float, far: float) -> float:
    """Of log variances from -30 to 20, one an element or one a sample, x 1e-9 to 10 deviations from the mean; in units of
    the terms."""
    rng = np.random.default_rng(seed)
    log = log_variance + rng.uniform(0, 1, (2, 3))
    mean, away = rng.standard_normal((2, 2, 3))
    x, errors = mean + far * np.exp(0.5 * log) * away, []
    for given in (log, log[:, 0]):
        y, _ = reference.gaussian_log_likelihood(x, mean, given)
        each = given if given.ndim == 2 else np.repeat(given[:, None], 3, axis=1)
        for n, value in enumerate(y.tolist()):
            done = [
                _exact(_log_density, *numbers)
                for numbers in zip(x[n].tolist(), mean[n].tolist(), each[n].tolist(), strict=True)
            ]
            errors.append(float(abs(value - sum(d for d, _ in done)) / sum(size for _, size in done)))
    return max(errors)


@claim(
    r"D_{KL}\big(\mathcal N(\mu, e^l)\,\|\,\mathcal N(\mu', e^{l'})\big) = \tfrac12 \sum_i \big(e^{d_i} - 1 - d_i"
    r" + (\mu_i - \mu'_i)^2 e^{-l'_i}\big),\quad d = l - l'",
    source="[VAE] appendix B", of=reference.gaussian_kl, against="50-digit arithmetic", bound=4e-15, seed=seeds(),
    log_variance=log_variances, gap=apart, far=apart,
)  # fmt: skip
def a_divergence_of_gaussians_keeps_its_digits(seed: int, log_variance: float, gap: float, far: float) -> float:
    """Relative to itself: of log variances from -30 to 20 that are 1e-9 to 10 apart, means 1e-9 to 10 deviations apart."""
    rng = np.random.default_rng(seed)
    log_p = np.full((1, 3), log_variance)
    log, mean_p = log_p + gap * rng.uniform(0.1, 1, (1, 3)) * rng.choice([-1, 1], 3), rng.standard_normal((1, 3))
    mean = mean_p + far * np.exp(0.5 * log_p) * rng.standard_normal((1, 3))
    y, _ = reference.gaussian_kl(mean, log, mean_p, log_p)

    def term(m: Any, log: Any, m_p: Any, log_p: Any) -> Any:
        return (mpmath.expm1(log - log_p) - (log - log_p) + (m - m_p) ** 2 * mpmath.exp(-log_p)) / 2

    exact = sum(
        _exact(term, *numbers) for numbers in zip(*(a[0].tolist() for a in (mean, log, mean_p, log_p)), strict=True)
    )
    return float(abs(y[0] / exact - 1))


@claim(
    r"D_{KL}(q \,\|\, p) = \mathbb E_{z \sim q}\big[\log q(z) - \log p(z)\big]",
    source="[VAE] appendix B", of=reference.gaussian_kl, against="Gauss-Hermite quadrature", bound=1e-13, seed=seeds(),
    log_variance=st.floats(-6, 4), other=st.floats(-6, 4),
)  # fmt: skip
def a_divergence_is_the_mean_of_a_ratio_of_logarithms(seed: int, log_variance: float, other: float) -> float:
    """In one dimension, of two Gaussians and of one and N(0, 1), in units of the terms; the ratio is a square in z, of which
    the quadrature makes no error."""
    mean, mean_p = np.random.default_rng(seed).standard_normal(2)
    errors = []
    for m_p, log_p in ((mean_p, other), (0.0, 0.0)):

        def ratio(z: np.ndarray, m_p: float = m_p, log_p: float = log_p) -> np.ndarray:
            return normal_logpdf(z, mean, np.exp(log_variance)) - normal_logpdf(z, m_p, np.exp(log_p))

        expected = gauss_hermite(ratio, mean, np.exp(0.5 * log_variance))
        second = (np.array([[m_p]]), np.array([[log_p]])) if log_p or m_p else ()
        y, _ = reference.gaussian_kl(np.array([[mean]]), np.array([[log_variance]]), *second)
        size = 1 + abs(log_variance - log_p) + np.exp(log_variance - log_p) + (mean - m_p) ** 2 * np.exp(-log_p)
        errors.append(abs(float(y[0]) - float(expected)) / size)
    return float(max(errors))


@claim(
    r"\nabla_{\mu, l}\, \mathbb E_{z \sim \mathcal N(\mu, e^l)} f(z) ="
    r" \mathbb E_{\epsilon \sim \mathcal N(0, 1)} \nabla_{\mu, l}\, f\big(\mu + e^{l/2} \epsilon\big)",
    source="[VAE] section 2.4", of=reference.reparameterise, against="the closed form of the mean of a cosine", bound=1e-13,
    mean=st.floats(-3, 3), log_variance=st.floats(-8, 1), frequency=st.floats(0.1, 2),
)  # fmt: skip
def the_gradient_of_a_draw_is_on_average_that_of_the_mean(mean: float, log_variance: float, frequency: float) -> float:
    """f(z) = cos(w z), whose mean is e^(-w^2 e^l / 2) cos(w mu): by quadrature over eps."""
    eps, share = np.polynomial.hermite_e.hermegauss(64)
    share, ones = share / share.sum(), np.ones_like(eps)
    z, saved = reference.reparameterise(mean * ones, log_variance * ones, eps)
    dmean, dlog = reference.reparameterise_backward(-frequency * np.sin(frequency * z), saved)
    decay, variance = np.exp(-0.5 * frequency**2 * np.exp(log_variance)), np.exp(log_variance)
    exact = [
        decay * np.cos(frequency * mean), -frequency * decay * np.sin(frequency * mean),
        -0.5 * frequency**2 * variance * decay * np.cos(frequency * mean),
    ]  # fmt: skip
    actual = [share @ np.cos(frequency * z), share @ dmean, share @ dlog]
    return relative_error(np.array(actual), np.array(exact), np.ones(1))


@claim(
    r"\log p(x \mid z) = \sum_i x_i \log p_i + (1 - x_i) \log(1 - p_i),\quad p = \frac{1}{1 + e^{-l}}",
    source="[VAE] appendix C.1", of=reference.bernoulli_log_likelihood, against="50-digit arithmetic", bound=1e-15,
    seed=seeds(), size=st.sampled_from([1e-3, 1.0, 30.0, 1e4]), bits=st.booleans(),
)  # fmt: skip
def a_bernoulli_log_likelihood_is_that_of_its_probabilities(seed: int, size: float, bits: bool) -> float:
    """Logits up to 1e4, of bits and of what lies between them: the value in units of 1 and the terms, the gradient, x - p,
    in units of 1."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 2, (1, 5)).astype(np.float64) if bits else rng.uniform(0, 1, (1, 5))
    logits = size * rng.uniform(-1, 1, (1, 5))
    y, saved = reference.bernoulli_log_likelihood(x, logits)
    g = reference.bernoulli_log_likelihood_backward(1.0, saved)
    total, scale, errors = mpmath.mpf(0), mpmath.mpf(1), []
    with mpmath.workdps(50):
        for a, logit, slope in zip(x[0].tolist(), logits[0].tolist(), g[0].tolist(), strict=True):
            log_p, log_not_p = (-mpmath.log1p(mpmath.exp(sign * mpmath.mpf(logit))) for sign in (-1, 1))
            total += a * log_p + (1 - mpmath.mpf(a)) * log_not_p
            scale += abs(mpmath.mpf(logit))
            errors.append(abs(slope - (a - mpmath.exp(log_p))))
        errors.append(abs(y[0] - total) / scale)
        return float(max(errors))


@claim(
    r"\log \frac1K \sum_k e^{x_k},\quad \frac{\partial}{\partial x_k} = \frac{e^{x_k}}{\sum_j e^{x_j}}",
    source="[IWAE] eq. 8", of=reference.log_mean_exp, against="50-digit arithmetic", bound=1e-15, seed=seeds(),
    k=st.integers(1, 20), size=st.sampled_from([1e-3, 1.0, 30.0, 1e4]), offset=st.sampled_from([0.0, -1e4, 1e5]),
)  # fmt: skip
def the_log_of_a_mean_of_weights_neither_overflows_nor_loses_digits(
    seed: int, k: int, size: float, offset: float
) -> float:
    """Of log weights of any size, wherever they lie, in units of 1 and the largest; the gradient, the normalised weights, in
    units of 1 and the largest difference of two."""
    x = size * np.random.default_rng(seed).uniform(-1, 1, (1, k)) + offset
    y, saved = reference.log_mean_exp(x)
    p = reference.log_mean_exp_backward(1.0, saved)
    with mpmath.workdps(50):
        powers = [mpmath.exp(mpmath.mpf(a)) for a in x[0].tolist()]
        total = mpmath.fsum(powers)
        largest, spread = float(np.abs(x).max()), float(np.ptp(x))
        error = abs(y[0] - mpmath.log(total / k)) / (1 + largest)
        errors = [abs(a - power / total) / (1 + spread) for a, power in zip(p[0].tolist(), powers, strict=True)]
        return float(max(error, *errors))


@claim(
    r"\mathcal L_1 \le \mathcal L_2 \le \log p(x),\quad \mathcal L_k = \mathbb E\Big[\log \tfrac1k \sum_{i=1}^k"
    r" \frac{p(x, z_i)}{q(z_i \mid x)}\Big]",
    source="[IWAE] eq. 8", of=reference.log_mean_exp, against="log p(x) and quadrature over one and two draws", bound=1e-12,
    x=st.floats(-2, 2), noise=st.floats(0.3, 2), mean=st.floats(-1, 1), log_ratio=st.floats(-1, 1), examples=15,
)  # fmt: skip
def more_importance_samples_tighten_the_bound(x: float, noise: float, mean: float, log_ratio: float) -> float:
    """z ~ N(0, 1), x ~ N(z, noise^2), and q(z|x) that misses the posterior; the error is how far the order fails, and how
    far the bound of one draw is from log p(x) less the divergence from the posterior."""
    variance = noise**2 / (1 + noise**2)  # of the posterior, whose mean is x / (1 + noise^2)
    log_q = np.log(variance) + log_ratio
    eps, share = np.polynomial.hermite_e.hermegauss(48)
    share = share / share.sum()
    z = mean + np.exp(0.5 * log_q) * eps
    log_w = normal_logpdf(z, 0, 1) + normal_logpdf(np.full_like(z, x), z, noise**2)
    log_w = log_w - normal_logpdf(z, mean, np.exp(log_q))
    pairs = np.stack(np.meshgrid(log_w, log_w, indexing="ij"), axis=-1).reshape(-1, 2)
    one = share @ reference.log_mean_exp(log_w[:, None])[0]
    two = share @ reference.log_mean_exp(pairs)[0].reshape(len(eps), -1) @ share
    log_p = float(normal_logpdf(np.array(x), 0, 1 + noise**2))
    gap, _ = reference.gaussian_kl(
        np.array([[mean]]), np.array([[log_q]]), np.array([[x / (1 + noise**2)]]), np.array([[np.log(variance)]])
    )
    return float(max(0.0, one - two, two - log_p, abs(one - (log_p - gap[0])) / (1 + gap[0])))
