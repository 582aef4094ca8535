"""Claims about a scheduler's whole runs, anybody's: what comes of them with a perfect network, given its own alpha_bar.

Runs are checked without chance: with a perfect network for one point or a Gaussian, a run is linear in its noise, so a
batch in which each sample has one of the noises set to 1 gives its mean and variance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from ..checked_scheduler import CheckedScheduler, unchanged
from ..claim import claim
from ..differences import Difference, difference, gravest, same_dtype
from ..scheduler import Scheduler
from ..strategies import seeds
from .scheduler import SHAPE, dtypes, lengths, longer, short
from .steps import levels


class _Run(NamedTuple):
    """The mean and the standard deviation of a run's result, (D,) each, and of what the network saw at each t."""

    mean: np.ndarray
    sd: np.ndarray
    seen: list[tuple[float, np.ndarray, np.ndarray]]


Denoise = Callable[[np.ndarray, Any, Any], np.ndarray]  # (x_t, a, s) -> E[x0 | x_t], linear in x_t


def _run(checked: CheckedScheduler, n: int, denoise: Denoise, mean: np.ndarray, sd: Any) -> _Run:
    """A run of n steps from N(mean, sd^2): sample 0 has no noise at all, each other one of the noises at size 1."""
    kind = checked.kind()
    seen: list[tuple[float, np.ndarray]] = []
    drawn = 0

    def model(x: np.ndarray, t: float) -> np.ndarray:
        a, s = checked.at(t)
        seen.append((t, x.astype(np.float64)))
        x0 = denoise(x.astype(np.float64), a, s)
        return checked.output(kind, x0, (x - a * x0) / s, t).astype(x.dtype)

    def noise(t: float) -> np.ndarray:
        nonlocal drawn
        z = np.zeros_like(x)
        z[drawn + 2 : drawn + 3] = 1
        drawn += 1
        return z

    x = mean[None] + np.zeros((1, 1))
    checked.fresh().sample(model, x, n, noise)  # counts the noises
    x = mean[None] + np.zeros((drawn + 2, 1))
    x[1] += sd
    drawn = 0
    seen.clear()
    result = checked.fresh().sample(model, x, n, noise).astype(np.float64)
    return _Run(*_moments(result), [(t, *_moments(x_t)) for t, x_t in seen])


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x[0], np.sqrt(((x[1:] - x[0]) ** 2).sum(axis=0))


def _point(rng: np.random.Generator) -> tuple[np.ndarray, Denoise]:
    """Data at one point (4,), which a perfect network knows."""
    x0 = rng.uniform(-0.9, 0.9, 4)
    return x0, lambda x, a, s: x0 + 0 * x


def _gaussian(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Denoise]:
    """Data N(m, v), (4,), and E[x0 | x_t] = m + a v (x_t - a m) / (a^2 v + s^2)."""
    m, v = rng.uniform(-0.4, 0.4, 4), rng.uniform(0.2, 0.4, 4) ** 2
    return m, v, lambda x, a, s: m + a * v / (a**2 * v + s**2) * (x - a * m)


def _returns(scheduler: Scheduler, lengths: Sequence[int], seed: int) -> Difference:
    """How far runs of these lengths from pure noise end from data at one point, with a perfect network."""
    checked = CheckedScheduler(scheduler)
    x0, denoise = _point(np.random.default_rng(seed))
    (a, s), errors = checked.at(1), []
    for n in dict.fromkeys(map(checked.steps_of, lengths)):
        run = _run(checked, n, denoise, np.zeros(4), 1.0)
        scale = max(1.0, checked.lost(run.seen[-1][0], 0) / 2e-3) if run.seen else 1.0
        # About the noise of t = 1 in place of the data: what diffusers leaves without set_alpha_to_one.
        one = np.abs(run.mean - a * x0).max() < s and np.all((0.75 * s < run.sd) & (run.sd < 1.25 * s))
        kind = "convention" if one else ""
        errors.append(difference(f"the end of a run of {n}", run.mean, x0, scale, kind=kind))
        errors.append(difference(f"the noise left at the end of a run of {n}", run.sd, 0, scale, kind=kind))
    return gravest(2e-3, errors)


@claim(
    r"q(x_0) = \delta \implies x_0\ \text{is what comes back}",
    source="[DDPM] section 3.2", of=Scheduler.sample, against="the point", bound=2e-3,
    needs=("alpha_bar", "target", "sample"), n=longer, seed=seeds(), examples=6,
)  # fmt: skip
def data_at_one_point_come_back(scheduler: Scheduler, n: int, seed: int) -> float:
    """With a perfect network, from pure noise, for any number of steps, and without noise left in the result."""
    return _returns(scheduler, (*short, n), seed)


@claim(
    r"q(x_0) = \delta \implies x_0\ \text{is what comes back, for}\ n = T",
    source="[DDPM] algorithm 2", of=Scheduler.sample, against="the point", bound=2e-3,
    needs=("alpha_bar", "target", "sample"), seed=seeds(), examples=1,
)  # fmt: skip
def data_at_one_point_come_back_in_all_steps(scheduler: Scheduler, seed: int) -> float:
    """The whole process, step by step."""
    return _returns(scheduler, [CheckedScheduler(scheduler).T], seed)


@claim(
    r"x_{t_i} \sim q(x_{t_i} \mid x_0)\ \text{at every step of a run}",
    source="[DDIM] appendix B", of=Scheduler.sample, against="the mean and spread that alpha_bar gives at the t it receives",
    bound=0.03, needs=("alpha_bar", "target", "timesteps", "sample"), n=longer, seed=seeds(),
    examples=6,
)  # fmt: skip
def the_network_is_shown_the_noise_of_the_t_it_is_told(scheduler: Scheduler, n: int, seed: int) -> float:
    """A run begun in q(x_t | x_0) at its first t stays in it, for data at one point and a perfect network. With noise of
    variance beta there is that much more."""
    checked = CheckedScheduler(scheduler)
    x0, denoise = _point(np.random.default_rng(seed))
    errors = []
    for k in dict.fromkeys(map(checked.steps_of, (*(k for k in short if k > 3), n))):
        a, s = checked.at(checked.timesteps(k)[0])
        seen = _run(checked, k, denoise, a * x0, s).seen
        before = checked.timesteps(k)[0]
        for (t, mean, sd), expected in zip(seen, _spreads(checked, [t for t, *_ in seen]), strict=True):
            (a, s), lost, before = checked.at(t), checked.lost(before, t), t
            scale = max(s, lost / 0.03)
            what = f"in what the network is shown at t = {t:g} of a run of {k}"
            errors.append(difference(f"the mean {what}", mean, a * x0, scale))
            errors.append(difference(f"the noise {what}", sd, expected, scale))
    return max(errors)


def _spreads(checked: CheckedScheduler, steps: list[float]) -> list[float]:
    """The standard deviation at each step of a run for data at one point: sqrt(1 - alpha_bar), more with beta's noise."""
    spread = [float(checked.at(steps[0])[1])]
    for t, t_prev in pairwise(steps):
        if checked.variance != "beta":
            spread.append(float(checked.at(t_prev)[1]))
            continue
        of = levels(checked, t, t_prev)
        kept = max(of.r**2 - of.posterior, 0.0) / of.s**2  # of the variance of old noise
        spread.append((kept * spread[-1] ** 2 + of.beta) ** 0.5)
    return spread


@claim(
    r"q(x_0) = \mathcal N(m, v) \implies x_0 \sim \mathcal N(m, v)\ \text{as}\ n \to T",
    source="[DDPM] algorithm 2", of=Scheduler.sample, against="m and v, in standard deviations", bound=0.1,
    needs=("alpha_bar", "target", "sample"), seed=seeds(), examples=4,
)  # fmt: skip
def gaussian_data_come_back_in_many_steps(scheduler: Scheduler, seed: int) -> float:
    """With the exact denoiser: after 250 steps (or T) the mean and the spread are the data's but for the discretisation,
    for which there is room; more only where [DDIM] eq. 12 needs it in the same steps, as where T leaves signal."""
    checked = CheckedScheduler(scheduler)
    n = checked.steps_of(250)
    m, v, denoise = _gaussian(np.random.default_rng(seed))
    run = _run(checked, n, denoise, np.zeros(4), 1.0)
    sd = np.sqrt(v)
    scale = sd * max(1, 250 / n)
    means, spreads = zip((m, sd), *_eq_12(checked, run, m, v), strict=True)
    return max(
        difference(f"the mean after {n} steps", run.mean, _nearest(run.mean, means), scale),
        difference(f"the spread after {n} steps", run.sd, _nearest(run.sd, spreads), scale),
    )


def _nearest(actual: np.ndarray, among: Sequence[np.ndarray]) -> np.ndarray:
    """The nearest that lies between the smallest and the largest."""
    return np.clip(actual, np.min(among, axis=0), np.max(among, axis=0))


def _eq_12(checked: CheckedScheduler, run: _Run, m: np.ndarray, v: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The mean and the spread that [DDIM] eq. 12 with eta = 0 and 1 (and noise of beta, if that is declared) ends in, for
    N(m, v) and its exact denoiser, in the steps of a run from N(0, 1). Each step is linear: x - a m becomes g (x - a m)."""
    steps = sorted({t for t, *_ in run.seen}, reverse=True)
    ends = []
    for eta, beta in ((0, False), (1, False), *([(1, True)] if checked.variance == "beta" else [])):
        off, variance = -float(checked.at(steps[0])[0]) * m if steps else 0 * m, np.ones_like(m)
        for t, t_prev in pairwise([*steps, 0]):
            of = levels(checked, t, t_prev)
            k, fresh = of.a * v / (of.a**2 * v + of.s**2), eta * of.posterior
            g = of.b * k + np.sqrt(max(of.r**2 - fresh, 0)) * (1 - of.a * k) / of.s
            off, variance = g * off, g**2 * variance + (of.allowed("beta") if beta else fresh)
        ends.append((m + off, np.sqrt(variance)))
    return ends


@claim(
    r"|\hat q_{4n} - q| \le \tfrac12 |\hat q_n - q|",
    source="[DDIM] section 4.3", of=Scheduler.sample, against="the error with a quarter of the steps", bound=1.0,
    needs=("alpha_bar", "target", "sample"), seed=seeds(), n=st.integers(15, 40), examples=4, unless=("all_steps",),
)  # fmt: skip
def more_steps_bring_a_run_closer_to_the_data(scheduler: Scheduler, seed: int, n: int) -> float:
    """Four times the steps halve the error in mean and spread, or leave at most 3 %; at order 1 they would quarter it.
    Where [DDIM] eq. 12 does not do so in the same steps, its error is allowed: few steps can be too coarse."""
    checked = CheckedScheduler(scheduler)
    m, v, denoise = _gaussian(np.random.default_rng(seed))
    sd = np.sqrt(v)
    if 4 * n > checked.T:
        return 0.0

    def error(mean: np.ndarray, spread: np.ndarray) -> float:
        return float(max(np.abs((mean - m) / sd).max(), np.abs(spread / sd - 1).max()))

    runs = [_run(checked, k, denoise, np.zeros(4), 1.0) for k in (n, 4 * n)]
    few, many = (error(run.mean, run.sd) for run in runs)
    usual = zip(*([error(*end) for end in _eq_12(checked, run, m, v)] for run in runs), strict=True)
    coarse = max((1.01 * late for early, late in usual if late > 0.4 * early), default=0.0)
    most, why = max((few / 2, f"half the {few:.3g} of {n} steps"), (coarse, f"the {coarse:.3g} of [DDIM] eq. 12"))
    text = f"Gaussian data in {4 * n} steps: expected an error of at most {why}, got {many:.3g}"
    return Difference(many / max(most, 0.03), text)


@claim(
    r"n = 1:\quad x_0 = \mathbb E[x_0 \mid x_T]",
    source="[DDIM] eq. 12", of=Scheduler.sample, against="the exact mean of Gaussian data given x_T", bound=0.01,
    needs=("alpha_bar", "target", "sample"), seed=seeds(), examples=4, unless=("all_steps",),
)  # fmt: skip
def one_step_gives_the_mean_of_the_data(scheduler: Scheduler, seed: int) -> float:
    """A run of one step goes from T to 0 at once, where only x0_hat is left. To begin it before T is a convention."""
    checked = CheckedScheduler(scheduler)
    m, v, denoise = _gaussian(np.random.default_rng(seed))
    run = _run(checked, 1, denoise, np.zeros(4), 1.0)
    first = run.seen[0][0] if run.seen else checked.T
    a, s = checked.at(checked.T)
    gain = a * v / (a**2 * v + s**2)
    least, scale = float(checked.at(1)[1]), max(1.0, checked.lost(first, 0) / 0.01)
    one = bool(np.all(np.abs(run.sd - gain - least) < 0.25 * least))  # the noise of t = 1 is left in the result
    kind = "convention" if one or first != checked.T else ""
    begun = "" if first == checked.T else f", begun at t = {first:g} of {checked.T}"
    return max(
        difference(f"the mean after one step{begun}", run.mean, m - gain * a * m, scale, kind=kind),
        difference(f"the spread after one step{begun}", run.sd, gain, scale, kind=kind),
    )


@claim(
    r"x_0 = f(x_T, \hat\epsilon, z)",
    source="[DDIM] section 4.3", of=Scheduler.sample, against="the same run again, after one of another length", bound=1e-6,
    needs=("alpha_bar", "target", "sample"), n=lengths, other=lengths, dtype=dtypes, seed=seeds(), examples=10,
)  # fmt: skip
def a_run_leaves_nothing_behind(scheduler: Scheduler, n: int, other: int, dtype: str, seed: int) -> float:
    """The same input gives the same result, in its shape and dtype, and nothing given is written to. Where alpha_bar_T is
    too small for a dtype, the next wider one is asked."""
    checked, rng = CheckedScheduler(scheduler), np.random.default_rng(seed)
    kind, n, other = checked.kind(), checked.steps_of(n), checked.steps_of(other)
    dtype = checked.carried(dtype, checked.T)
    x, z = rng.standard_normal((2, *SHAPE)).astype(dtype)

    def model(x_t: np.ndarray, t: float) -> np.ndarray:
        """E[x0 | x_t] for data N(0.1, 0.1): the result then depends on all that a run is given."""
        a, s = checked.at(t)
        x0 = (0.1 + 0.1 * a / (0.1 * a**2 + s**2) * (x_t - 0.1 * a)).astype(dtype)
        return checked.output(kind, x0, (x_t - a * x0) / s, t)

    def run(one: CheckedScheduler, k: int) -> np.ndarray:
        with unchanged("sample", x=x, noise=z):
            return one.sample(model, x, k, lambda t: z)

    twin, results = run(checked.fresh(), n), [run(checked, k) for k in (n, other, n)]
    own = difference(f"a run of {n} by a copy (shared state, or noise of its own?)", twin, results[0], 1)
    dtypes_differ = same_dtype("sample", results[0], x)
    left = f"state left behind: a run of {n}, repeated after one of {other}"
    return max(dtypes_differ, own) if own > 1e-6 or dtypes_differ else difference(left, results[2], results[0], 1)
