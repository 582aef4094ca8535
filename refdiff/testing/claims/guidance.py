"""Claims about what is done to a schedule or a prediction on the way: zero terminal SNR, guidance, thresholds."""

from __future__ import annotations

from functools import partial
from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...process import (
    PREDICTIONS,
    GaussianMixture,
    Schedule,
    ancestral_step,
    classifier_free_guidance,
    classifier_guidance,
    classifier_shift,
    convert,
    dynamic_threshold,
    posterior_variance,
    predictor,
    q_sample,
    rescale_zero_terminal_snr,
    rescaled_guidance,
    step_variance,
)  # fmt: skip
from ..claim import claim
from ..measures import exact_alpha_bar, gauss_hermite, relative_error
from ..orders import even_log_sigma
from ..strategies import pairs, schedules, seeds, steps

with_step: Any = schedules(respaced=False).flatmap(lambda s: st.tuples(st.just(s), steps(s)))
with_pair: Any = schedules().flatmap(lambda s: st.tuples(st.just(s), pairs(s, strict=True)))
variances: Any = st.sampled_from([posterior_variance, step_variance])


@claim(
    r"\sqrt{\bar\alpha'_t} = \sqrt{\bar\alpha_1}\; \frac{\sqrt{\bar\alpha_t} - \sqrt{\bar\alpha_T}}"
    r"{\sqrt{\bar\alpha_1} - \sqrt{\bar\alpha_T}}, \qquad \beta'_T = 1",
    source="[Lin24] algorithm 1", of=rescale_zero_terminal_snr, against="50-digit arithmetic", bound=1e-14,
    schedule=schedules(respaced=False).filter(lambda s: s.T > 1), seed=seeds(),
)  # fmt: skip
def rescaling_takes_the_terminal_signal_to_exactly_zero(schedule: Schedule, seed: int) -> float:
    """alpha_bar and 1 - alpha_bar at 1 and at a random t; alpha_bar_T = 0 to the last bit; a second time changes nothing."""
    rescaled = rescale_zero_terminal_snr(schedule)
    if rescaled.alpha_bar[-1] != 0 or rescaled.beta[-1] != 1:
        return np.inf
    worst = relative_error(rescale_zero_terminal_snr(rescaled).beta, rescaled.beta)
    for t in {1, int(np.random.default_rng(seed).integers(1, schedule.T))}:
        with mpmath.workdps(50):
            first, now, last = (mpmath.sqrt(exact_alpha_bar(schedule.beta, 0, s)) for s in (1, t, schedule.T))
            abar = (first * (now - last) / (first - last)) ** 2
            expected = [float(abar), float(1 - abar)]
        worst = max(worst, *map(relative_error, (rescaled.alpha_bar[t], rescaled.one_minus_alpha_bar[t]), expected))
    return worst


# --- guidance ---


@claim(
    r"\nabla \log p(x_t \mid y) = \nabla \log p(x_t) + \nabla \log p(y \mid x_t)",
    source="[ADM] eq. 14", of=classifier_guidance, against="the perfect denoiser of the class alone", bound=1e-10,
    case=with_step, seed=seeds(), kind=st.sampled_from(PREDICTIONS),
)  # fmt: skip
def classifier_guidance_at_scale_1_is_the_conditional_prediction(
    case: tuple[Schedule, int], seed: int, kind: str
) -> float:
    """For two Gaussian classes p(y | x_t) is logistic in the difference of two quadratics, with its gradient by hand; scale
    0 changes nothing. Any kind of prediction; relative to what the kind divides by."""
    schedule, t = case
    rng = np.random.default_rng(seed)
    roots, means = 0.5 * rng.standard_normal((2, 2, 2)), rng.standard_normal((2, 2))
    x = 1.5 * rng.standard_normal((10, 2))
    covariances = roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(2)
    both = GaussianMixture(np.array([0.3, 0.7]), means, covariances)
    one = GaussianMixture(np.ones(1), means[:1], covariances[:1])
    away = x[:, None] - np.sqrt(schedule.alpha_bar[t]) * means  # (N, 2, D)
    spread = schedule.alpha_bar[t] * covariances + schedule.one_minus_alpha_bar[t] * np.eye(2)
    pull = np.linalg.solve(spread, away.transpose(1, 2, 0)).transpose(2, 0, 1)
    logs = np.log([0.3, 0.7]) - 0.5 * ((pull * away).sum(axis=-1) + np.log(np.linalg.det(spread)))
    other = 1 / (1 + np.exp(logs[:, 0] - logs[:, 1]))  # 1 - p(y = 0 | x_t)
    dlog_p = other[:, None] * (pull[:, 1] - pull[:, 0])
    plain, expected = (convert(schedule, x, t, d.eps(schedule, x, t), "eps", kind) for d in (both, one))
    guided, same = (classifier_guidance(schedule, x, t, plain, dlog_p, scale, kind) for scale in (1.0, 0.0))
    at_0, at_1 = (convert(schedule, x, t, np.full_like(x, e), "eps", kind) for e in (0.0, 1.0))
    scale = np.abs(expected) + np.abs(plain) + np.abs(at_1 - at_0) * (1 + np.abs(x))
    return max(relative_error(guided, expected, scale), relative_error(same, plain, scale))


@claim(
    r"p(x_s \mid x_t)\, p(y \mid x_s) \propto \mathcal N(\mu + \sigma^2 g,\ \sigma^2), \quad"
    r" \log p(y \mid x) = g x + \mathrm{const}",
    source="[ADM] eq. 10", of=classifier_shift, against="quadrature of the product of the two", bound=1e-12, case=with_pair,
    variance=variances, seed=seeds(), scale=st.floats(0, 2),
)  # fmt: skip
def the_mean_shift_multiplies_a_step_by_the_classifier(
    case: tuple[Schedule, tuple[int, int]], variance: Any, seed: int, scale: float
) -> float:
    """For a log probability that is linear, whose density is the step's, tilted; with a scale, to that power. Where the step
    adds no noise nothing but the variance is left of it: the shift is its mean all the same."""
    schedule, (s, t) = case
    rng = np.random.default_rng(seed)
    x, x0_hat, slope = rng.standard_normal((3, 1))
    sigma = float(np.sqrt(variance(schedule, t, s)))
    g = slope / sigma if sigma else slope  # of the size that a classifier with an opinion has

    def step(eps: np.ndarray, shift: Any = None) -> np.ndarray:
        every = np.ones_like(eps)
        return ancestral_step(schedule, x * every, t, s, x0_hat * every, eps, variance, shift)

    shift = classifier_shift(lambda x, t: g * np.ones_like(x), scale)
    zero = np.zeros(1)
    plain, shifted = step(zero), step(zero, shift)
    if s == 0:
        return relative_error(shifted, plain + scale * sigma**2 * g, scale=np.abs(plain) + scale * sigma**2 * np.abs(g))
    mass, first, second = (
        gauss_hermite(lambda z, k=k: np.exp(scale * g * sigma * z) * z**k)  # type: ignore[misc]
        for k in range(3)
    )
    mean, square = first / mass, second / mass
    spread = gauss_hermite(lambda z: (step(z, shift) - plain) ** 2) / sigma**2
    size = 1 + (np.abs(x) + np.abs(x0_hat)) / sigma
    return max(
        relative_error((shifted - plain) / sigma, [mean], scale=size),
        relative_error(spread, square, scale=square * size),
    )


@claim(
    r"\beta_{t|s}\, \nabla \log p(y \mid x_t) = \sqrt{\alpha_{t|s}}\,"
    r" \big(\mu(x_t, \hat\epsilon - \sqrt{1 - \bar\alpha_t}\, \nabla \log p(y \mid x_t)) - \mu(x_t, \hat\epsilon)\big)",
    source="[ADM] algorithms 1 and 2", of=classifier_shift, against="the score form, by way of x0_hat", bound=1e-12,
    case=with_pair, seed=seeds(), scale=st.floats(0.1, 5),
)  # fmt: skip
def the_two_forms_of_classifier_guidance_differ_by_a_root_of_alpha(
    case: tuple[Schedule, tuple[int, int]], seed: int, scale: float
) -> float:
    """With the variance beta_{t|s}: the same move of the mean but for a factor that is 1 for small steps."""
    schedule, (s, t) = case
    x, eps_hat, dlog_p = np.random.default_rng(seed).standard_normal((3, 5))
    guided = classifier_guidance(schedule, x, t, eps_hat, dlog_p, scale)
    plain, by_score = (
        ancestral_step(schedule, x, t, s, convert(schedule, x, t, e, "eps", "x0"), 0 * x) for e in (eps_hat, guided)
    )
    x0_hat = convert(schedule, x, t, eps_hat, "eps", "x0")
    shift = classifier_shift(lambda x, t: dlog_p, scale)
    by_shift = ancestral_step(schedule, x, t, s, x0_hat, 0 * x, step_variance, shift)
    root = float(np.sqrt(schedule.between(s, t)[0]))
    size = np.abs(x) + np.abs(eps_hat) + scale * np.abs(dlog_p)
    return relative_error(by_shift - plain, root * (by_score - plain), scale=size)


@claim(
    r"\hat\epsilon = (1 + w)\, \hat\epsilon(x_t, y) - w\, \hat\epsilon(x_t),\quad w = \text{scale} - 1",
    source="[CFG] eq. 6", of=classifier_free_guidance, against="the formula, in eps and in every other kind of prediction",
    bound=1e-13, case=with_step, seed=seeds(), kind=st.sampled_from(PREDICTIONS), scale=st.floats(0, 8),
)  # fmt: skip
def classifier_free_guidance_is_the_same_in_every_kind_of_prediction(
    case: tuple[Schedule, int], seed: int, kind: str, scale: float
) -> float:
    """Scale 0 is the unconditional prediction, 1 the conditional one; guiding and converting may change places."""
    schedule, t = case
    x, with_y, without = np.random.default_rng(seed).standard_normal((3, 20))

    def turned(eps: np.ndarray) -> np.ndarray:
        return convert(schedule, x, t, eps, "eps", kind)

    guided = scale * with_y - (scale - 1) * without
    size = [np.abs(turned(with_y)), np.abs(turned(without)), np.abs(turned(0 * x)), np.abs(turned(x) - turned(0 * x))]
    size_of = (1 + scale) * sum(size)
    ends = [classifier_free_guidance(with_y, without, s) for s in (0.0, 1.0)]
    return max(
        relative_error(
            classifier_free_guidance(with_y, without, scale), guided, (1 + scale) * np.hypot(with_y, without)
        ),
        relative_error(classifier_free_guidance(turned(with_y), turned(without), scale), turned(guided), size_of),
        relative_error(ends, [without, with_y]),
    )


@claim(
    r"\sigma_c = \mathrm{sd}(x_c),\ \sigma_g = \mathrm{sd}(x_g), \qquad x ="
    r" \phi\, x_g\, \frac{\sigma_c}{\sigma_g} + (1 - \phi)\, x_g",
    source="[Lin24] eqs. 14 to 16", of=rescaled_guidance, against="the formula in 50-digit arithmetic", bound=1e-14,
    seed=seeds(), phi=st.floats(0, 1), scale=st.floats(-2, 9), n=st.integers(2, 12), offset=st.floats(-3, 3),
)  # fmt: skip
def rescaled_guidance_has_the_contrast_of_the_conditional_prediction(
    seed: int, phi: float, scale: float, n: int, offset: float
) -> float:
    """Each sample by its own deviation over all elements; with phi = 1 it is the conditional one's, phi = 0 leaves it."""
    conditional, empty = np.random.default_rng(seed).standard_normal((2, 2, n, 3)) + offset
    guided = classifier_free_guidance(conditional, empty, scale)
    actual, size = rescaled_guidance(conditional, guided, phi), (1 + abs(offset)) * (1 + abs(scale))
    worst = 0.0 if np.array_equal(rescaled_guidance(conditional, guided, 0.0), guided) else np.inf
    for i in range(2):
        with mpmath.workdps(50):
            ours, theirs = (_deviation(x[i]) for x in (conditional, guided))
            factor = float(phi * ours / theirs + 1 - mpmath.mpf(phi))
        worst = max(worst, relative_error(actual[i], factor * guided[i], scale=size * (1 + factor)))
        if phi > 0:
            full = rescaled_guidance(conditional, guided, 1.0)[i]
            worst = max(worst, relative_error(full.std(), float(ours), scale=size))
    return worst


def _deviation(x: np.ndarray) -> Any:
    """The root of the mean square about the mean."""
    values = [mpmath.mpf(v) for v in x.ravel().tolist()]
    mean = mpmath.fsum(values) / len(values)
    return mpmath.sqrt(mpmath.fsum((v - mean) ** 2 for v in values) / len(values))


@claim(
    r"\hat x_0 \leftarrow \mathrm{clip}(\hat x_0, -m, m) / m,\quad m = \max(1,\ \text{quantile of } |\hat x_0|)",
    source="[Imagen] section 2.3", of=dynamic_threshold, against="numpy.quantile, sample by sample", bound=1e-15,
    seed=seeds(), quantile=st.floats(0, 1), size=st.floats(0.1, 3), n=st.integers(1, 40),
)  # fmt: skip
def dynamic_thresholding_brings_a_sample_into_range(seed: int, quantile: float, size: float, n: int) -> float:
    """The result lies within [-1, 1], and a sample whose quantile does is only clipped; as `clip_x0` of a predictor, x_t is
    still sqrt(abar_t) x0_hat + sqrt(1 - abar_t) eps_hat."""
    x0 = size * np.random.default_rng(seed).standard_normal((4, n, 2))
    actual = dynamic_threshold(x0, quantile)
    limits = [max(1.0, np.quantile(np.abs(x), quantile)) for x in x0]
    expected = np.array([np.clip(x, -m, m) / m for x, m in zip(x0, limits, strict=True)])
    schedule = even_log_sigma(9)
    x0_hat, eps_hat = predictor(schedule, lambda x, t: x0, "x0", partial(dynamic_threshold, quantile=quantile))(x0, 5)
    whole = relative_error(q_sample(schedule, x0_hat, 5, eps_hat), x0, scale=2 * np.abs(x0) + 1)
    return (
        max(relative_error(actual, expected), relative_error(x0_hat, actual), whole)
        if np.abs(actual).max() <= 1
        else np.inf
    )
