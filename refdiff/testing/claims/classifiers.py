"""Claims about the training of [ADM] and of the improved DDPM: t by importance, and a classifier of noisy images."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from ... import models
from ...engines import reference
from ...models import MLPConfig, Network
from ...objectives import HISTORY, Classification, Denoising, ScheduleConfig, step_probability
from ...process import q_sample
from ...random import Key, normal
from ..claim import claim
from ..measures import relative_error
from ..strategies import seeds

lengths: Any = st.sampled_from([1, 2, 7, 50, 400])


def _losses(T: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """L_t of any size for t = 1 .. T, and ten samples of each, spread about it.   -> (T,), (T, 10)"""
    rng = np.random.default_rng(seed)
    mean = np.exp(rng.uniform(-6, 3, T))
    return mean, (mean[:, None] * rng.uniform(0.2, 1.8, (T, HISTORY))).astype(np.float32)


def _remembering(T: int, seed: int) -> tuple[Denoising, Any, np.ndarray]:
    """An objective that draws t by importance, its memory when each t has ten losses, and L_t (T,)."""
    objective = Denoising(schedule=ScheduleConfig("cosine", T), timesteps="importance")
    mean, losses = _losses(T, seed)
    t = np.repeat(np.arange(1, T + 1), HISTORY)
    return objective, objective.update(objective.remember(), {"t": t, "unweighted": losses.ravel()}), mean


@claim(
    r"\sum_{t=1}^T p_t\, \frac{L_t}{T p_t} = \frac1T \sum_{t=1}^T L_t",
    source="[IDDPM] eq. 18", of=Denoising.update, against="the mean over all t", bound=2e-7, T=lengths, seed=seeds(),
)  # fmt: skip
def importance_weights_leave_the_expectation_unchanged(T: int, seed: int) -> float:
    """Exactly, for any losses: p_t is what the cumulative sums in float32 say, and the weights are those of this p_t."""
    _, memory, mean = _remembering(T, seed)
    p = np.diff(memory["cumulative"].astype(np.float64))
    return relative_error((p * memory["ratio"][1:].astype(np.float64) * mean).sum(), mean.mean())


@claim(
    r"\mathbb E_{t \sim p}\Big[\frac{L_t}{T p_t}\Big] = \mathbb E_{t \sim U\{1, \dots, T\}}\, L_t",
    source="[IDDPM] eq. 18", of=Denoising.draw, against="the mean over all t, in standard errors of 4000 samples", bound=5.0,
    T=lengths, seed=seeds(), examples=15,
)  # fmt: skip
def weighted_losses_of_the_drawn_t_are_unbiased(T: int, seed: int) -> float:
    """By the draw of the objective itself: where every t has one L_t, the weighted ones are all but equal."""
    objective, memory, mean = _remembering(T, seed)
    n = 4000
    key = Key(seed, 1, 0, n).under("Denoising")
    batch = objective.draw(reference, {"x": np.zeros((n, 1))}, key, memory)
    if batch["t"].min() < 1 or batch["t"].max() > T:
        return np.inf
    weighted = batch["ratio"].astype(np.float64) * mean[batch["t"] - 1]
    error = weighted.std() / np.sqrt(n) + 1e-6 * mean.mean()  # for T = 1 there is nothing to draw
    return float(abs(weighted.mean() - mean.mean()) / error)


@claim(
    r"p_t \propto \sqrt{\mathbb E[L_t^2]}:\quad \mathbb E_{t \sim p}\Big[\Big(\frac{L_t}{T p_t}\Big)^2\Big]"
    r" = \min_{p'}\, \mathbb E_{t \sim p'}\Big[\Big(\frac{L_t}{T p'_t}\Big)^2\Big]"
    r" = \Big(\frac1T \sum_t \sqrt{\mathbb E[L_t^2]}\Big)^2",
    source="[IDDPM] eq. 18", of=step_probability, against="the least by the inequality of Cauchy and Schwarz",
    bound=1.002e-3, T=lengths, seed=seeds(),
)  # fmt: skip
def no_other_way_to_draw_t_has_a_smaller_second_moment(T: int, seed: int) -> float:
    """But for the thousandth of p that is uniform, which costs a thousandth at most. Uniform t cost more."""
    _, losses = _losses(T, seed)
    second = (losses.astype(np.float64) ** 2).mean(axis=1)
    p = step_probability(losses, np.full(T, HISTORY))
    actual, least, uniform = (second / p).sum() / T**2, np.sqrt(second).mean() ** 2, second.mean()
    excess = actual / least - 1
    return float(excess) if excess >= -1e-12 and actual <= uniform * 1.002 else np.inf


@claim(
    r"-\log p_\phi(y \mid x_t, t),\quad x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon",
    source="[ADM] section 4", of=Classification.loss_and_gradient, bound=1e-6,
    against="one image at a time in float64, the probabilities by their definition",
    T=lengths, noised=st.booleans(), seed=seeds(),
)  # fmt: skip
def a_classifier_learns_the_class_of_an_image_in_noise(T: int, noised: bool, seed: int) -> float:
    """Of the very noise that a model learns to take away; or of x_0 at t = 0."""
    objective = Classification(schedule=ScheduleConfig("cosine", T), noised=noised)
    config, rng, n = MLPConfig(size=3, width=4, layers=1), np.random.default_rng(seed), 5
    p = models.initialise(models.layout(config), seed)
    p = models.tree_map(lambda a: (a + 0.3 * rng.standard_normal(a.shape)).astype(np.float64), p)
    data = {"x": rng.standard_normal((n, 3)), "label": rng.integers(0, 3, n)}
    key = Key(seed, 4, 0, n).under("Classification")
    networks = {"classifier": Network(config, p)}
    batch = objective.draw(reference, data, key, {})
    terms, _ = objective.loss_and_gradient(reference, networks, batch, key)
    worst, eps = 0.0, normal(key("eps"), np.arange(n), (3,)).astype(np.float64)
    for i in range(n):
        t = int(batch["t"][i])
        if t == 0 if noised else t > 0:
            return np.inf
        x0 = data["x"][i : i + 1]
        x_t = q_sample(objective.schedule.build(), x0, t, eps[i : i + 1]) if noised else x0
        logits = models.predict(reference, networks["classifier"], {"x": x_t, "t": np.array([t])})[0]
        expected = -np.log(np.exp(logits)[data["label"][i]] / np.exp(logits).sum())
        worst = max(worst, float(abs(terms["loss"][i] - expected)) / (1 + float(np.abs(logits).max())))
    return worst
