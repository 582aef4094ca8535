"""Claims about a scheduler's steps and runs, anybody's: what the equations demand of them, given its own alpha_bar.

What a step should do is [DDIM] eq. 12, which holds for the ancestral step, for DDIM at every eta, and for the first step
of every solver of the process. Runs are checked without chance: with a perfect network for one point or a Gaussian, a
run is linear in its noise, so a batch in which each sample has one of the noises set to 1 gives its mean and variance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from ..asking import Asked, Difference, difference, same_dtype, unchanged
from ..claim import claim
from ..scheduler import Scheduler
from ..strategies import seeds, shapes
from .scheduler import SHAPE, dtypes, lengths

# Where in a run: at its start, its end, inside, or late, where one step's noise is unlike the next's.
places: Any = st.one_of(st.just(0.0), st.just(0.999), st.floats(0, 0.999), st.floats(0.8, 0.999))


class _Step(NamedTuple):
    """A step from t to t_prev for data x0 of noise eps, seen by a perfect network, and what it does with noise z."""

    t: float
    t_prev: float
    x0: np.ndarray
    eps: np.ndarray
    z: np.ndarray
    quiet: np.ndarray  # the result without noise
    noisy: np.ndarray  # with z

    def parts(self) -> tuple[float, float, float, np.ndarray]:
        """quiet = p x0 + q eps, noisy - quiet = sigma z, by least squares; and what is left of both."""
        design = np.stack([self.x0.ravel(), self.eps.ravel()], axis=1)
        (p, q), *_ = np.linalg.lstsq(design, self.quiet.ravel(), rcond=None)
        sigma = float((self.noisy - self.quiet).ravel() @ self.z.ravel() / (self.z**2).sum())
        rest = self.quiet - p * self.x0 - q * self.eps, self.noisy - self.quiet - sigma * self.z
        return float(p), float(q), sigma, np.stack(rest)


def _step(ask: Asked, n: int, place: float, seed: int, reach: float = 0.9, last: bool = True) -> _Step:
    """A step of a run of n, at some place in it, each time as the first step that the scheduler takes."""
    rng, kind, steps = np.random.default_rng(seed), ask.kind(), ask.timesteps(n)
    i = int(place * (len(steps) if last else len(steps) - 1))
    t, t_prev = steps[i], [*steps, 0][i + 1]
    x0, (eps, z) = rng.uniform(-reach, reach, SHAPE), rng.standard_normal((2, *SHAPE))
    (a, s), results = ask.at(t), []
    for noise in (0 * z, z):
        ask.timesteps(n)
        result = ask.step(a * x0 + s * eps, t, t_prev, ask.output(kind, x0, eps, t), noise)
        results.append(result.astype(np.float64))
    return _Step(t, t_prev, x0, eps, z, *results)


def _goes(step: _Step) -> str:
    return f"the step from t = {step.t:g} to {step.t_prev:g}"


@claim(
    r"x_s = \sqrt{\bar\alpha_s}\, x_0 + \sqrt{1 - \bar\alpha_s - \sigma^2}\,\epsilon + \sigma z",
    source="[DDIM] eq. 12", of=Scheduler.step, against="q(x_s | x_0), whatever the step's own sigma", bound=0.01,
    needs=("alpha_bar", "target", "timesteps", "step"), n=lengths, place=places, seed=seeds(), examples=60,
)  # fmt: skip
def a_step_has_the_mean_and_the_noise_of_where_it_goes(scheduler: Scheduler, n: int, place: float, seed: int) -> float:
    """Told the truth, a step from t to s gives x_s: sqrt(abar_s) of the data, and of old and new noise together 1 - abar_s.

    With sigma^2 the posterior's variance this is the posterior's mean [DDPM] eq. 7.
    """
    ask = Asked(scheduler)
    step = _step(ask, min(n, ask.T), place, seed)
    p, q, sigma, rest = step.parts()
    a, s = ask.at(step.t_prev)
    least = ask.at(1)[1]  # the smallest noise there is, in whose units noise at t = 0 is measured
    return max(
        difference(f"{_goes(step)}, the part of x0", p, a, a),
        difference(f"{_goes(step)}, the noise left", np.hypot(q, sigma), s, max(s, least)),
        difference(f"{_goes(step)}, beside x0, eps and z", np.abs(rest).max(), 0, 1),
    )


@claim(
    r"0 \le \sigma^2 \le \tilde\beta = \tfrac{1 - \bar\alpha_s}{1 - \bar\alpha_t}(1 - \bar\alpha_t / \bar\alpha_s)",
    source="[DDIM] eq. 16", of=Scheduler.step, against="the posterior's variance from alpha_bar", bound=0.01,
    needs=("alpha_bar", "target", "timesteps", "step"), n=lengths, place=places, seed=seeds(), examples=60,
)  # fmt: skip
def a_steps_fresh_noise_is_at_most_the_posteriors(scheduler: Scheduler, n: int, place: float, seed: int) -> float:
    """eta from 0 to 1 times its standard deviation, the same for all elements and proportional to the noise."""
    ask = Asked(scheduler)
    step = _step(ask, min(n, ask.T), place, seed)
    _, _, sigma, rest = step.parts()
    (a, s), (a_prev, s_prev) = ask.at(step.t), ask.at(step.t_prev)
    most = s_prev / s * np.sqrt(max(1 - (a / a_prev) ** 2, 0))
    scale = max(most, ask.at(1)[1])
    return max(
        difference(f"{_goes(step)}, the share of fresh noise", max(sigma, most), most, scale),
        difference(f"{_goes(step)}, the share of fresh noise", min(sigma, 0), 0, scale),
        difference(f"{_goes(step)}, what is not proportional to its noise", np.abs(rest[1]).max(), 0, scale),
    )


@claim(
    r"z = 0 \quad\text{if}\ t_{i+1} = 0",
    source="[DDPM] algorithm 2", of=Scheduler.step, against="the last step with z = 0, in units of beta_1's noise",
    bound=0.01, needs=("alpha_bar", "target", "timesteps", "step"), n=lengths, seed=seeds(),
)  # fmt: skip
def the_last_step_adds_no_noise(scheduler: Scheduler, n: int, seed: int) -> float:
    """Whatever the last t of a run is."""
    ask = Asked(scheduler)
    step = _step(ask, min(n, ask.T), 0.9999, seed)
    return difference(f"{_goes(step)}, the share of fresh noise", step.parts()[2], 0, ask.at(1)[1])


@claim(
    r"x_s = f(x_t, t, s, \hat\epsilon, z)",
    source="[DDIM] eq. 12", of=Scheduler.step, against="the same step taken again after another", bound=1e-6,
    needs=("alpha_bar", "target", "timesteps", "step"), n=st.integers(5, 20), places=st.tuples(places, places), seed=seeds(),
)  # fmt: skip
def a_step_is_a_function_of_what_it_is_given(
    scheduler: Scheduler, n: int, places: tuple[float, float], seed: int
) -> float:
    """One step, another, and the first again, within a run: the same twice, and nothing given is written to."""
    ask, rng = Asked(scheduler), np.random.default_rng(seed)
    n, kind = min(n, ask.T), ask.kind()
    steps = [*ask.timesteps(n), 0]
    i, j = (int(place * (len(steps) - 1)) for place in places)
    first, second = (rng.uniform(-0.9, 0.9, SHAPE), *rng.standard_normal((2, *SHAPE))), rng.standard_normal((3, *SHAPE))
    results = []
    for k, (x0, eps, z) in ((i, first), (j, second), (i, first)):
        (a, s), output = ask.at(steps[k]), ask.output(kind, x0, eps, steps[k])
        x_t = a * x0 + s * eps
        with unchanged("step", x_t=x_t, output=output, noise=z):
            results.append(ask.step(x_t, steps[k], steps[k + 1], output, z))
    what = f"the step from t = {steps[i]:g} to {steps[i + 1]:g}, taken again after one from t = {steps[j]:g}"
    return difference(what, results[2], results[0], 1 + np.abs(results[0]))


@claim(
    r"x_s \in \mathbb R^{N \times \dots}\ \text{in the dtype of}\ x_t",
    source="[DDIM] eq. 12", of=Scheduler.step, against="the shape and dtype of what was given", bound=0.0,
    needs=("alpha_bar", "target", "timesteps", "step"), n=lengths, place=places, shape=shapes(min_dims=2), dtype=dtypes,
    seed=seeds(),
)  # fmt: skip
def a_step_keeps_shape_and_dtype(
    scheduler: Scheduler, n: int, place: float, shape: tuple[int, ...], dtype: str, seed: int
) -> float:
    """Never a silent cast."""
    ask, rng = Asked(scheduler), np.random.default_rng(seed)
    kind, steps = ask.kind(), ask.timesteps(min(n, ask.T))
    i = int(place * len(steps))
    x0, eps, z = rng.standard_normal((3, *shape)).astype(dtype)
    a, s = ask.at(steps[i])
    x_t = (a * x0 + s * eps).astype(dtype)
    came = ask.step(x_t, steps[i], [*steps, 0][i + 1], ask.output(kind, x0, eps, steps[i]), z)
    return same_dtype("step", came, x_t)


@claim(
    r"x_s = \sqrt{\bar\alpha_s}\, x_0 + \sqrt{1 - \bar\alpha_s - \sigma^2}\,\epsilon + \sigma z"
    r"\quad\text{in double precision}",
    source="[DDIM] eq. 12", of=Scheduler.step, against="q(x_s | x_0), whatever the step's own sigma", bound=1e-9,
    needs=("alpha_bar", "target", "timesteps", "step"), n=lengths, place=places, seed=seeds(),
)  # fmt: skip
def double_precision_data_are_stepped_in_double_precision(
    scheduler: Scheduler, n: int, place: float, seed: int
) -> float:
    """The noise left after a step of float64 data has float64's accuracy: coefficients are not silently float32. What is
    off by more than 1e-3 is not rounding, and another claim's affair."""
    ask = Asked(scheduler)
    step = _step(ask, min(n, ask.T), place, seed)
    _, q, sigma, _ = step.parts()
    s = ask.at(step.t_prev)[1]
    error = difference(f"{_goes(step)}, the noise left", np.hypot(q, sigma), s, max(s, ask.at(1)[1]))
    return error if error < 1e-3 else 0.0


@claim(
    r"x_t = \sqrt{\bar\alpha_t}\, \hat x_0 + \sqrt{1 - \bar\alpha_t}\, \hat\epsilon"
    r"\quad\text{also where}\ \hat x_0\ \text{is clipped}",
    source="[DDIM] eq. 12", of=Scheduler.step, against="one clipping range for all that is clipped", bound=0.01,
    needs=("alpha_bar", "target", "timesteps", "step"), n=st.integers(2, 20), place=places, seed=seeds(),
)  # fmt: skip
def a_clipped_prediction_changes_its_noise_too(scheduler: Scheduler, n: int, place: float, seed: int) -> float:
    """For predictions far outside the data's range the step is that of x0_hat, or of x0_hat clipped, with the eps_hat that
    x_t then has. Without clipping the claim holds by itself."""
    ask = Asked(scheduler)
    n = min(n, ask.T)
    if n < 2:
        return 0.0
    _, q, _, _ = _step(ask, n, place, seed, last=False).parts()
    far = _step(ask, n, place, seed, reach=5.0, last=False)
    (a, s), (a_prev, s_prev) = ask.at(far.t), ask.at(far.t_prev)
    # quiet = a_prev c + q (x_t - a c) / s for the c that was used as x0_hat
    of_c = a_prev - q * a / s
    c = (far.quiet - q / s * (a * far.x0 + s * far.eps)) / of_c
    clipped = np.abs(c - far.x0) > 0.05
    if not clipped.any():
        return 0.0
    limit = float(np.median(np.abs(c[clipped])))
    expected = np.clip(far.x0, -limit, limit)
    what = f"{_goes(far)}, x0_hat where it is clipped (its median is {limit:.3g})"
    return difference(what, c, expected, s_prev / of_c)


class _Run(NamedTuple):
    """The mean and the standard deviation of a run's result, (D,) each, and of what the network saw at each t."""

    mean: np.ndarray
    sd: np.ndarray
    seen: list[tuple[float, np.ndarray, np.ndarray]]


Denoise = Callable[[np.ndarray, Any, Any], np.ndarray]  # (x_t, a, s) -> E[x0 | x_t], linear in x_t


def _run(ask: Asked, n: int, denoise: Denoise, mean: np.ndarray, sd: Any) -> _Run:
    """A run of n steps from N(mean, sd^2): sample 0 has no noise at all, each other one of the noises at size 1."""
    kind = ask.kind()
    seen: list[tuple[float, np.ndarray]] = []
    drawn = 0

    def model(x: np.ndarray, t: float) -> np.ndarray:
        a, s = ask.at(t)
        seen.append((t, x.astype(np.float64)))
        x0 = denoise(x.astype(np.float64), a, s)
        return ask.output(kind, x0, (x - a * x0) / s, t).astype(x.dtype)

    def noise(t: float) -> np.ndarray:
        nonlocal drawn
        z = np.zeros_like(x)
        z[drawn + 2 : drawn + 3] = 1
        drawn += 1
        return z

    x = mean[None] + np.zeros((1, 1))
    ask.sample(model, x, n, noise)  # counts the noises
    x = mean[None] + np.zeros((drawn + 2, 1))
    x[1] += sd
    drawn = 0
    seen.clear()
    result = ask.sample(model, x, n, noise).astype(np.float64)
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


def _returns(scheduler: Scheduler, n: int, seed: int) -> Difference:
    """How far a run of n from pure noise ends from data at one point, with a perfect network."""
    ask = Asked(scheduler)
    n = min(n, ask.T)
    x0, denoise = _point(np.random.default_rng(seed))
    run = _run(ask, n, denoise, np.zeros(4), 1.0)
    return max(
        difference(f"the end of a run of {n}", run.mean, x0, 1),
        difference(f"the noise left at the end of a run of {n}", run.sd, 0, 1),
    )


@claim(
    r"q(x_0) = \delta \implies x_0\ \text{is what comes back}",
    source="[DDPM] section 3.2", of=Scheduler.sample, against="the point", bound=2e-3,
    needs=("alpha_bar", "target", "sample"), n=lengths, seed=seeds(), examples=15,
)  # fmt: skip
def data_at_one_point_come_back(scheduler: Scheduler, n: int, seed: int) -> float:
    """With a perfect network, from pure noise, for any number of steps, and without noise left in the result."""
    return _returns(scheduler, n, seed)


@claim(
    r"q(x_0) = \delta \implies x_0\ \text{is what comes back, for}\ n = T",
    source="[DDPM] algorithm 2", of=Scheduler.sample, against="the point", bound=2e-3,
    needs=("alpha_bar", "target", "sample"), seed=seeds(), examples=1,
)  # fmt: skip
def data_at_one_point_come_back_in_all_steps(scheduler: Scheduler, seed: int) -> float:
    """The whole process, step by step."""
    return _returns(scheduler, Asked(scheduler).T, seed)


@claim(
    r"x_{t_i} \sim q(x_{t_i} \mid x_0)\ \text{at every step of a run}",
    source="[DDIM] appendix B", of=Scheduler.sample, against="the mean and spread that alpha_bar gives at the t it is told",
    bound=0.03, needs=("alpha_bar", "target", "timesteps", "sample"), n=lengths.filter(lambda n: n > 3), seed=seeds(),
    examples=15,
)  # fmt: skip
def the_network_is_shown_the_noise_of_the_t_it_is_told(scheduler: Scheduler, n: int, seed: int) -> float:
    """A run begun in q(x_t | x_0) at its first t stays in it, for data at one point and a perfect network."""
    ask = Asked(scheduler)
    n = min(n, ask.T)
    x0, denoise = _point(np.random.default_rng(seed))
    a, s = ask.at(ask.timesteps(n)[0])
    errors = []
    for t, mean, sd in _run(ask, n, denoise, a * x0, s).seen:
        a, s = ask.at(t)
        errors.append(
            difference(f"the mean of what the network is shown at t = {t:g} of a run of {n}", mean, a * x0, s)
        )
        errors.append(difference(f"the noise in what the network is shown at t = {t:g} of a run of {n}", sd, s, s))
    return max(errors)


@claim(
    r"q(x_0) = \mathcal N(m, v) \implies x_0 \sim \mathcal N(m, v)\ \text{as}\ n \to T",
    source="[DDPM] algorithm 2", of=Scheduler.sample, against="m and v, in standard deviations", bound=0.1,
    needs=("alpha_bar", "target", "sample"), seed=seeds(), examples=4,
)  # fmt: skip
def gaussian_data_come_back_in_many_steps(scheduler: Scheduler, seed: int) -> float:
    """With the exact denoiser: after 250 steps (or T) the mean and the spread are the data's but for the discretisation."""
    ask = Asked(scheduler)
    n = min(250, ask.T)
    m, v, denoise = _gaussian(np.random.default_rng(seed))
    run = _run(ask, n, denoise, np.zeros(4), 1.0)
    sd = np.sqrt(v)
    scale = sd * max(1, 250 / n)
    return max(
        difference(f"the mean after {n} steps", run.mean, m, scale),
        difference(f"the spread after {n} steps", run.sd, sd, scale),
    )


@claim(
    r"|\hat q_{4n} - q| \le \tfrac12 |\hat q_n - q|",
    source="[DDIM] section 4.3", of=Scheduler.sample, against="the error with a quarter of the steps", bound=1.0,
    needs=("alpha_bar", "target", "sample"), seed=seeds(), n=st.integers(15, 40), examples=4,
)  # fmt: skip
def more_steps_bring_a_run_closer_to_the_data(scheduler: Scheduler, seed: int, n: int) -> float:
    """Four times the steps halve the error in mean and spread, or leave at most 3 %; at order 1 they would quarter it."""
    ask = Asked(scheduler)
    m, v, denoise = _gaussian(np.random.default_rng(seed))
    sd = np.sqrt(v)
    if 4 * n > ask.T:
        return 0.0
    few, many = (
        max(np.abs((run.mean - m) / sd).max(), np.abs(run.sd / sd - 1).max())
        for run in (_run(ask, k, denoise, np.zeros(4), 1.0) for k in (n, 4 * n))
    )
    text = (
        f"Gaussian data in {4 * n} steps: expected an error of at most half the {few:.3g} of {n} steps, got {many:.3g}"
    )
    return Difference(many / max(few / 2, 0.03), text)


@claim(
    r"n = 1:\quad x_0 = \mathbb E[x_0 \mid x_T]",
    source="[DDIM] eq. 12", of=Scheduler.sample, against="the exact mean of Gaussian data given x_T", bound=0.01,
    needs=("alpha_bar", "target", "sample"), seed=seeds(), examples=4,
)  # fmt: skip
def one_step_gives_the_mean_of_the_data(scheduler: Scheduler, seed: int) -> float:
    """A run of one step goes from T to 0 at once, where only x0_hat is left."""
    ask = Asked(scheduler)
    m, v, denoise = _gaussian(np.random.default_rng(seed))
    run = _run(ask, 1, denoise, np.zeros(4), 1.0)
    a, s = ask.at(ask.T)
    gain = a * v / (a**2 * v + s**2)
    return max(
        difference("the mean after one step", run.mean, m - gain * a * m, 1),
        difference("the spread after one step", run.sd, gain, 1),
    )


@claim(
    r"x_0 = f(x_T, \hat\epsilon, z)",
    source="[DDIM] section 4.3", of=Scheduler.sample, against="the same run again, after one of another length", bound=1e-6,
    needs=("alpha_bar", "target", "sample"), n=lengths, other=lengths, dtype=dtypes, seed=seeds(), examples=15,
)  # fmt: skip
def a_run_leaves_nothing_behind(scheduler: Scheduler, n: int, other: int, dtype: str, seed: int) -> float:
    """The same input gives the same result, in its shape and dtype, and nothing given is written to."""
    ask, rng = Asked(scheduler), np.random.default_rng(seed)
    kind, results = ask.kind(), []
    x0, x = rng.uniform(-0.9, 0.9, (2, *SHAPE)).astype(dtype)
    z = rng.standard_normal(SHAPE).astype(dtype)

    def model(x_t: np.ndarray, t: float) -> np.ndarray:
        a, s = ask.at(t)
        return ask.output(kind, x0, (x_t - a * x0) / s, t)

    for k in (n, other, n):
        with unchanged("sample", x=x, noise=z):
            results.append(ask.sample(model, x, min(k, ask.T), lambda t: z))
    same_dtype("sample", results[0], x)
    return difference(f"a run of {n} repeated after one of {other}", results[2], results[0], 1)
