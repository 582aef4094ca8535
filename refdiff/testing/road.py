"""The road from the bound of a variational autoencoder to L_simple, walked on one example: a line of mathematics, the
function that computes it, and the number it gave.

The example is one number x_0 = 0.8, a schedule of three steps, and Gaussian decoders of a network that predicts
eps_hat = sqrt(1 - alpha_bar_t) x_t + 0.3 sin x_t, which is no perfect denoiser. Nothing is drawn: each mean is an integral,
by Gauss-Hermite over the latents where it is a mean of q, by the trapezoid rule where it is an integral of p.
docs/from-vae-to-diffusion.md is made of it by `python -m refdiff.testing.report docs`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..process import (
    bound_terms,
    consistency_terms,
    denoising_terms,
    joint_ratio,
    kl_gaussian,
    l_simple,
    l_weighted,
    path_densities,
    posterior_log_variance,
    prior_matching,
    q_moments,
    q_sample,
    vlb_weight,
)  # fmt: skip
from .road_example import (
    DATA,
    NODES,
    ONE_LATENT,
    SCHEDULE,
    averaged_divergences,
    decoder_variance,
    decoders,
    eps_hat,
    errors,
    evidence,
    gap,
    log_mean_ratio,
    mean_ratio,
    paths,
)

__all__ = ["Line", "road"]


class Line(NamedTuple):
    """name: in a word or two; claim: in a sentence; equation: LaTeX; by: the functions that compute it; value: in nats;
    relation: how it stands to the value of the line before, "=", "<=", or "" where another count begins; parts: what it is
    made of, by name."""

    name: str
    claim: str
    equation: str
    by: tuple[Callable[..., Any], ...]
    value: float
    relation: str = "="
    parts: dict[str, float] = {}  # noqa: RUF012 - read only


@cache
def road() -> tuple[tuple[str, tuple[Line, ...]], ...]:
    """(heading, its lines), in turn."""
    return (
        ("One latent: the variational autoencoder", _autoencoder()),
        ("Three latents: the hierarchical autoencoder, its encoder fixed", _hierarchical()),
        ("From divergences to errors", _errors()),
        ("What L_simple leaves out", _simple()),
    )


def _autoencoder() -> tuple[Line, ...]:
    one = ONE_LATENT
    mean, variance = q_moments(one, np.array([DATA]), 1)
    divergence = kl_gaussian(mean, np.log(np.full(1, variance)), 0 * mean, 0 * mean)[0].item()
    d, weight = paths(one)
    reconstruction = float(weight @ d.reverse[0])
    bound = mean_ratio(one)
    return (
        Line(
            "evidence",
            "The evidence: the latent is integrated away.",
            r"\log p(x) = \log \int p(x \mid z)\, p(z)\, dz",
            (evidence,), evidence(one), "",
        ),
        Line(
            "a mean of the ratio",
            "The encoder comes in as 1 = q/q: the evidence is a mean over q, whatever q is.",
            r"\log p(x) = \log \mathbb E_{q(z \mid x)}\Big[\frac{p(x, z)}{q(z \mid x)}\Big]",
            (joint_ratio,), log_mean_ratio(one),
        ),
        Line(
            "the bound",
            "Jensen's inequality draws the logarithm inside. What is lost is the divergence of the encoder from p(z | x).",
            r"\log p(x) \ge \mathbb E_{q(z \mid x)}\Big[\log\frac{p(x, z)}{q(z \mid x)}\Big]"
            r" = \log p(x) - \mathrm{KL}\big(q(z \mid x) \,\|\, p(z \mid x)\big)",
            (joint_ratio,), bound, "<=",
            {"the divergence lost": gap(one), "the bound and what it lost": bound + gap(one)},
        ),
        Line(
            "reconstruction and divergence",
            "The bound parts into reconstruction and a divergence from the prior.",
            r"\mathbb E_{q(z \mid x)}[\log p(x \mid z)] - \mathrm{KL}\big(q(z \mid x) \,\|\, p(z)\big)",
            (path_densities, kl_gaussian), reconstruction - divergence, "=",
            {"reconstruction": reconstruction, "divergence from the prior": divergence},
        ),
    )  # fmt: skip


def _terms(terms: np.ndarray, names: list[str]) -> dict[str, float]:
    return dict(zip(names, terms.tolist(), strict=True))


def _hierarchical() -> tuple[Line, ...]:
    d, weight = paths(SCHEDULE)
    consistency = consistency_terms(d.forward, d.reverse, d.prior) @ weight
    denoising = denoising_terms(d.posterior, d.reverse, d.marginal, d.prior) @ weight
    exact, bound = _diffusion_terms(), mean_ratio(SCHEDULE)
    averaged = averaged_divergences()
    misread = consistency[0] + sum(averaged.values()) + consistency[-1]
    return (
        Line(
            "evidence",
            "Three latents of the data's dimension, and another model, of three decoders: its evidence.",
            r"\log p(x_0) = \log \int p(x_{0:T})\, dx_{1:T}, \quad p(x_{0:T}) = p(x_T) \prod_{t=1}^T p(x_{t-1} \mid x_t)",
            (evidence,), evidence(SCHEDULE), "",
        ),
        Line(
            "a mean of the joint ratio",
            "The encoder is not learned: it adds noise, step by step.",
            r"\log p(x_0) = \log \mathbb E_q\Big[\frac{p(x_{0:T})}{q(x_{1:T} \mid x_0)}\Big],"
            r" \quad q(x_t \mid x_{t-1}) = \mathcal N(\sqrt{\alpha_t}\, x_{t-1}, \beta_t)",
            (joint_ratio,), log_mean_ratio(SCHEDULE),
        ),
        Line(
            "the joint ratio",
            "Jensen's inequality again: the joint ratio, of which the whole path is the latent.",
            r"\log p(x_0) \ge \mathbb E_q\Big[\log\frac{p(x_{0:T})}{q(x_{1:T} \mid x_0)}\Big]"
            r" = \log p(x_0) - \mathrm{KL}\big(q(x_{1:T} \mid x_0) \,\|\, p(x_{1:T} \mid x_0)\big)",
            (joint_ratio,), bound, "<=",
            {"the divergence lost": gap(SCHEDULE), "the bound and what it lost": bound + gap(SCHEDULE)},
        ),
        Line(
            "consistency",
            "The factors of one x_t stand together: reconstruction, consistency, prior matching [Luo22] eq. 45. A "
            "consistency term needs three neighbours drawn together.",
            r"\mathbb E_q\Big[\log p(x_0 \mid x_1) - \sum_{t=1}^{T-1} \log\frac{q(x_t \mid x_{t-1})}{p(x_t \mid x_{t+1})}"
            r" - \log\frac{q(x_T \mid x_{T-1})}{p(x_T)}\Big]",
            (consistency_terms,), -float(consistency.sum()), "=",
            _terms(consistency, ["reconstruction, negative", "consistency t = 1", "consistency t = 2", "prior matching"])
            | {
                "wrong: the bound with divergences averaged over neighbours in place of consistency": -float(misread),
                "by how much that is off": float(misread - consistency.sum()),
            },
        ),
        Line(
            "denoising",
            "Bayes' rule turns each step of the encoder round, and the marginals telescope: reconstruction, denoising "
            "matching, prior matching [Luo22] eq. 58.",
            r"\mathbb E_q\Big[\log p(x_0 \mid x_1) - \sum_{t=2}^{T} \log\frac{q(x_{t-1} \mid x_t, x_0)}{p(x_{t-1} \mid x_t)}"
            r" - \log\frac{q(x_T \mid x_0)}{p(x_T)}\Big]",
            (denoising_terms,), -float(denoising.sum()), "=",
            _terms(denoising, ["reconstruction, negative", "denoising t = 2", "denoising t = 3", "prior matching"]),
        ),
        Line(
            "divergences",
            "Given x_t, x_{t-1} is integrated in closed form, and now they are divergences: the bound of diffusion "
            "[DDPM] eq. 5.",
            r"-\big(L_0 + L_1 + \dots + L_T\big), \quad L_{t-1} = \mathbb E_q\,"
            r"\mathrm{KL}\big(q(x_{t-1} \mid x_t, x_0) \,\|\, p(x_{t-1} \mid x_t)\big)",
            (bound_terms,), -float(exact.sum()), "=", _terms(exact, ["L_0", "L_1", "L_2", "L_3"]),
        ),
    )  # fmt: skip


def _diffusion_terms() -> np.ndarray:
    """L_0, ..., L_T."""
    z, w = np.polynomial.hermite_e.hermegauss(NODES)
    x0 = np.full((NODES, 1), DATA)
    return bound_terms(SCHEDULE, decoders(SCHEDULE), x0, lambda t: z[:, None], None, "nats") @ (w / w.sum())


def _first_constant() -> float:
    """L_0 less its squared error."""
    return 0.5 * float(np.log(2 * np.pi) + posterior_log_variance(SCHEDULE, 1))


def _errors() -> tuple[Line, ...]:
    first, *_, last = _diffusion_terms().tolist()
    lines, later = [], range(2, SCHEDULE.T + 1)
    for name, claim, equation, kind in (
        (
            "errors of the mean",
            "Two Gaussians of one variance differ by their means alone [DDPM] eq. 8.",
            r"L_{t-1} = \frac{1}{2\sigma_t^2}\, \mathbb E\,|\tilde\mu_t - \mu_\theta|^2", "mu",
        ),
        (
            "errors of x_0",
            "The means are of x_0 and of its prediction; the weight is a fall of the signal-to-noise ratio [VDM] eq. 13.",
            r"L_{t-1} = \tfrac12\big(\mathrm{SNR}(t-1) - \mathrm{SNR}(t)\big)\, \mathbb E\,|x_0 - \hat x_0|^2", "x0",
        ),
        (
            "errors of the noise",
            "Or of the noise and of its prediction [DDPM] eq. 12.",
            r"L_{t-1} = \frac{\beta_t^2}{2\sigma_t^2 \alpha_t (1 - \bar\alpha_t)}\,"
            r" \mathbb E\,|\epsilon - \epsilon_\theta|^2",
            "eps",
        ),
    ):  # fmt: skip
        found = errors(kind)
        terms = [float(vlb_weight(SCHEDULE, t, kind)) * found[t - 1] for t in later]
        parts = {"L_0": first} | {f"L_{t - 1}": float(term) for t, term in zip(later, terms, strict=True)}
        lines.append(
            Line(
                name,
                claim,
                equation,
                (vlb_weight,),
                -float(first + sum(terms) + last),
                "=",
                parts | {f"L_{SCHEDULE.T}": last},
            )
        )
    prior = prior_matching(SCHEDULE, np.full((1, 1), DATA), "nats").item()
    weight = [float(vlb_weight(SCHEDULE, t, "eps", decoder_variance)) for t in range(1, SCHEDULE.T + 1)]
    weighted = [w * e for w, e in zip(weight, errors("eps").tolist(), strict=True)]
    constant = _first_constant() + prior
    lines.append(
        Line(
            "weighted errors and a constant",
            "The decoder of x_0 is a Gaussian too, so L_0 is an error of the same kind and a constant. The bound is a "
            "weighted sum of errors of the noise, and a constant without a parameter of the network.",
            r"-\sum_{t=1}^T w_t\, \mathbb E\,|\epsilon - \epsilon_\theta|^2 - C,"
            r" \quad C = \tfrac12 \log 2\pi\sigma_1^2 + L_T",
            (vlb_weight, l_weighted, prior_matching), -float(sum(weighted) + constant), "=",
            {f"w_{t}": w for t, w in enumerate(weight, 1)}
            | {f"w_{t} E|eps - eps_hat|^2": w for t, w in enumerate(weighted, 1)}
            | {"C": constant},
        )
    )  # fmt: skip
    return tuple(lines)


def _simple() -> tuple[Line, ...]:
    T, (z, w) = SCHEDULE.T, np.polynomial.hermite_e.hermegauss(NODES)
    found = errors("eps")
    # A batch of all t and all nodes; `l_weighted` takes one weight a sample, the quadrature's included.
    t, eps = np.repeat(np.arange(1, T + 1), NODES), np.tile(z, T)
    share = np.tile(w / w.sum(), T) * NODES
    said = np.concatenate(
        [eps_hat(SCHEDULE)(q_sample(SCHEDULE, np.full(NODES, DATA), s, z), s) for s in range(1, T + 1)]
    )
    of_bound = vlb_weight(SCHEDULE, t, "eps", decoder_variance)
    weighted = float(l_weighted(said, eps, share * of_bound)[0])
    prior = prior_matching(SCHEDULE, np.full((1, 1), DATA), "nats").item()
    root = np.sqrt(share)
    return (
        Line(
            "t drawn",
            "A sum over t is T times a mean over t drawn uniformly, with the weights of the bound.",
            r"-T\, \mathbb E_{t, \epsilon}\big[w_t\,|\epsilon - \epsilon_\theta|^2\big] - C",
            (l_weighted,), -(T * weighted + _first_constant() + prior), "=", {"E[w_t |eps - eps_hat|^2]": weighted},
        ),
        Line(
            "L_simple",
            "What is left out: the constant, the factor T, and the weights, each put to 1 [DDPM] eq. 14. That is no bound "
            "of log p(x_0), and no number of nats; but its minimum over all functions is at the same eps_hat, the mean of "
            "eps given x_t, since each t has its own minimum whatever its weight.",
            r"L_{\mathrm{simple}} = \mathbb E_{t, \epsilon}\,|\epsilon - \epsilon_\theta(x_t, t)|^2",
            (l_simple,), float(l_simple(root * said, root * eps)[0]), "",
            {f"E|eps - eps_hat|^2 at t = {s}": float(e) for s, e in enumerate(found, 1)},
        ),
    )  # fmt: skip
