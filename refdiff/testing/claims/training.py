"""Claims about training: the step of [DDPM] algorithm 1, and the sizes of the published networks."""

from __future__ import annotations

import warnings
from contextlib import suppress
from itertools import product
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ... import models
from ...config import Config, DataConfig, NetworkConfig, SampleConfig, ScheduleConfig
from ...engines import reference
from ...models import MLPConfig
from ...objectives import Denoising
from ...process import SCHEDULES, Schedule
from ...random import Key, normal
from ...training import loss_and_gradient
from ..claim import claim
from ..derivatives import complex_step
from ..measures import relative_error
from ..strategies import seeds

kinds: Any = st.sampled_from(["eps", "x0", "v"])


def _config(schedule: tuple[str, int], kind: str = "eps", seed: int = 0) -> Config:
    name, T = schedule
    return Config(
        DataConfig("mixture"), {"denoiser": NetworkConfig(MLPConfig(size=3, width=4, layers=1))}, ScheduleConfig(name, T),
        Denoising(prediction=kind), sample=SampleConfig(steps=1), engine="reference", seed=seed,
    )  # fmt: skip


def _schedules(*lengths: int) -> Any:
    """(kind, T) of every schedule of the library at these lengths, but those that a configuration refuses."""
    possible = []
    for schedule in product(sorted(SCHEDULES), lengths):
        with suppress(ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _config(schedule)
            possible.append(schedule)
    return st.sampled_from(possible)


def _noisy_and_target(schedule: Schedule, kind: str, x0: Any, eps: Any, t: int) -> tuple[Any, Any]:
    """x_t, and the target of the network, of one sample."""
    a, s = np.sqrt(schedule.alpha_bar[t]), np.sqrt(schedule.one_minus_alpha_bar[t])
    return a * x0 + s * eps, {"eps": eps, "x0": x0, "v": a * eps - s * x0}[kind]


@claim(
    r"\nabla_\theta \big\| \epsilon - \epsilon_\theta\big(\sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon,"
    r" t\big) \big\|^2,\quad t \sim U\{1, \dots, T\},\ \epsilon \sim \mathcal N(0, I)",
    source="[DDPM] algorithm 1", of=loss_and_gradient, against="one sample at a time in float64, and complex steps",
    bound=1e-5, case=_schedules(1, 2, 5, 100, 1000), kind=kinds, seed=seeds(), n=st.integers(1, 5),
)  # fmt: skip
def a_training_step_is_algorithm_1(case: tuple[str, int], kind: str, seed: int, n: int) -> float:
    """A small network: the loss is the mean over samples and elements, its gradient the derivative in a random direction of
    all weights. The network computes in float32, what it is held against in float64."""
    config = _config(case, kind, seed)
    schedule, rng = config.schedule.build(), np.random.default_rng(seed)
    p = _perturbed(models.initialise(models.layout(config.model), seed), rng)
    x0 = rng.standard_normal((n, 3))
    key = Key(seed, 4, 0, n).under("Denoising")
    t = config.objective.draw(reference, {"x": x0}, key, {})["t"]
    eps = normal(key("eps"), np.arange(n), (3,), np.float64)

    def loss(p: Any) -> Any:
        total = 0.0
        for i in range(n):
            x, target = _noisy_and_target(schedule, kind, x0[i], eps[i], int(t[i]))
            y, _ = models.forward(reference, models.Network(config.model, p), {"x": x[None], "t": t[i : i + 1]})
            total = total + ((y[0] - target) ** 2).sum() / (3 * n)
        return total

    networks = {"denoiser": models.Network(config.model, p)}
    terms, gradients = loss_and_gradient(config, config.objective, networks, {"x": x0}, 4, {})
    g = gradients["denoiser"]
    exact = models.tree_map(lambda leaf: leaf.astype(np.float64), p)
    direction = models.tree_map(lambda leaf: rng.standard_normal(leaf.shape), p)
    slope = float(complex_step(loss, exact, direction))
    gradient, v = models.flatten(g), models.flatten(direction)
    along = sum(float((gradient[name].astype(np.float64) * v[name]).sum()) for name in v)
    size = np.sqrt(sum((gradient[name] ** 2).sum() for name in v) * sum((a**2).sum() for a in v.values()))
    return max(relative_error(terms["loss"].mean(), loss(exact)), float(abs(along - slope) / size))


def _perturbed(p: Any, rng: np.random.Generator) -> Any:
    """No weight of it 0, as those of the last layers are at first."""
    return models.tree_map(lambda leaf: (leaf + 0.3 * rng.standard_normal(leaf.shape)).astype(np.float32), p)


@claim(
    r"\Pr(t = s) = \tfrac1T,\qquad \mathbb E[\epsilon] = 0,\ \mathbb E[\epsilon^2] = 1",
    source="[DDPM] algorithm 1", of=Denoising.draw, against="the uniform and the normal distribution", bound=5.0,
    case=_schedules(1, 2, 7, 50), seed=seeds(), examples=15,
)  # fmt: skip
def a_training_step_draws_every_t_alike(case: tuple[str, int], seed: int) -> float:
    """2000 samples, all in standard errors: the counts of t by a chi-square whose cube root is nearly normal, the moments of
    the noise, and the correlation of t with it."""
    config, T = _config(case, "eps", seed), case[1]
    x0 = np.zeros((2000, 3))
    batch = config.objective.draw(reference, {"x": x0}, Key(seed, 1, 0, len(x0)).under("Denoising"), {})
    t, eps = batch["t"], batch["target"]
    if t.min() < 1 or t.max() > T:
        return np.inf
    z = eps.ravel().astype(np.float64)
    errors = [z.mean() * np.sqrt(z.size), (z**2 - 1).mean() * np.sqrt(z.size / 2)]
    if T > 1:
        expected, k = len(t) / T, 2 / (9 * (T - 1))
        chi = ((np.bincount(t, minlength=T + 1)[1:] - expected) ** 2 / expected).sum() / (T - 1)
        errors += [(chi ** (1 / 3) - (1 - k)) / np.sqrt(k), np.corrcoef(t, eps[:, 0])[0, 1] * np.sqrt(len(t))]
    return float(np.max(np.abs(errors)))


@claim(
    r"35.7 \cdot 10^6\ \text{parameters for CIFAR-10},\qquad 114 \cdot 10^6\ \text{for LSUN and CelebA-HQ}",
    source="[DDPM] appendix B", of=models.layout, against="the published sizes", bound=0.5, examples=1,
)  # fmt: skip
def the_published_networks_have_their_published_size() -> float:
    """In the last digit of what was printed, 0.1 million and 1 million."""
    cifar10, celebahq = (models.count(models.layout(models.MODELS[name])) for name in ("cifar10", "celebahq256"))
    return float(max(abs(cifar10 / 1e5 - 357), abs(celebahq / 1e6 - 114)))
