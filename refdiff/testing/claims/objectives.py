"""Claims about the objectives: L_{t-1} as a weighted squared error, the losses made of that, and all their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...process import (
    PREDICTIONS,
    Schedule,
    bound_terms,
    convert,
    decoder_log_likelihood,
    decoder_log_likelihood_backward,
    error_scale,
    fixed_log_variance,
    kl_gaussian,
    kl_gaussian_backward,
    l_hybrid,
    l_hybrid_backward,
    l_simple,
    l_simple_backward,
    l_vlb_term,
    l_vlb_term_backward,
    l_weighted,
    l_weighted_backward,
    learned_log_variance,
    learned_log_variance_backward,
    min_snr_weight,
    p2_weight,
    posterior_log_variance,
    posterior_mean,
    posterior_variance,
    q_sample,
    step_log_variance,
    step_variance,
    target,
    vlb_weight,
)
from ..claim import claim
from ..derivatives import backward_errors
from ..measures import exact_alpha_bar, relative_error
from ..strategies import schedules, seeds, steps

plain: Any = schedules(respaced=False)
with_step: Any = plain.flatmap(lambda s: st.tuples(st.just(s), steps(s)))
late: Any = plain.filter(lambda s: s.T > 1).flatmap(lambda s: st.tuples(st.just(s), steps(s, first=2)))
longer: Any = schedules(max_T=40).filter(lambda s: s.T > 1)
fixed_variances: Any = st.sampled_from(
    [(posterior_log_variance, posterior_variance), (step_log_variance, step_variance)]
)


# L_{t-1} as a weighted squared error, and the losses made of that.


@claim(
    r"L_{t-1} = \mathrm{KL}(q(x_{t-1} \mid x_t, x_0) \,\|\, p(x_{t-1} \mid x_t))",
    source="[DDPM] eq. 5", of=l_vlb_term, against="50-digit arithmetic, from beta", bound=1e-14, case=late, seed=seeds(),
)  # fmt: skip
def a_denoising_term_is_the_divergence_from_the_posterior(case: tuple[Schedule, int], seed: int) -> float:
    """For any mean and log variance of p near the posterior's, relative to what rounding the mean must do."""
    schedule, t = case
    x0, eps, off, more = np.random.default_rng(seed).standard_normal((4, 6, 1))
    x_t, sigma = q_sample(schedule, x0, t, eps), np.sqrt(posterior_variance(schedule, t))
    mean = posterior_mean(schedule, x_t, x0, t) + sigma * off
    log_variance = fixed_log_variance(schedule, x_t, t) + more
    actual, _ = l_vlb_term(schedule, x0, x_t, t, mean, log_variance, unit="nats")
    expected = []
    with mpmath.workdps(50):
        before, now = (exact_alpha_bar(schedule.beta, 0, s) for s in (t - 1, t))
        beta = mpmath.mpf(float(schedule.beta[t]))
        of_x0, of_xt = mpmath.sqrt(before) * beta / (1 - now), mpmath.sqrt(1 - beta) * (1 - before) / (1 - now)
        variance = beta * (1 - before) / (1 - now)
        for a, b, m, lv in zip(x0[:, 0], x_t[:, 0], mean[:, 0], log_variance[:, 0], strict=True):
            square = (
                variance + (of_x0 * mpmath.mpf(float(a)) + of_xt * mpmath.mpf(float(b)) - mpmath.mpf(float(m))) ** 2
            )
            lv = mpmath.mpf(float(lv))
            expected.append(float((lv - mpmath.log(variance) + square * mpmath.exp(-lv) - 1) / 2))
    rounding = np.abs(off) * (np.abs(x0) + np.abs(x_t)) * sigma * np.exp(-log_variance)
    return relative_error(
        actual,
        expected,
        scale=np.abs(expected) + rounding[:, 0] + np.abs(log_variance[:, 0]) * abs(np.expm1(-more[:, 0])),
    )


@claim(
    r"L_{t-1} = w\, \|y - \hat y\|^2 + \mathrm{const},\quad"
    r" w_\mu = \frac{1}{2\sigma_t^2},\ w_\epsilon = \frac{\beta_t^2}{2\sigma_t^2 \alpha_t (1 - \bar\alpha_t)},"
    r"\ w_{x_0} = \frac{\bar\alpha_{t-1}\beta_t^2}{2\sigma_t^2 (1 - \bar\alpha_t)^2}",
    source="[DDPM] eqs. 8 and 12", of=vlb_weight, against="the divergence itself, for y of every kind of prediction",
    bound=1e-13, case=late, kind=st.sampled_from(PREDICTIONS), fixed=fixed_variances, seed=seeds(), examples=60,
)  # fmt: skip
def a_denoising_term_is_a_weighted_squared_error(case: tuple[Schedule, int], kind: str, fixed: Any, seed: int) -> float:
    """L_{t-1} of a wrong prediction less that of the right one, for either fixed variance."""
    (schedule, t), (log_variance, variance) = case, fixed
    x0, eps, off = np.random.default_rng(seed).standard_normal((3, 20, 1))
    x_t, right = q_sample(schedule, x0, t, eps), target(schedule, kind, x0, eps, t)
    weight, sigma2 = float(vlb_weight(schedule, t, kind, variance)), float(variance(schedule, t))
    wrong = right + off / np.sqrt(weight)  # so that L_{t-1} is about 1
    at = fixed_log_variance(schedule, x_t, t, log_variance)

    def term(y: np.ndarray) -> np.ndarray:
        return l_vlb_term(schedule, x0, x_t, t, convert(schedule, x_t, t, y, kind, "mu"), at, unit="nats")[0]

    # Of the prediction a last digit is lost, of mu as many as its size has above sigma.
    lost = 1 + (np.abs(x0) + np.abs(x_t)) / np.sqrt(sigma2) + np.sqrt(weight) * np.abs(wrong)
    expected = weight * (wrong - right) ** 2
    return relative_error(
        term(wrong) - term(right), expected[:, 0], scale=expected + 2 * np.abs(off) * lost + term(right).mean()
    )


@claim(
    r"w_\epsilon = \frac{\beta_t^2}{2\sigma_t^2\, \alpha_t\, (1 - \bar\alpha_t)}",
    source="[DDPM] eq. 12", of=vlb_weight, against="50-digit arithmetic, for both fixed variances", bound=1e-14, case=late,
)  # fmt: skip
def the_weight_of_the_error_of_eps_is_the_papers(case: tuple[Schedule, int]) -> float:
    """With sigma_t^2 = beta_t, and with the posterior's."""
    schedule, t = case
    with mpmath.workdps(50):
        before, now = (exact_alpha_bar(schedule.beta, 0, s) for s in (t - 1, t))
        beta = mpmath.mpf(float(schedule.beta[t]))
        expected = [
            float(beta**2 / (2 * s2 * (1 - beta) * (1 - now))) for s2 in (beta, beta * (1 - before) / (1 - now))
        ]
    return max(
        relative_error(vlb_weight(schedule, t, "eps", v), w)
        for v, w in zip((step_variance, posterior_variance), expected, strict=True)
    )


@claim(
    r"w_{x_0} = \tfrac12\big(\mathrm{SNR}(t-1) - \mathrm{SNR}(t)\big),\quad"
    r" \mathrm{SNR}(t) = \frac{\bar\alpha_t}{1 - \bar\alpha_t}",
    source="[VDM] eq. 13, section 4", of=vlb_weight, against="50-digit arithmetic", bound=1e-14, case=late,
)  # fmt: skip
def the_weight_of_the_error_of_x0_is_half_the_loss_of_signal(case: tuple[Schedule, int]) -> float:
    """For sigma_t^2 the posterior's variance."""
    schedule, t = case
    with mpmath.workdps(50):
        before, now = (exact_alpha_bar(schedule.beta, 0, s) for s in (t - 1, t))
        expected = float((before / (1 - before) - now / (1 - now)) / 2)
    return relative_error(vlb_weight(schedule, t, "x0"), expected)


@claim(
    r"L_{\mathrm{simple}} = \mathbb E\Big[\frac{1}{w_t} L_{t-1}\Big],\quad"
    r" \mathbb E[w_t\,\|\epsilon - \hat\epsilon\|^2] = \mathbb E[L_{t-1}]",
    source="[DDPM] eq. 14", of=l_weighted, against="the denoising terms, t drawn for each sample", bound=1e-13,
    schedule=longer, seed=seeds(),
)  # fmt: skip
def the_simple_loss_is_the_bound_reweighted(schedule: Schedule, seed: int) -> float:
    """With the posterior's variance, where no constant is left: each L_{t-1} a dimension over its weight, averaged."""
    rng = np.random.default_rng(seed)
    t = rng.integers(2, schedule.T + 1, 12)
    x0, eps, eps_hat = rng.standard_normal((3, 12, 5))
    x_t, weight = q_sample(schedule, x0, t, eps), vlb_weight(schedule, t)
    mean, at = convert(schedule, x_t, t, eps_hat, "eps", "mu"), fixed_log_variance(schedule, x_t, t)
    term = l_vlb_term(schedule, x0, x_t, t, mean, at, unit="nats")[0] / 5
    lost = 1 + (1 / np.sqrt(weight * posterior_variance(schedule, t))).max()  # digits of mu above its error
    simple = relative_error(l_simple(eps_hat, eps)[0], (term / weight).mean())
    return max(simple, relative_error(l_weighted(eps_hat, eps, weight)[0], term.mean())) / lost


@claim(
    r"\epsilon - \hat\epsilon = c\,(y - \hat y),\quad c^2_{x_0} = \mathrm{SNR}(t),\ c^2_v = \bar\alpha_t,"
    r"\ c^2_{\nabla\log q} = 1 - \bar\alpha_t,\ c^2_\mu = \alpha_t (1 - \bar\alpha_t) / \beta_t^2",
    source="[PD] section 4", of=error_scale, against="complex steps through the conversions to eps", bound=1e-14,
    case=with_step, kind=st.sampled_from(PREDICTIONS), seed=seeds(),
)  # fmt: skip
def an_error_of_any_prediction_is_a_multiple_of_the_error_of_eps(
    case: tuple[Schedule, int], kind: str, seed: int
) -> float:
    """The same multiple for every x_t, so each weighting for eps is one for every other prediction."""
    schedule, t = case
    x_t, y = np.random.default_rng(seed).standard_normal((2, 5))
    slope = convert(schedule, x_t + 0j, t, y + 1e-30j, kind, "eps").imag / 1e-30
    return relative_error(slope**2, np.full(5, error_scale(schedule, t, kind)))


@claim(
    r"w_{x_0} = \min(\mathrm{SNR}, \gamma),\quad w_\epsilon = \min(\mathrm{SNR}, \gamma) / \mathrm{SNR},\quad"
    r" w_v = \min(\mathrm{SNR}, \gamma) / (\mathrm{SNR} + 1)",
    source="[MinSNR] section 3.4", of=min_snr_weight, bound=1e-13,
    against="50-digit arithmetic, and one denoiser's losses in all three",
    case=with_step, gamma=st.floats(0.5, 20), seed=seeds(),
)  # fmt: skip
def min_snr_weights_make_one_loss_of_every_prediction(case: tuple[Schedule, int], gamma: float, seed: int) -> float:
    """Weights as published, and the weighted losses of eps_hat, x0_hat and v_hat of one denoiser are equal."""
    schedule, t = case
    with mpmath.workdps(50):
        abar = exact_alpha_bar(schedule.beta, 0, t)
        snr = abar / (1 - abar)
        held = min(snr, mpmath.mpf(gamma))
        expected = {"x0": float(held), "eps": float(held / snr), "v": float(held / (snr + 1))}
    actual = {kind: min_snr_weight(schedule, t, kind, gamma) for kind in expected}
    x0, eps, off = np.random.default_rng(seed).standard_normal((3, 8))
    x_t = q_sample(schedule, x0, t, eps)
    right = target(schedule, "v", x0, eps, t)
    losses = []
    for kind in expected:
        y_hat, y = (convert(schedule, x_t, t, v, "v", kind) for v in (right + off, right))
        losses.append(float(l_weighted(y_hat, y, actual[kind])[0]))
    # x0 and eps come from v by multiplying, but the error of each is smaller than v's by a factor.
    small_part = min(schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t]) ** 0.5
    return max(
        *(relative_error(actual[kind], expected[kind]) for kind in expected),
        *(relative_error(loss, losses[-1]) * small_part for loss in losses),
    )


@claim(
    r"w_\epsilon = (k + \mathrm{SNR}(t))^{-\gamma}",
    source="[P2] section 3.3", of=p2_weight, against="50-digit arithmetic", bound=1e-14, case=with_step,
    gamma=st.floats(0, 2), k=st.floats(0.1, 2),
)  # fmt: skip
def p2_weights_fall_with_the_signal(case: tuple[Schedule, int], gamma: float, k: float) -> float:
    """For eps as published; for x_0 times the SNR, since an error of eps is sqrt(SNR) times that of x_0."""
    schedule, t = case
    with mpmath.workdps(50):
        abar = exact_alpha_bar(schedule.beta, 0, t)
        snr = abar / (1 - abar)
        expected = float((k + snr) ** -mpmath.mpf(gamma)), float(snr * (k + snr) ** -mpmath.mpf(gamma))
    return max(
        relative_error(p2_weight(schedule, t, kind, gamma, k), w)
        for kind, w in zip(("eps", "x0"), expected, strict=True)
    )


@claim(
    r"\log\sigma_t^2 = \tfrac{1+v}{2} \log\beta_t + \tfrac{1-v}{2} \log\tilde\beta_t",
    source="[IDDPM] eq. 15", of=learned_log_variance, against="50-digit arithmetic", bound=1e-14, case=late,
    v=st.floats(-1, 1),
)  # fmt: skip
def learned_log_variances_lie_between_the_two_extremes(case: tuple[Schedule, int], v: float) -> float:
    """And at v = -1 and 1 are they."""
    schedule, t = case
    with mpmath.workdps(50):
        before, now = (exact_alpha_bar(schedule.beta, 0, s) for s in (t - 1, t))
        high = mpmath.log(mpmath.mpf(float(schedule.beta[t])))
        low = high + mpmath.log((1 - before) / (1 - now))
        expected = [float(high * (1 + mpmath.mpf(u)) / 2 + low * (1 - mpmath.mpf(u)) / 2) for u in (-1.0, v, 1.0)]
    actual, _ = learned_log_variance(schedule, np.array([-1.0, v, 1.0]), t)
    low, high = posterior_log_variance(schedule, t), step_log_variance(schedule, t)
    inside = low <= actual[1] <= high + 1e-15 * abs(low)
    return relative_error(actual, expected, scale=np.abs(expected) + 1) if inside else np.inf


@claim(
    r"L_{\mathrm{hybrid}} = L_{\mathrm{simple}} + \lambda L_{\mathrm{vlb}}",
    source="[IDDPM] eq. 16", of=l_hybrid, against="the simple loss and all terms of the bound, one by one", bound=1e-13,
    schedule=schedules(max_T=20), weight=st.floats(1e-3, 1), bins=st.sampled_from([None, 17]), seed=seeds(),
)  # fmt: skip
def the_hybrid_loss_of_every_t_once_is_the_simple_loss_and_the_bound(
    schedule: Schedule, weight: float, bins: int | None, seed: int
) -> float:
    """One image, shown at t = 1 .. T: what is missing of the bound is L_T, which no network changes."""
    rng, T = np.random.default_rng(seed), schedule.T
    x0 = np.repeat(rng.integers(0, 17, (1, 3)) / 8 - 1, T, axis=0)
    t, eps = np.arange(1, T + 1), rng.standard_normal((T, 3))
    output = np.concatenate([eps + 0.3 * rng.standard_normal((T, 3)), rng.uniform(-1, 1, (T, 3))], axis=1)
    actual, _ = l_hybrid(schedule, "eps", x0, eps, t, output, weight, bins)

    def reverse(x_t: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
        eps_hat, v = output[t - 1 : t, :3], output[t - 1 : t, 3:]
        return convert(schedule, x_t, t, eps_hat, "eps", "mu"), learned_log_variance(schedule, v, t)[0]

    terms = bound_terms(schedule, reverse, x0[:1], lambda t: eps[t - 1 : t], bins)[:-1]
    expected = l_simple(output[:, :3], eps)[0] + weight * terms.sum()
    return relative_error(actual, expected, scale=l_simple(output[:, :3], eps)[0] + weight * np.abs(terms).sum())


# Gradients.


def objectives(
    schedule: Schedule, rng: np.random.Generator, bins: int | None
) -> dict[str, tuple[Callable, Callable, tuple]]:
    """Forward, backward and inputs of each objective that is differentiated."""
    t = np.append(rng.integers(1, schedule.T + 1, 4), 1)
    x0, eps = rng.integers(0, 17, (5, 4)) / 8 - 1, rng.standard_normal((5, 4))
    x_t = q_sample(schedule, x0, t, eps)
    sigma = np.exp(0.5 * fixed_log_variance(schedule, x_t, t))
    mean = posterior_mean(schedule, x_t, x0, t) + sigma * rng.standard_normal((5, 4))
    log_variance = 2 * np.log(sigma) + 0.5 * rng.standard_normal((5, 4))
    weight = p2_weight(schedule, t)
    return {
        "l_weighted": (lambda y: l_weighted(y, eps, weight), l_weighted_backward, (eps + rng.standard_normal((5, 4)),)),
        "kl_gaussian": (kl_gaussian, kl_gaussian_backward, tuple(rng.standard_normal((4, 5, 4)))),
        "decoder": (
            lambda m, l: decoder_log_likelihood(x0, m, l, bins),
            decoder_log_likelihood_backward,
            (x0 + np.exp(rng.uniform(-4, 1)) * rng.standard_normal((5, 4)), rng.uniform(-8, 2, (5, 4))),
        ),
        "l_vlb_term": (
            lambda m, l: l_vlb_term(schedule, x0, x_t, t, m, l, bins),
            l_vlb_term_backward,
            (mean, log_variance),
        ),
        "learned_log_variance": (
            lambda v: learned_log_variance(schedule, v, t),
            learned_log_variance_backward,
            (rng.standard_normal((5, 4)),),
        ),
    }


@claim(
    r"\nabla L\ \text{of } L_w,\ \mathrm{KL},\ \log p(x_0 \mid x_1),\ L_{t-1},\ \log\sigma_t^2(v)",
    source="[ComplexStep]", of=l_vlb_term_backward, against="complex-step derivatives", bound=1e-13, examples=60,
    which=st.sampled_from(["l_weighted", "kl_gaussian", "decoder", "l_vlb_term", "learned_log_variance"]),
    schedule=schedules(), bins=st.sampled_from([None, 17]), seed=seeds(),
)  # fmt: skip
def the_gradient_of_every_objective_is_its_derivative(
    which: str, schedule: Schedule, bins: int | None, seed: int
) -> float:
    """By mean and by log variance where there are both, t drawn for each sample, t = 1 among them."""
    rng = np.random.default_rng(seed)
    return max(backward_errors(*objectives(schedule, rng, bins)[which], rng).values())


@claim(
    r"\nabla_{\hat\epsilon} L_{\mathrm{hybrid}} = \nabla_{\hat\epsilon} L_{\mathrm{simple}},\quad"
    r" \nabla_v L_{\mathrm{hybrid}} = \lambda \nabla_v L_{\mathrm{vlb}}",
    source="[IDDPM] section 3.1", of=l_hybrid_backward, against="complex steps, and the simple loss's own gradient",
    bound=1e-13, schedule=schedules(), kind=st.sampled_from(["eps", "x0", "v"]), bins=st.sampled_from([None, 17]),
    seed=seeds(),
)  # fmt: skip
def only_the_variance_learns_from_the_hybrid_losss_bound(
    schedule: Schedule, kind: str, bins: int | None, seed: int
) -> float:
    """In the bound the predicted mean counts as a constant, so that its noisy gradient is not followed."""
    rng = np.random.default_rng(seed)
    t = np.append(rng.integers(1, schedule.T + 1, 3), 1)
    x0, eps = rng.integers(0, 17, (4, 3)) / 8 - 1, rng.standard_normal((4, 3))
    right = target(schedule, kind, x0, eps, t)
    output = np.concatenate([right + 0.1 * rng.standard_normal((4, 3)), rng.uniform(-1, 1, (4, 3))], axis=1)

    def forward(y: np.ndarray) -> Any:
        return l_hybrid(schedule, kind, x0, eps, t, y, 0.1, bins)

    simple = l_simple_backward(np.float64(1), l_simple(output[:, :3], right)[1])
    gradient = l_hybrid_backward(np.float64(1), forward(output)[1])
    return max(
        *backward_errors(forward, l_hybrid_backward, (output,), rng).values(), relative_error(gradient[:, :3], simple)
    )
