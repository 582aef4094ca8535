"""Claims about the bounds of variational autoencoders, where log p(x) is known: with a linear decoder, or with one unit."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from ... import models
from ...engines import reference
from ...models import Network, PerceptronConfig, TableConfig
from ...random import Key
from ...systems import VAE
from ...systems.bounds import log_mean_weights
from ..claim import claim
from ..strategies import seeds

LIKELIHOODS: Any = st.sampled_from(["gaussian", "bernoulli"])
NODES = {2: 40, 3: 20}  # of a quadrature in each of so many dimensions


def _linear_gaussian(
    seed: int, dims: int, latent: int
) -> tuple[dict[str, Network], np.ndarray, np.ndarray, np.ndarray]:
    """p(x|z) = N(W z + m, s^2) with orthogonal columns of W, and an encoder that says its posterior exactly,
    N(M^-1 W^T (x - m), s^2 M^-1), M = W^T W + s^2, diagonal.   -> networks, m (dims,), covariance of x, samples (5, dims)"""
    rng = np.random.default_rng(seed)
    W = np.linalg.qr(rng.standard_normal((dims, latent)))[0] * rng.uniform(0.5, 2, latent)
    m, log_variance = rng.standard_normal(dims), rng.uniform(-2, 1)
    s2 = np.exp(log_variance)
    M = (W**2).sum(axis=0) + s2
    weight = np.concatenate([W / M, np.zeros((dims, latent))], axis=1)
    bias = np.concatenate([-m @ W / M, np.log(s2 / M)])
    encoder = PerceptronConfig((dims,), (), (latent,), parts=2)
    decoder = PerceptronConfig((latent,), (), (dims,), entry="z")
    networks = {
        "encoder": Network(encoder, {"linear0": {"weight": weight, "bias": bias}}),
        "decoder": Network(decoder, {"linear0": {"weight": W.T, "bias": m}}),
        "noise": Network(TableConfig(), {"weight": np.array([[log_variance]])}),
    }
    covariance = W @ W.T + s2 * np.eye(dims)
    return networks, m, covariance, m + 2 * rng.standard_normal((5, dims))


def _losses(networks: dict[str, Network], objective: VAE, x: np.ndarray, eps: np.ndarray, bits: bool) -> np.ndarray:
    """-bound of each x and its eps (N, k, latent), by the objective itself.   -> (N,)"""
    batch = {"x": x, "target": 0.5 * x + 0.5 if bits else x, "eps": eps, "index": np.zeros(len(x), int)}
    terms, _ = objective.loss_and_gradient(reference, networks, batch, Key(0, 0, 0, len(x)))
    return terms["loss"]


@claim(
    r"q(z \mid x) = p(z \mid x) \Rightarrow \log \frac1k \sum_i \frac{p(x, z_i)}{q(z_i \mid x)} = \log p(x)",
    source="[PPCA] section 3.2", of=VAE.loss_and_gradient, against="the normal density of x with covariance W W^T + s^2",
    bound=1e-12, seed=seeds(), dims=st.integers(2, 5), latent=st.integers(1, 2), k=st.integers(2, 6),
)  # fmt: skip
def with_the_posterior_itself_the_bound_is_the_log_likelihood(seed: int, dims: int, latent: int, k: int) -> float:
    """Of a linear decoder with Gaussian noise, for each draw of the z, however many; and of one z on average over it: the
    integral of a polynomial of second degree, which the quadrature has exactly."""
    networks, m, covariance, x = _linear_gaussian(seed, dims, latent)
    z = x - m
    _, log_det = np.linalg.slogdet(covariance)
    exact = -0.5 * ((z @ np.linalg.inv(covariance) * z).sum(axis=1) + log_det + dims * np.log(2 * np.pi))
    eps = np.random.default_rng(seed).standard_normal((len(x), k, latent))
    several = -_losses(networks, VAE(likelihood="gaussian", samples=k, latent=latent), x, eps, bits=False)
    nodes = np.concatenate([np.eye(latent), -np.eye(latent)]) * latent**0.5  # the mean of z z^T over them is 1
    one = np.mean(
        [
            -_losses(networks, VAE(likelihood="gaussian", latent=latent), x, np.tile(e, (len(x), 1, 1)), False)
            for e in nodes
        ],
        axis=0,
    )
    return float(np.abs([several - exact, one - exact]).max() / np.abs(exact).max())


def _one_unit(seed: int, likelihood: str) -> tuple[dict[str, Network], np.ndarray, Any, Any]:
    """A decoder of one unit that is no line, an encoder that knows nothing of it, x, log p(x, z) of it, and q's mean and log
    variance."""
    rng = np.random.default_rng(seed)
    dims, bits = 3, likelihood == "bernoulli"
    encoder, decoder = PerceptronConfig((dims,), (4,), (1,), 2), PerceptronConfig((1,), (6,), (dims,), entry="z")
    p = [
        models.tree_map(lambda a: rng.standard_normal(a.shape) / 2, models.layout(config))
        for config in (encoder, decoder)
    ]
    log_variance = rng.uniform(-2, 0)
    noise = {"weight": np.array([[log_variance]])}
    networks = {
        "encoder": Network(encoder, p[0]), "decoder": Network(decoder, p[1]), "noise": Network(TableConfig(), noise),
    }  # fmt: skip
    x = rng.integers(0, 2, dims) * 2.0 - 1 if bits else rng.standard_normal(dims)
    mean, l = models.predict(reference, networks["encoder"], {"x": x[None]})[0]

    def log_joint(z: np.ndarray) -> np.ndarray:
        y = models.predict(reference, networks["decoder"], {"z": z[:, None]})
        given = 0.5 * (x + 1) * y - np.logaddexp(0, y) if bits else _log_normal(x, y, log_variance)
        return given.sum(axis=1) + _log_normal(z, 0, 0)

    return networks, x[None], log_joint, (mean, l)


def _log_normal(x: Any, mean: Any, log_variance: Any) -> Any:
    return -0.5 * ((x - mean) ** 2 * np.exp(-log_variance) + log_variance + np.log(2 * np.pi))


LINE = np.linspace(-9, 9, 3001)  # where means over N(0, 1) are taken, as sums: no density is left at its ends
WEIGHTS = np.exp(_log_normal(LINE, 0, 0)) * (LINE[1] - LINE[0])


def _log_evidence(log_joint: Any) -> float:
    """log p(x) = log E p(x|z) over z ~ N(0, 1)."""
    return float(np.log(WEIGHTS @ np.exp(log_joint(LINE) - _log_normal(LINE, 0, 0))))


def _nodes(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (n, k) and weights (n,) of the mean over k standard normal numbers."""
    if k == 1:
        return LINE[:, None], WEIGHTS
    node, weight = np.polynomial.hermite_e.hermegauss(NODES[k])
    nodes = np.stack(np.meshgrid(*[node] * k, indexing="ij"), -1).reshape(-1, k)
    weights = np.prod(np.meshgrid(*[weight / weight.sum()] * k, indexing="ij"), axis=0).ravel()
    return nodes, weights


def _mean_bound(networks: dict[str, Network], objective: VAE, x: np.ndarray) -> float:
    """The bound, its mean over the z by quadrature."""
    nodes, weights = _nodes(objective.samples)
    rows = np.repeat(x, len(nodes), axis=0)
    return -float(weights @ _losses(networks, objective, rows, nodes[:, :, None], objective.likelihood == "bernoulli"))


@claim(
    r"\log p(x) = E_q[\log p(x \mid z)] - \mathrm{KL}(q(z \mid x)\, \|\, p(z))"
    r" + \mathrm{KL}(q(z \mid x)\, \|\, p(z \mid x))",
    source="[VAE] eq. 1", of=VAE.loss_and_gradient, against="integrals over z by quadrature", bound=1e-9, seed=seeds(),
    likelihood=LIKELIHOODS,
)  # fmt: skip
def what_the_bound_lacks_is_the_divergence_of_q_from_the_posterior(seed: int, likelihood: str) -> float:
    """One unit, a decoder that is no line, any encoder; so the bound is below log p(x), which is seen too."""
    networks, x, log_joint, (mean, log_variance) = _one_unit(seed, likelihood)
    evidence = _log_evidence(log_joint)
    z = mean + np.exp(0.5 * log_variance) * LINE
    divergence = WEIGHTS @ (_log_normal(z, mean, log_variance) - (log_joint(z) - evidence))
    bound = _mean_bound(networks, VAE(likelihood=likelihood, latent=1), x)
    return float(abs(bound + divergence - evidence) / (1 + abs(evidence))) if divergence >= 0 else np.inf


@claim(
    r"E_q[\log p(x \mid z)] - \beta\, \mathrm{KL}(q(z \mid x)\, \|\, p(z)) = \log p(x)"
    r" - \mathrm{KL}(q(z \mid x)\, \|\, p(z \mid x)) - (\beta - 1)\, \mathrm{KL}(q(z \mid x)\, \|\, p(z))",
    source="[BetaVAE] section 2", of=VAE.loss_and_gradient, against="integrals over z by quadrature", bound=1e-9,
    seed=seeds(), likelihood=LIKELIHOODS, beta=st.sampled_from([0.1, 0.5, 2.0, 10.0]),
)  # fmt: skip
def another_beta_moves_the_bound_by_the_divergence_from_the_prior(seed: int, likelihood: str, beta: float) -> float:
    """So beta > 1 leaves it a bound of log p(x), and beta < 1 need not."""
    networks, x, log_joint, (mean, log_variance) = _one_unit(seed, likelihood)
    evidence = _log_evidence(log_joint)
    z = mean + np.exp(0.5 * log_variance) * LINE
    log_q = _log_normal(z, mean, log_variance)
    gap, divergence = WEIGHTS @ (log_q - (log_joint(z) - evidence)), WEIGHTS @ (log_q - _log_normal(z, 0, 0))
    actual = _mean_bound(networks, VAE(likelihood=likelihood, beta=beta, latent=1), x)
    return float(abs(actual - (evidence - gap - (beta - 1) * divergence)) / (1 + abs(evidence) + beta * divergence))


@claim(
    r"\mathcal L_1 \le \mathcal L_2 \le \mathcal L_3 \le \log p(x),\quad \mathcal L_k = E \log \frac1k \sum_{i=1}^k"
    r" \frac{p(x, z_i)}{q(z_i \mid x)}",
    source="[IWAE] eq. 8", of=VAE.loss_and_gradient, against="quadrature over all k of the z, and over z", bound=1e-9,
    seed=seeds(), likelihood=LIKELIHOODS, examples=10,
)  # fmt: skip
def the_importance_weighted_bound_rises_with_k_and_stays_below(seed: int, likelihood: str) -> float:
    """By how much the order is broken, at most; L_1 is the bound with the divergence in closed form."""
    networks, x, log_joint, _ = _one_unit(seed, likelihood)
    evidence = _log_evidence(log_joint)
    bounds = [_mean_bound(networks, VAE(likelihood=likelihood, samples=k, latent=1), x) for k in (1, 2, 3)]
    return float(max(0.0, *-np.diff([*bounds, evidence])) / (1 + abs(evidence)))


@claim(
    r"\log \frac1k \sum_{i=1}^k w_i,\qquad \mathrm{Var} \approx \frac{\mathrm{Var}\, w}{k\, (E w)^2}",
    source="[IWAE] eq. 8", of=log_mean_weights, against="the logarithm of the mean by its definition, and the spread of 400"
    " such bounds", bound=0.35, seed=seeds(), size=st.sampled_from([0.05, 0.2]), examples=10,
)  # fmt: skip
def the_error_of_an_importance_weighted_bound_is_its_spread(seed: int, size: float) -> float:
    """|standard error / deviation - 1|, of weights whose logarithms spread by `size`; the bounds themselves to 1e-12."""
    log_w = size * np.random.default_rng(seed).standard_normal((400, 64)) - 30
    bound, variance = log_mean_weights(log_w)
    if np.abs(bound - np.log(np.exp(log_w).mean(axis=1))).max() > 1e-12 * 30:
        return np.inf
    return float(abs((variance.mean() ** 0.5) / bound.std() - 1))
