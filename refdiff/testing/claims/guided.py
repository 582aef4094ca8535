"""Claims about guided runs: a class that is drawn exactly, no guidance at neutral values, and the null class alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ... import models
from ...engines import reference
from ...models import MLPConfig, Network
from ...process import (
    PREDICTIONS,
    GaussianMixture,
    Schedule,
    ancestral,
    ancestral_step,
    classifier_guidance,
    classifier_shift,
    convert,
    ddim,
    final,
    predictor,
    step_variance,
)  # fmt: skip
from ...random import Key, normal
from ...sampling import SampleConfig, denoiser, guided
from ..claim import claim
from ..measures import relative_error
from ..strategies import schedules, seeds, steps, timesteps

with_step: Any = schedules().flatmap(lambda s: st.tuples(st.just(s), steps(s)))
with_run: Any = schedules(max_T=60).flatmap(lambda s: st.tuples(st.just(s), timesteps(s)))
Y = (0, 2)  # the class that is asked for, two components of three
RUNS: dict[str, Callable[..., Any]] = {
    "ddim": ddim,
    "ddim, eta": partial(ddim, eta=0.7),
    "ancestral": ancestral,
    "ancestral, beta": partial(ancestral, variance=step_variance),
}


def _mixture(seed: int) -> GaussianMixture:
    rng = np.random.default_rng(seed)
    roots, weights = 0.5 * rng.standard_normal((3, 2, 2)), rng.uniform(0.2, 1, 3)
    covariances = roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(2)
    return GaussianMixture(weights / weights.sum(), rng.standard_normal((3, 2)), covariances)


def _noise(seed: int, x: np.ndarray) -> Callable[[int], np.ndarray]:
    return lambda t: normal(Key(seed, t)("step"), np.arange(len(x)), x.shape[1:], np.float64)


def _says(schedule: Schedule, data: GaussianMixture, kind: str) -> Callable[[Any, Any], tuple[Any, None]]:
    """The Model that says of these data what is best, in this kind of prediction."""
    return lambda x, t: (convert(schedule, x, t, data.eps(schedule, x, t), "eps", kind), None)


def _by_classifier(schedule: Schedule, data: GaussianMixture, kind: str, scale: float = 1.0, y: Any = Y) -> Any:
    """What the data's exact classifier makes of a prediction."""
    return lambda x, t, p: classifier_guidance(schedule, x, t, p, data.dlog_posterior(schedule, x, t, y), scale, kind)


@claim(
    r"p(x_t) = \textstyle\sum_y p(y)\, p(x_t \mid y):\quad"
    r" \hat\epsilon(x_t) - \sqrt{1 - \bar\alpha_t}\, \nabla \log p(y \mid x_t) = \hat\epsilon(x_t \mid y)",
    source="[ADM] eq. 14", of=guided, against="the perfect denoiser of the class alone", bound=1e-10, case=with_step,
    seed=seeds(), kind=st.sampled_from(PREDICTIONS),
)  # fmt: skip
def an_exact_classifier_makes_of_a_perfect_model_that_of_the_class(
    case: tuple[Schedule, int], seed: int, kind: str
) -> float:
    """A class of two components of three, at every step of every schedule; any kind of prediction, relative to the sizes of
    its terms."""
    (schedule, t), data = case, _mixture(seed)
    x = 1.5 * np.random.default_rng(seed).standard_normal((10, 2))
    model = guided(_says(schedule, data, kind), None, 1.0, _by_classifier(schedule, data, kind))
    plain, expected = (_says(schedule, d, kind)(x, t)[0] for d in (data, data.only(Y)))
    at_0, at_1 = (convert(schedule, x, t, np.full_like(x, e), "eps", kind) for e in (0.0, 1.0))
    scale = np.abs(expected) + np.abs(plain) + np.abs(at_1 - at_0) * (1 + np.abs(x))
    return relative_error(model(x, t)[0], expected, scale)


@claim(
    r"\hat\epsilon \leftarrow \hat\epsilon(x_t) - \sqrt{1 - \bar\alpha_t}\, \nabla \log p(y \mid x_t)"
    r"\ \text{at every step} \implies x_0 \text{ is a sample of } y",
    source="[ADM] algorithm 2", of=guided, against="the run of the perfect denoiser of the class alone, same noise",
    bound=1e-10, case=with_run, seed=seeds(), kind=st.sampled_from(["eps", "x0", "v"]), run=st.sampled_from(sorted(RUNS)),
)  # fmt: skip
def what_is_drawn_with_an_exact_classifier_is_drawn_of_the_class(
    case: tuple[Schedule, Any], seed: int, kind: str, run: str
) -> float:
    """DDIM with noise and without, and ancestral steps with either variance: sample by sample. Classifier-free guidance with
    scale 1 of the two exact models draws the same."""
    (schedule, chosen), data = case, _mixture(seed)
    x = np.random.default_rng(seed).standard_normal((5, 2))
    full, own = _says(schedule, data, kind), _says(schedule, data.only(Y), kind)

    def end(model: Any) -> Any:
        return final(RUNS[run](schedule, predictor(schedule, model, kind), x, chosen, _noise(seed, x)))

    expected = end(own)
    by_classifier = end(guided(full, None, 1.0, _by_classifier(schedule, data, kind)))
    size = np.abs(expected) + np.abs(x) / np.sqrt(schedule.alpha_bar[chosen[-1]])
    return max(
        relative_error(by_classifier, expected, size), relative_error(end(guided(own, full, 1.0)), expected, size)
    )


@claim(
    r"p(x_0 \mid y) = \mathcal N(0, 1),\ \sigma_t^2 = \beta_{t|s} \implies x_s \mid y \sim \mathcal N(0, 1)"
    r"\ \text{at every step}",
    source="[ADM] algorithm 2", of=guided, against="the variance of the class, of which the last step adds none",
    bound=1e-11, case=with_run, seed=seeds(),
)  # fmt: skip
def ancestral_steps_with_an_exact_classifier_have_the_variance_of_the_class(
    case: tuple[Schedule, Any], seed: int
) -> float:
    """Of a mixture whose class y is standard normal: what a run makes of x_T alone, and of the noise of each step alone, are
    independent parts of x_0, whose squares add up to 1 - beta of the last step."""
    schedule, chosen = case
    rng = np.random.default_rng(seed)
    means, spreads = np.array([[0.0], rng.standard_normal(1)]), np.array([[[1.0]], [[rng.uniform(0.1, 2)]]])
    data = GaussianMixture(np.array([0.4, 0.6]), means, spreads)
    model = guided(_says(schedule, data, "eps"), None, 1.0, _by_classifier(schedule, data, "eps", y=0))
    parts = np.eye(len(chosen) + 1)[:, :, None]  # one a row: x_T, then the noise at each t
    noise = dict(zip(chosen[::-1].tolist(), parts[1:], strict=True))
    ends = final(ancestral(schedule, predictor(schedule, model), parts[0], chosen, noise.__getitem__, step_variance))
    return relative_error((ends**2).sum(), 1 - schedule.between(0, int(chosen[0]))[1], scale=1.0)


@claim(
    r"\hat\epsilon = (1 + w)\, \hat\epsilon(x_t, y) - w\, \hat\epsilon(x_t) = \hat\epsilon(x_t) + \text{scale}\,"
    r" (\hat\epsilon(x_t, y) - \hat\epsilon(x_t)):\quad w = 0,\ \text{scale} = 1",
    source="[CFG] eq. 6, [ADM] algorithms 1 and 2, [Lin24] section 3.4", of=guided,
    against="the run without guidance, to the bit, and the paper's convention", bound=1e-13, case=with_run, seed=seeds(),
    run=st.sampled_from(sorted(RUNS)), w=st.floats(-1, 8), phi=st.floats(0, 1),
)  # fmt: skip
def guidance_at_its_neutral_value_is_no_guidance(
    case: tuple[Schedule, Any], seed: int, run: str, w: float, phi: float
) -> float:
    """Scale 1, which is w = 0; a classifier's scale 0, in the score form and as a shift; a rescaling by 0 of any guidance,
    by phi of none; an interval that holds all steps or none of them. And of any w the prediction is the paper's."""
    (schedule, chosen), rng = case, np.random.default_rng(seed)
    x, T = rng.standard_normal((5, 2)), schedule.T

    def full(x: Any, t: Any) -> tuple[Any, Any]:
        return np.tanh(x + 0.1), None

    def empty(x: Any, t: Any) -> tuple[Any, Any]:
        return np.sin(2 * x), None

    def gradient(x: Any, t: Any, *_: Any) -> Any:
        return np.cos(x)

    def settings(phi: float = 0.0, *interval: int) -> SampleConfig:
        return SampleConfig(guidance_rescale=phi, guidance_interval=interval)

    def end(model: Any, **more: Any) -> bytes:
        steps = RUNS[run](schedule, predictor(schedule, model, "x0"), x, chosen, _noise(seed, x), **more)
        return np.ascontiguousarray(final(steps)).tobytes()

    def score(x: Any, t: Any, p: Any) -> Any:
        return classifier_guidance(schedule, x, t, p, gradient(x, t), 0.0)

    plain, scale = end(full), 1 + w
    neutral = [end(guided(full, empty, 1.0)), end(guided(full, empty, 1.0, None, settings(phi)))]
    neutral += [end(guided(full, empty, scale, score, settings(phi, T + 1, T + 1)))]
    same = plain == neutral[0] == neutral[1] == neutral[2]
    strong = guided(full, empty, scale)
    same &= end(strong) == end(guided(full, empty, scale, None, settings(0.0, 1, T)))
    t = int(chosen[-1])
    eps = full(x, t)[0]
    same &= guided(full, None, 1.0, score)(x, t)[0].tobytes() == eps.tobytes()
    moved = [
        ancestral_step(schedule, x, t, 0, eps, 0 * x, step_variance, classifier_shift(gradient, s)) for s in (0.0, 1.0)
    ]
    same &= moved[0].tobytes() == ancestral_step(schedule, x, t, 0, eps, 0 * x, step_variance).tobytes()
    paper = (1 + w) * full(x, t)[0] - w * empty(x, t)[0]
    size = (1 + abs(w)) * (np.abs(full(x, t)[0]) + np.abs(empty(x, t)[0]))
    return relative_error(strong(x, t)[0], paper, size) if same else np.inf


@claim(
    r"\hat\epsilon(x_t) = \epsilon_\theta(x_t, t, \varnothing),\quad"
    r" \text{emb}(t, \varnothing) = \mathrm{silu}\big(W_2 h_t + (b_2 + e_\varnothing)\big)",
    source="[CFG] section 3.2, eq. 6", of=guided,
    against="a network without classes that has the row of the null class in a bias", bound=1e-12,
    case=with_run, seed=seeds(), classes=st.integers(1, 5), examples=15,
)  # fmt: skip
def the_null_class_alone_is_an_unconditional_model(case: tuple[Schedule, Any], seed: int, classes: int) -> float:
    """Guidance 0 draws by it whatever label is asked for: step by step what a network draws that was never told one."""
    (schedule, chosen), rng = case, np.random.default_rng(seed)
    told, plain = MLPConfig(width=8, layers=2, classes=classes), MLPConfig(width=8, layers=2)
    p = models.tree_map(lambda a: 0.5 * rng.standard_normal(a.shape), models.layout(told))
    bias = p["time"]["linear2"]["bias"] + p["label"]["weight"][classes]
    own = {**{k: v for k, v in p.items() if k != "label"}}
    own["time"] = {**p["time"], "linear2": {**p["time"]["linear2"], "bias": bias}}
    x = rng.standard_normal((4, 2))

    def asked(network: Network, **conditions: Any) -> Any:
        return denoiser(partial(models.predict, reference, network), conditions)

    full, empty = (asked(Network(told, p), label=c) for c in (np.arange(4) % classes, np.full(4, classes)))
    ends = [
        final(ddim(schedule, predictor(schedule, model, "x0"), x, chosen, _noise(seed, x), 0.7))
        for model in (guided(full, empty, 0.0), asked(Network(plain, own)))
    ]
    return relative_error(ends[0], ends[1], scale=1 + np.abs(ends[1]))
