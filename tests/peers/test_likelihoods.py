"""Likelihoods, divergences and the loss of a variational autoencoder beside torch.distributions and automatic gradients."""

import numpy as np
import pytest
import torch

from refdiff.engines import reference
from refdiff.models import Network, PerceptronConfig, TableConfig, flatten, initialise, layout
from refdiff.random import Key
from refdiff.systems import VAE

normal, bernoulli, kl = torch.distributions.Normal, torch.distributions.Bernoulli, torch.distributions.kl_divergence


def tensors(*arrays):
    return [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]


def close(actual, expected):
    expected = expected.detach().numpy()
    assert np.abs(actual - expected).max() <= 1e-12 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("a_sample", [False, True], ids=["an element", "a sample"])
def test_gaussian_likelihood_and_divergence(a_sample):
    rng = np.random.default_rng(0)
    x, mean, mean_p = rng.standard_normal((3, 5, 4, 2))
    log_variance, log_variance_p = rng.standard_normal((2, 5) if a_sample else (2, 5, 4, 2))
    tx, tm, tp, tl, tlp = tensors(x, mean, mean_p, log_variance, log_variance_p)
    spread = [torch.exp(0.5 * l)[(..., *[None] * (3 - l.ndim))] for l in (tl, tlp)]
    dy = rng.standard_normal(5)

    y, saved = reference.gaussian_log_likelihood(x, mean, log_variance)
    expected = normal(tm, spread[0]).log_prob(tx).sum((1, 2))
    close(y, expected)
    given = torch.autograd.grad(expected, (tx, tm, tl), torch.tensor(dy), retain_graph=True)
    for d, e in zip(reference.gaussian_log_likelihood_backward(dy, saved), given, strict=True):
        close(d, e)

    y, saved = reference.gaussian_kl(mean, log_variance, mean_p, log_variance_p)
    expected = kl(normal(tm, spread[0]), normal(tp, spread[1])).sum((1, 2))
    close(y, expected)
    given = torch.autograd.grad(expected, (tm, tl, tp, tlp), torch.tensor(dy))
    for d, e in zip(reference.gaussian_kl_backward(dy, saved), given, strict=True):
        close(d, e)


def test_bernoulli_likelihood():
    rng = np.random.default_rng(1)
    x, logits, dy = rng.integers(0, 2, (5, 4, 2)).astype(float), 3 * rng.standard_normal((5, 4, 2)), np.arange(5.0)
    tx, tl = tensors(x, logits)
    y, saved = reference.bernoulli_log_likelihood(x, logits)
    expected = bernoulli(logits=tl).log_prob(tx).sum((1, 2))
    close(y, expected)
    close(
        reference.bernoulli_log_likelihood_backward(dy, saved),
        torch.autograd.grad(expected, tl, torch.tensor(dy))[0],
    )


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize(("samples", "beta"), [(1, 1.0), (1, 4.0), (3, 1.0)])
def test_loss_of_a_variational_autoencoder(likelihood, samples, beta):
    """The same draws, linear networks: the loss of each sample, and the gradient of their mean by every parameter."""
    objective = VAE(likelihood=likelihood, beta=beta, samples=samples, latent=3)
    configs = {
        "encoder": PerceptronConfig((4, 2, 1), (), (3,), parts=2),
        "decoder": PerceptronConfig((3,), (), (4, 2, 1), entry="z"),
    }
    configs |= {"noise": TableConfig(first=(-0.7,))} if likelihood == "gaussian" else {}
    networks = {n: Network(c, initialise(layout(c), 3, n, np.float64)) for n, c in configs.items()}
    rng, key = np.random.default_rng(2), Key(5, 1, 0, 6)
    batch = objective.draw(reference, {"x": rng.integers(0, 2, (6, 4, 2, 1)) * 2.0 - 1}, key, {})
    terms, g = objective.loss_and_gradient(reference, networks, batch, key)

    p = {
        n: dict(zip(flat, tensors(*flat.values()), strict=True))
        for n, net in networks.items()
        for flat in [flatten(net.p)]
    }
    x, eps = torch.tensor(batch["x"].reshape(6, -1)), torch.tensor(batch["eps"].astype(float))
    said = x @ p["encoder"]["linear0/weight"] + p["encoder"]["linear0/bias"]
    q = normal(said[:, :3], torch.exp(0.5 * said[:, 3:]))
    z = q.loc[:, None] + q.scale[:, None] * eps  # (N, samples, latent)
    y = z @ p["decoder"]["linear0/weight"] + p["decoder"]["linear0/bias"]
    if likelihood == "bernoulli":
        log_p = bernoulli(logits=y).log_prob((x[:, None].expand_as(y) + 1) / 2).sum(-1)
    else:
        log_p = normal(y, torch.exp(0.5 * p["noise"]["weight"][0, 0])).log_prob(x[:, None].expand_as(y)).sum(-1)
    prior = normal(torch.zeros(3, dtype=torch.float64), 1.0)
    if samples == 1:
        loss = beta * kl(q, prior).sum(-1) - log_p[:, 0]
    else:
        q_of_each = normal(q.loc[:, None], q.scale[:, None])
        weights = log_p + prior.log_prob(z).sum(-1) - q_of_each.log_prob(z).sum(-1)
        loss = np.log(samples) - torch.logsumexp(weights, 1)
    close(terms["loss"], loss)
    loss.mean().backward()
    for name, tree in g.items():
        for path, leaf in flatten(tree).items():
            close(leaf, p[name][path].grad)
