"""Claims about a scheduler's single steps, anybody's: what the equations demand of them, given its own alpha_bar.

What a step should do is [DDIM] eq. 12, which holds for the ancestral step, for DDIM at every eta, and for the first step
of every solver of the process. How far it is off is measured in units of what the step changes: of a thousand steps each
changes little, and an error of that size is still the whole of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from ..checked_scheduler import CheckedScheduler, unchanged
from ..claim import claim
from ..differences import DOUBLE, ROUNDINGS, SINGLE, Difference, difference, gravest, same_dtype
from ..scheduler import Scheduler
from ..strategies import seeds, shapes
from .scheduler import SHAPE, dtypes, lengths

# Where in a run: at its start, its end, inside, or late, where one step's noise is unlike the next's.
places: Any = st.one_of(st.just(0.0), st.just(0.999), st.floats(0, 0.999), st.floats(0.8, 0.999))


class Step(NamedTuple):
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

    def __str__(self) -> str:
        return f"the step from t = {self.t:g} to {self.t_prev:g}"


def take(checked: CheckedScheduler, n: int, place: float, seed: int, reach: float = 0.9, last: bool = True) -> Step:
    """A step of a run of n, at some place in it, each time as the first step that the scheduler takes."""
    rng, kind, steps = np.random.default_rng(seed), checked.kind(), checked.timesteps(n)
    i = int(place * (len(steps) if last else len(steps) - 1))
    t, t_prev = steps[i], [*steps, 0][i + 1]
    x0, (eps, z) = rng.uniform(-reach, reach, SHAPE), rng.standard_normal((2, *SHAPE))
    (a, s), results = checked.at(t), []
    for noise in (0 * z, z):
        one = checked.fresh()
        one.timesteps(n)
        result = one.step(a * x0 + s * eps, t, t_prev, checked.output(kind, x0, eps, t), noise)
        results.append(result.astype(np.float64))
    return Step(t, t_prev, x0, eps, z, *results)


class _Levels(NamedTuple):
    """What a step from t to t_prev should do: coefficients of the data and of the noise before (a, s) and after (b, r)."""

    a: float
    s: float
    b: float
    r: float
    beta: float  # 1 - alpha_{t|t_prev}
    posterior: float  # (r / s)^2 beta, the variance of q(x_s | x_t, x_0)

    def allowed(self, variance: str) -> float:
        """The variance that the fresh noise may have."""
        return self.beta if variance == "beta" and self.r > 0 else self.posterior


def levels(checked: CheckedScheduler, t: float, t_prev: float) -> _Levels:
    """From alpha_bar alone."""
    (a, s), (b, r) = (map(float, checked.at(v)) for v in (t, t_prev))
    beta = max(1 - (a / b) ** 2, 0.0)
    return _Levels(a, s, b, r, beta, (r / s) ** 2 * beta)


def _left(checked: CheckedScheduler, of: _Levels) -> float:
    """The variance of all noise, old and new, that a step should leave: 1 - alpha_bar_s, more if its own is beta."""
    return of.r**2 + of.allowed(checked.variance) - of.posterior


def _rounding(of: _Levels, q: float, lost: float) -> tuple[float, float, float]:
    """What float32 may make of the part of x0, of the noise's variance, and of an element: 1 - alpha_bar_t is a difference
    from 1, and x0_hat of a prediction of the noise is divided by sqrt(alpha_bar_t), see `CheckedScheduler.lost`."""
    one = ROUNDINGS * SINGLE
    of_x0, of_eps = one * of.b / of.s**2 + lost, one / of.s + lost
    return of_x0, one + 2 * abs(q) * of_eps + of_eps**2, 4 * (of_eps + of_x0)


def misses(checked: CheckedScheduler, step: Step) -> list[Difference]:
    """How far a step is off, in units of the result, or of 50 times what float32 may lose if that is more, and in units of
    what it changes, what float32 makes of it apart."""
    p, q, sigma, rest = step.parts()
    of = levels(checked, step.t, step.t_prev)
    left = _left(checked, of)
    lost = checked.lost(step.t, step.t_prev)
    of_x0, of_noise, of_rest = _rounding(of, q, lost)
    removed = max(of.s**2 - left + sigma**2, 0.0)  # of the old noise's variance
    changed = of.b - of.a + removed / (of.s + abs(q)) + abs(sigma)
    least = float(checked.at(1)[1])  # the smallest noise there is, in whose units noise at t = 0 is measured
    size, worst = float(np.hypot(q, sigma)), float(np.abs(rest).max())
    kind = "convention" if step.t_prev == 0 and _ends_at_one(checked, p, size) else ""
    names = [f"{step}, {part}" for part in ("the part of x0", "the noise left", "beside x0, eps and z")]
    return [
        difference(names[0], p, of.b, max(of.b, 50 * lost), kind=kind),
        difference(names[1], size, left**0.5, max(left**0.5, least, 50 * lost), kind=kind),
        difference(names[2], worst, 0, max(1, 200 * lost), kind=kind),
        difference(f"{names[0]}, in units of its change", p, of.b, of.b - of.a, of_x0, kind),
        difference(f"{names[1]}, its variance in units of what is removed", size**2, left, removed, of_noise, kind),
        difference(f"{names[2]}, in units of the change", worst, 0, changed, of_rest, kind),
    ]


def _ends_at_one(checked: CheckedScheduler, p: float, size: float) -> bool:
    """Whether a result is x at t = 1 in place of the data."""
    a, s = checked.at(1)
    return bool(abs(p - a) < 0.05 * s and abs(size - s) < 0.05 * s)


def late(checked: CheckedScheduler) -> Step:
    """The last step of a run of 10 but one, where beta and the posterior's variance differ most."""
    steps = checked.timesteps(checked.steps_of(10))
    assert len(steps) > 1, f"timesteps({checked.steps_of(10)}): expected more than one step"
    return take(checked, checked.steps_of(10), (len(steps) - 1.5) / len(steps), 0)


def adds_beta(checked: CheckedScheduler) -> bool:
    """Whether a step late in a run adds noise of variance beta_{t|s}, where that is not the posterior's."""
    step = late(checked)
    of, (_, _, sigma, _) = levels(checked, step.t, step.t_prev), step.parts()
    return of.posterior < 0.9 * of.beta and abs(sigma**2 - of.beta) < 0.01 * of.beta


@claim(
    r"x_s = \sqrt{\bar\alpha_s}\, x_0 + \sqrt{1 - \bar\alpha_s - \sigma^2}\,\epsilon + \sigma z",
    source="[DDIM] eq. 12", of=Scheduler.step, against="q(x_s | x_0), whatever the step's own sigma, in units of the change",
    bound=0.01, needs=("alpha_bar", "target", "timesteps", "step"), n=lengths, place=places, seed=seeds(), examples=60,
)  # fmt: skip
def a_step_has_the_mean_and_the_noise_of_where_it_goes(scheduler: Scheduler, n: int, place: float, seed: int) -> float:
    """Told the truth, a step from t to s gives x_s: sqrt(abar_s) of the data, and of old and new noise together 1 - abar_s.

    With sigma^2 the posterior's variance this is the posterior's mean [DDPM] eq. 7. What float32 makes of coefficients is
    not counted.
    """
    checked = CheckedScheduler(scheduler)
    return gravest(0.01, misses(checked, take(checked, checked.steps_of(n), place, seed)))


@claim(
    r"\hat x_0 = (x_T - \sqrt{1 - \bar\alpha_T}\,\hat\epsilon) / \sqrt{\bar\alpha_T},\quad n = 1",
    source="[DDIM] eq. 12", of=Scheduler.step, against="the data", bound=0.01,
    needs=("alpha_bar", "target", "timesteps", "step"), seed=seeds(), examples=5, unless=("all_steps",),
)  # fmt: skip
def the_step_of_a_run_of_one_goes_to_the_data(scheduler: Scheduler, seed: int) -> float:
    """The shortest run, with a perfect network. A claim of its own, so that what fails here fails nowhere else."""
    checked = CheckedScheduler(scheduler)
    return gravest(0.01, misses(checked, take(checked, 1, 0.0, seed)))


@claim(
    r"0 \le \sigma^2 \le \tilde\beta = \tfrac{1 - \bar\alpha_s}{1 - \bar\alpha_t}(1 - \bar\alpha_t / \bar\alpha_s)",
    source="[DDIM] eq. 16", of=Scheduler.step, against="the posterior's variance from alpha_bar", bound=0.01,
    needs=("alpha_bar", "target", "timesteps", "step"), n=lengths, place=places, seed=seeds(), examples=60,
)  # fmt: skip
def a_steps_fresh_noise_is_at_most_the_posteriors(scheduler: Scheduler, n: int, place: float, seed: int) -> float:
    """eta from 0 to 1 times its standard deviation, the same for all elements and proportional to the noise. That of
    beta_{t|s}, the larger of the two variances in [DDPM] section 3.2, is a convention to be declared."""
    checked = CheckedScheduler(scheduler)
    step = take(checked, checked.steps_of(n), place, seed)
    _, _, sigma, rest = step.parts()
    most, least = levels(checked, step.t, step.t_prev).allowed(checked.variance) ** 0.5, float(checked.at(1)[1])
    scale = max(most, least)
    off = [
        difference(f"{step}, the share of fresh noise", max(sigma, most), most, scale),
        difference(f"{step}, the share of fresh noise", min(sigma, 0), 0, scale),
        difference(f"{step}, what is not proportional to its noise", np.abs(rest[1]).max(), 0, scale),
    ]
    if checked.found("variance"):  # all else is held to beta's, so that only this says it
        step = late(checked)
        usual = levels(checked, step.t, step.t_prev).posterior ** 0.5
        what = f"{step}, the share of fresh noise (that of beta: declare variance = 'beta')"
        off.append(difference(what, step.parts()[2], usual, max(usual, least), kind="convention"))
    return gravest(0.01, off)


@claim(
    r"z = 0 \quad\text{if}\ t_{i+1} = 0",
    source="[DDPM] algorithm 2", of=Scheduler.step, against="the last step with z = 0, in units of beta_1's noise",
    bound=0.01, needs=("alpha_bar", "target", "timesteps", "step"), n=lengths, seed=seeds(),
)  # fmt: skip
def the_last_step_adds_no_noise(scheduler: Scheduler, n: int, seed: int) -> float:
    """Whatever the last t of a run is."""
    checked = CheckedScheduler(scheduler)
    step = take(checked, checked.steps_of(n), 0.9999, seed)
    return difference(f"{step}, the share of fresh noise", step.parts()[2], 0, checked.at(1)[1])


@claim(
    r"x_s = f(x_t, t, s, \hat\epsilon, z)",
    source="[DDIM] eq. 12", of=Scheduler.step, against="the same step taken again after another", bound=1e-6,
    needs=("alpha_bar", "target", "timesteps", "step"), n=st.integers(5, 20), places=st.tuples(places, places), seed=seeds(),
    failure="convention",
)  # fmt: skip
def a_step_is_a_function_of_what_it_is_given(
    scheduler: Scheduler, n: int, places: tuple[float, float], seed: int
) -> float:
    """One step, another, and the first again, within a run: the same twice, and nothing given is written to. A method of
    several steps remembers, by convention; the claims about runs say whether it does so rightly."""
    checked, rng = CheckedScheduler(scheduler), np.random.default_rng(seed)
    n, kind = checked.steps_of(n), checked.kind()
    steps = [*checked.timesteps(n), 0]
    i, j = (int(place * (len(steps) - 1)) for place in places)
    first, second = (rng.uniform(-0.9, 0.9, SHAPE), *rng.standard_normal((2, *SHAPE))), rng.standard_normal((3, *SHAPE))
    results = []
    for k, (x0, eps, z) in ((i, first), (j, second), (i, first)):
        (a, s), output = checked.at(steps[k]), checked.output(kind, x0, eps, steps[k])
        x_t = a * x0 + s * eps
        try:
            with unchanged("step", x_t=x_t, output=output, noise=z):
                results.append(checked.step(x_t, steps[k], steps[k + 1], output, z))
        except Exception as error:
            if not results or (isinstance(error, AssertionError) and str(error)):  # ours have a message
                raise
            what = f"the step from t = {steps[k]:g} after one from t = {steps[i]:g}"
            return Difference(np.inf, f"{what} raised {type(error).__name__}: {error}")
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
    """Never a silent cast. Where alpha_bar_t is too small for a dtype, the next wider one is asked."""
    checked, rng = CheckedScheduler(scheduler), np.random.default_rng(seed)
    kind, steps = checked.kind(), checked.timesteps(checked.steps_of(n))
    i = int(place * len(steps))
    dtype = checked.carried(dtype, steps[i])
    x0, eps, z = rng.standard_normal((3, *shape)).astype(dtype)
    a, s = checked.at(steps[i])
    x_t = (a * x0 + s * eps).astype(dtype)
    actual = checked.step(x_t, steps[i], [*steps, 0][i + 1], checked.output(kind, x0, eps, steps[i]), z)
    return same_dtype("step", actual, x_t)


@claim(
    r"x_s = \sqrt{\bar\alpha_s}\, x_0 + \sqrt{1 - \bar\alpha_s - \sigma^2}\,\epsilon + \sigma z"
    r"\quad\text{in double precision}",
    source="[DDIM] eq. 12", of=Scheduler.step, against="q(x_s | x_0), whatever the step's own sigma", bound=1e-9,
    needs=("alpha_bar", "target", "timesteps", "step"), n=lengths, place=places, seed=seeds(), failure="rounding",
    unless=("float32",),
)  # fmt: skip
def double_precision_data_are_stepped_in_double_precision(
    scheduler: Scheduler, n: int, place: float, seed: int
) -> float:
    """A step of float64 data has float64's accuracy: coefficients are not silently float32. What is off by more than
    roundings of float32, at this step or another of the run, is no matter of precision, and another claim's affair. Not
    counted is what float64 itself loses: of x0 in x_t, and of 1 - alpha_bar in the reported alpha_bar."""
    checked = CheckedScheduler(scheduler)
    n = checked.steps_of(n)
    step = take(checked, n, place, seed)
    of = levels(checked, step.t, step.t_prev)
    p, q, sigma, _ = step.parts()
    left, least = _left(checked, of) ** 0.5, float(checked.at(1)[1])
    of_x0, of_noise = _in_double(checked, step, of)
    error = max(
        difference(f"{step}, the part of x0", p, of.b, of.b, of_x0),
        difference(f"{step}, the noise left", np.hypot(q, sigma), left, max(left, least), of_noise),
    )
    if error <= 1e-9:
        return error
    others = [take(checked, n, at, seed) for at in (0.0, 0.2, 0.4, 0.6, 0.8, 0.999)]
    held = all(max(misses(checked, one)) <= 0.01 for one in (step, *others))
    return error if held and not any(misses(checked, step)[3:5]) else 0.0


def _in_double(checked: CheckedScheduler, step: Step, of: _Levels) -> tuple[float, float]:
    """What float64 may make of the part of x0 and of the noise left: of x_t, and of alpha_bar() at both ends."""
    (of_a, of_s), (of_b, of_r) = (checked.unsure(t, DOUBLE) for t in (step.t, step.t_prev))
    shifts = of.b / max(of.a, 1e-300) if checked.divides() else of.b + of.r
    known = checked.lost(step.t, step.t_prev, DOUBLE) + float(of_a + of_s) * (shifts + of.r / of.s)
    left = _left(checked, of)
    own = (left + 4 * DOUBLE) ** 0.5 - left**0.5 if checked.variance == "beta" else 0.0  # beta is a difference from 1
    return known + float(of_b), known + float(of_r) + own


@claim(
    r"x_t = \sqrt{\bar\alpha_t}\, \hat x_0 + \sqrt{1 - \bar\alpha_t}\, \hat\epsilon"
    r"\quad\text{also where}\ \hat x_0\ \text{is clipped}",
    source="[DDIM] eq. 12", of=Scheduler.step, against="one clipping range for all that is clipped", bound=0.01,
    needs=("alpha_bar", "target", "timesteps", "step"), n=st.integers(2, 20), place=places, seed=seeds(),
    failure="convention",
)  # fmt: skip
def a_clipped_prediction_changes_its_noise_too(scheduler: Scheduler, n: int, place: float, seed: int) -> float:
    """For predictions far outside the data's range the step is that of x0_hat, or of x0_hat clipped, with the eps_hat that
    x_t then has. Without clipping the claim holds by itself."""
    checked = CheckedScheduler(scheduler)
    n = checked.steps_of(n)
    if n < 2:
        return 0.0
    near = take(checked, n, place, seed, last=False)
    if max(misses(checked, near)) > 0.01:  # it is not the clipping that is wrong
        return 0.0
    _, q, _, _ = near.parts()
    far = take(checked, n, place, seed, reach=5.0, last=False)
    (a, s), (a_prev, s_prev) = checked.at(far.t), checked.at(far.t_prev)
    # quiet = a_prev c + q (x_t - a c) / s for the c that was used as x0_hat
    of_c = a_prev - q * a / s
    c = (far.quiet - q / s * (a * far.x0 + s * far.eps)) / of_c
    clipped = np.abs(c - far.x0) > 0.05 + 4 * checked.lost(far.t, 0)
    if not clipped.any():
        return 0.0
    limit = float(np.median(np.abs(c[clipped])))
    expected = np.clip(far.x0, -limit, limit)
    what = f"{far}, x0_hat where it is clipped (its median is {limit:.3g})"
    return difference(what, c, expected, s_prev / of_c)
