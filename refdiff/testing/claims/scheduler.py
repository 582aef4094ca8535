"""Claims about a scheduler, anybody's: what the equations demand of its alpha_bar, its noise, its targets and its times.

Nothing here knows how the scheduler is made: what it says of itself by `alpha_bar` is what it is held to.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..checked_scheduler import CheckedScheduler, unchanged
from ..claim import claim
from ..differences import DOUBLE, SINGLE, Difference, difference, gravest, label, same_dtype
from ..published_schedules import published
from ..scheduler import Scheduler
from ..strategies import seeds, shapes

SHAPE = (8, 6)  # samples, elements
short = (10, 7, 5, 4, 3, 2)  # steps of a run; runs of one have their own claims
longer: Any = st.sampled_from([20, 50, 100, 250])
lengths: Any = st.sampled_from([*short, 20, 50, 100, 250])
dtypes: Any = st.sampled_from(["float64", "float32", "float16"])


def _data(rng: np.random.Generator, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """x0 within (-0.9, 0.9), where nothing is clipped, and eps ~ N(0, 1)."""
    return rng.uniform(-0.9, 0.9, SHAPE).astype(dtype), rng.standard_normal(SHAPE).astype(dtype)


def _times(checked: CheckedScheduler, rng: np.random.Generator) -> np.ndarray:
    """One t a sample, both ends among them.   -> (8,)"""
    t = rng.integers(1, checked.T + 1, SHAPE[0])
    t[:2] = 1, checked.T
    return t


@claim(
    r"1 = \bar\alpha_0 > \bar\alpha_1 > \dots > \bar\alpha_T \ge 0",
    source="[DDPM] section 2", of=Scheduler.alpha_bar, against="its definition as a product of alphas below 1", bound=0.0,
    needs=("alpha_bar",), examples=1, unit="steps",
)  # fmt: skip
def alpha_bar_falls_from_one(scheduler: Scheduler) -> float:
    """Each step adds noise. The error is the number of t at which it does not, or at which alpha_bar is negative."""
    alpha_bar = CheckedScheduler(scheduler).alpha_bar
    if alpha_bar[0] != 1:
        return Difference(1, f"alpha_bar_0: expected 1, that of the data, got {alpha_bar[0]:.9g}")
    wrong = (np.diff(alpha_bar) >= 0) | (alpha_bar[1:] < 0)
    t = int(np.argmax(wrong)) + 1
    text = f"alpha_bar at t = {t}: expected from 0 to less than {alpha_bar[t - 1]:.6g}, got {alpha_bar[t]:.6g}"
    return Difference(float(wrong.sum()), text)


@claim(
    r"\sqrt{\bar\alpha_T} \approx 0",
    source="[DDPM] section 2", of=Scheduler.alpha_bar, against="0, the share of the data in x_T ~ N(0, I)", bound=0.01,
    needs=("alpha_bar",), examples=1, failure="convention",
)  # fmt: skip
def the_last_step_hides_the_data(scheduler: Scheduler) -> float:
    """Sampling starts from N(0, I): what is left of the data in x_T is a mean that training saw and sampling lacks."""
    checked = CheckedScheduler(scheduler)
    return difference(f"sqrt(alpha_bar) at t = T = {checked.T}", checked.at(checked.T)[0], 0, 1)


@claim(
    r"\bar\alpha_t = \prod_{s \le t} (1 - \beta_s)\quad\text{with the published}\ \beta_s",
    source="[IDDPM] section 3.2, [Hang24] section 2, [GeoDiff]", of=Scheduler.published_schedule,
    against="the schedule it names, in 50 digits",
    bound=1e-3,
    needs=("alpha_bar", "published_schedule"), examples=1,
)  # fmt: skip
def alpha_bar_is_that_of_the_schedule_it_names(scheduler: Scheduler) -> float:
    """Both coefficients, in units of themselves; signal of less than 0.01 in units of that. A little signal at T, so that
    nothing is divided by 0, where the published one has none is a convention."""
    checked = CheckedScheduler(scheduler)
    name, options = scheduler.published_schedule() or ("", {})
    a, s = published(name, **options)
    assert len(a) == checked.T + 1, f"published_schedule: expected T = {checked.T}, that of alpha_bar, got {len(a) - 1}"
    t = np.arange(checked.T + 1)
    rounded = [t * of for of in checked.unsure(t)]  # a product of t factors, each rounded
    little = a[-1] == 0 and checked.at(checked.T)[0] < 1e-3
    errors = []
    for of, kind in ((t[:-1], ""), (t[-1:], "convention" if little else "")):
        parts = zip(("alpha_bar", "1 - alpha_bar"), checked.at(of), (a, s), (a + 0.01, s), rounded, strict=True)
        errors += [
            difference(label(f"sqrt({part}) of {name} at t = {{}}", of), actual, exact[of], scale[of], slack[of], kind)
            for part, actual, exact, scale, slack in parts
        ]
    return gravest(1e-3, errors)


def _closed_form(
    checked: CheckedScheduler, seed: int, dtype: str, t: Any, unit: str, rounding: float | None = None, kind: str = ""
) -> Difference:
    """How far add_noise(x0, 0) is from sqrt(abar) x0, and add_noise(0, eps) from sqrt(1 - abar) eps, in units of a dtype.

    What rounds alpha_bar by this much, as much as alpha_bar() is by default, is not counted.   t: one, or one a sample
    """
    x0, eps = _data(np.random.default_rng(seed), dtype)
    each = np.broadcast_to(t, SHAPE[:1])
    (a, s), (of_a, of_s), info = checked.at(each), checked.unsure(each, rounding), np.finfo(unit)
    errors = []
    for name, pair, part, factor, unsure in (
        ("x0", (x0, 0 * eps), x0, a, of_a),
        ("eps", (0 * x0, eps), eps, s, of_s),
    ):
        actual, expected = checked.add_noise(*pair, t), factor[:, None] * part
        scale = float(info.eps) * np.maximum(np.abs(expected), float(info.tiny))
        what = label(f"add_noise at t = {{}}, the part of {name}", each)
        errors.append(difference(what, actual, expected, scale, unsure[:, None] * np.abs(part), kind))
    return max(errors)


def _drawn_times(checked: CheckedScheduler, seed: int, one_t: bool) -> Any:
    rng = np.random.default_rng(seed)
    return int(rng.integers(1, checked.T + 1)) if one_t else _times(checked, rng)


def _holds_in_single(checked: CheckedScheduler, seed: int, t: Any) -> bool:
    """Whether the closed form holds for float32 data at t, and from one end to the other: if not, precision is not why."""
    everywhere = np.linspace(1, checked.T, SHAPE[0]).round().astype(int)
    return all(_closed_form(checked, seed, "float32", at, "float32", SINGLE) <= 64 for at in (everywhere, t))


@claim(
    r"x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon",
    source="[DDPM] eq. 4", of=Scheduler.add_noise, against="both parts from alpha_bar, as exact as that is", bound=64.0,
    needs=("alpha_bar", "add_noise"), seed=seeds(), dtype=st.sampled_from(["float64", "float32"]), one_t=st.booleans(),
    unit="float32 roundings",
)  # fmt: skip
def add_noise_is_the_closed_form(scheduler: Scheduler, seed: int, dtype: str, one_t: bool) -> float:
    """The part of x_0 and the part of eps, each by itself, for one t a sample and for one t for all. As if alpha_bar were
    rounded to float32, though alpha_bar() is not, is rounding."""
    checked = CheckedScheduler(scheduler)
    t = _drawn_times(checked, seed, one_t)
    as_single = _closed_form(checked, seed, dtype, t, "float32", SINGLE) <= 64
    return _closed_form(checked, seed, dtype, t, "float32", kind="rounding" if as_single else "")


@claim(
    r"x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon \quad\text{in half precision}",
    source="[DDPM] eq. 4", of=Scheduler.add_noise, against="both parts from alpha_bar", bound=8.0,
    needs=("alpha_bar", "add_noise"), seed=seeds(), one_t=st.booleans(), failure="rounding", unit="float16 roundings",
    unless=("float32", "float64"),
)  # fmt: skip
def half_precision_data_get_the_right_noise(scheduler: Scheduler, seed: int, one_t: bool) -> float:
    """Coefficients are made in more digits and cast once: 1 - abar taken in float16 is 0, or far off, at small t. Where
    float32 data get the wrong noise too, that is another claim's affair."""
    checked = CheckedScheduler(scheduler)
    t = _drawn_times(checked, seed, one_t)
    error = _closed_form(checked, seed, "float16", t, "float16")
    return error if error <= 8 or _holds_in_single(checked, seed, t) else 0.0


@claim(
    r"x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon \quad\text{in double precision}",
    source="[DDPM] eq. 4", of=Scheduler.add_noise, against="both parts from alpha_bar", bound=1e5,
    needs=("alpha_bar", "add_noise"), seed=seeds(), one_t=st.booleans(), failure="rounding", unit="float64 roundings",
    unless=("float32",),
)  # fmt: skip
def double_precision_data_get_noise_in_double_precision(scheduler: Scheduler, seed: int, one_t: bool) -> float:
    """Nothing is silently computed in float32, nor in other numbers than alpha_bar() tells, up to its rounding in float64.
    What is no rounding of float32 is another claim's affair."""
    checked = CheckedScheduler(scheduler)
    t = _drawn_times(checked, seed, one_t)
    error = _closed_form(checked, seed, "float64", t, "float64", DOUBLE)
    return error if error <= 1e5 or _holds_in_single(checked, seed, t) else 0.0


@claim(
    r"x_t(\lambda x_0 + \mu y_0,\ \lambda\epsilon + \mu\delta) = \lambda\, x_t(x_0, \epsilon) + \mu\, x_t(y_0, \delta)",
    source="[DDPM] eq. 4", of=Scheduler.add_noise, against="the sum of its parts", bound=64.0,
    needs=("alpha_bar", "add_noise"), seed=seeds(), factor=st.floats(0.1, 3), unit="float32 roundings",
)  # fmt: skip
def add_noise_is_linear(scheduler: Scheduler, seed: int, factor: float) -> float:
    """In the data and the noise together."""
    checked, rng = CheckedScheduler(scheduler), np.random.default_rng(seed)
    (x0, eps), (y0, delta), t = _data(rng), _data(rng), _times(CheckedScheduler(scheduler), rng)
    one, two = checked.add_noise(x0, eps, t), checked.add_noise(y0, delta, t)
    actual = checked.add_noise(factor * x0 - y0, factor * eps - delta, t)
    scale = SINGLE * (factor * (np.abs(x0) + np.abs(eps)) + np.abs(y0) + np.abs(delta))
    return difference(label("add_noise of a sum at t = {}", t), actual, factor * one - two, scale)


@claim(
    r"x_t \in \mathbb R^{N \times \dots} \ \text{in the dtype of}\ x_0,\quad x_0,\ \epsilon\ \text{unchanged}",
    source="[DDPM] eq. 4", of=Scheduler.add_noise, against="the shape, dtype and contents of what was given", bound=0.0,
    needs=("alpha_bar", "add_noise"), seed=seeds(), shape=shapes(min_dims=2), dtype=dtypes,
)  # fmt: skip
def add_noise_keeps_shape_and_dtype_and_leaves_its_inputs_alone(
    scheduler: Scheduler, seed: int, shape: tuple[int, ...], dtype: str
) -> float:
    """Never a silent cast, and nothing written into the data."""
    checked, rng = CheckedScheduler(scheduler), np.random.default_rng(seed)
    x0, eps = rng.standard_normal((2, *shape)).astype(dtype)
    t = rng.integers(1, checked.T + 1, shape[0])
    with unchanged("add_noise", x0=x0, eps=eps):
        actual = checked.add_noise(x0, eps, t)
    return same_dtype("add_noise", actual, x0)


@claim(
    r"\epsilon,\quad x_0 \quad\text{or}\quad v = \sqrt{\bar\alpha_t}\,\epsilon - \sqrt{1 - \bar\alpha_t}\, x_0",
    source="[PD] appendix D", of=Scheduler.target, against="the x_0 and eps it was made of, got back from x_t and it",
    bound=1e-4, needs=("alpha_bar", "target"), seed=seeds(),
)  # fmt: skip
def the_target_gives_back_data_and_noise(scheduler: Scheduler, seed: int) -> float:
    """It is a known kind of prediction at every t; together with x_t it is solved for x_0 and eps."""
    checked, rng = CheckedScheduler(scheduler), np.random.default_rng(seed)
    (x0, eps), t, kind = _data(rng), _times(checked, rng), checked.kind()
    a, s = (v[:, None] for v in checked.at(t))
    x_t, actual = a * x0 + s * eps, checked.target(x0, eps, t).astype(np.float64)
    of_x0, of_eps = (v[:, None] for v in checked.parts(kind, t))
    determinant = a * of_eps - s * of_x0
    with np.errstate(divide="ignore", invalid="ignore"):
        solved = (of_eps * x_t - s * actual) / determinant, (a * actual - of_x0 * x_t) / determinant
        scales = [(np.abs(c) + np.abs(d)) / np.abs(determinant) for c, d in ((of_eps, s), (a, of_x0))]
        # What the target may be off by, because alpha_bar() is rounded, and what comes of it.
        slack = np.abs(x0) * _moved(checked, kind, t, 0) + np.abs(eps) * _moved(checked, kind, t, 1)
        slacks = [slack * c / np.abs(determinant) for c in (s, a)]
    errors = [
        difference(label(f"{name} got back from {kind} at t = {{}}", t), got, expected, scale, of)
        for name, got, expected, scale, of in zip(("x0", "eps"), solved, (x0, eps), scales, slacks, strict=True)
        if np.all(determinant != 0)  # at alpha_bar = 0 the data are lost to eps, whatever one does
    ]
    expected = of_x0 * x0 + of_eps * eps
    return max([*errors, difference(label(f"{kind} at t = {{}}", t), actual, expected, 1 + np.abs(actual), slack)])


def _moved(checked: CheckedScheduler, kind: str, t: np.ndarray, which: int) -> np.ndarray:
    """How far the part of x0 (0) or of eps (1) in a target moves where alpha_bar does by its rounding.   -> (N, 1)"""
    s, of_s = checked.at(t)[1], checked.unsure(t)[1]
    sizes = {
        "eps": (0 * s, 0 * s),
        "x0": (0 * s, 0 * s),
        "v": (of_s, checked.unsure(t)[0]),
        "score": (0 * s, of_s / s**2),
    }
    return np.asarray(sizes[kind][which])[:, None]


@claim(
    r"x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon \quad\text{before and after a run}",
    source="[DDPM] eq. 4", of=Scheduler.add_noise, against="itself before the run", bound=64.0,
    needs=("alpha_bar", "add_noise", "timesteps"), seed=seeds(), n=lengths, unit="float32 roundings",
)  # fmt: skip
def add_noise_does_not_know_of_sampling(scheduler: Scheduler, seed: int, n: int) -> float:
    """The noise of step t is the same whether a run was begun before or not. To know the t of the run alone is a
    convention, not to know those either a fault."""
    checked, rng = CheckedScheduler(scheduler), np.random.default_rng(seed)
    (x0, eps), n = _data(rng), checked.steps_of(n)
    among = [t for t in checked.timesteps(n) if t == int(t)]
    with suppress(AssertionError):  # as below
        if set(checked.timesteps(checked.T)) != set(range(1, checked.T + 1)):
            among = []  # a run of T steps is no measure of those of others
    errors = [Difference(0.0, "")]
    for t, kind in ((rng.choice(among or [0], SHAPE[0]), ""), (_times(checked, rng), "convention")):
        if not t.all():  # none of the run's is a whole number
            continue
        actual = []
        try:
            for k in (checked.T, n):
                with suppress(AssertionError):  # a run that is none is another claim's affair
                    checked.timesteps(k)
                actual.append(checked.add_noise(x0, eps, t))
        except Exception as error:
            if not kind:
                raise
            text = f"add_noise at t = {t.tolist()} after timesteps({k}) raised {type(error).__name__}"
            errors.append(Difference(np.inf, text, kind))
        else:
            what = label(f"add_noise at t = {{}} after timesteps({n})", t)
            scale = SINGLE * (np.abs(x0) + np.abs(eps))
            errors.append(difference(what, actual[1], actual[0], scale, kind=kind))
    return gravest(64, errors)


@claim(
    r"T \ge t_1 > t_2 > \dots > t_n \ge 1",
    source="[DDIM] section 4.2", of=Scheduler.timesteps, against="the number asked for, each from 2 to 130", bound=0.0,
    needs=("alpha_bar", "timesteps"), examples=1, unit="numbers of steps",
)  # fmt: skip
def a_run_has_as_many_steps_as_asked_each_before_the_last(scheduler: Scheduler) -> float:
    """Within 1 .. T, strictly falling, for every n up to 130. The error is for how many n it is not so."""
    checked = CheckedScheduler(scheduler)
    if checked.found("all_steps"):
        text = f"timesteps(2): expected 2 steps, got all {checked.T}; if it has no other runs, declare it: all_steps = True"
        return Difference(min(checked.T, 130) - 1, text, "convention")
    lengths = {checked.steps_of(n) for n in range(2, min(checked.T, 130) + 1)}
    wrong = [(n, text) for n in sorted(lengths) if (text := _not_falling(checked, n))]
    return Difference(
        len(wrong), f"{wrong[0][1]}; wrong for n = {', '.join(str(n) for n, _ in wrong[:8])}" if wrong else ""
    )


@claim(
    r"T \ge t_1 \ge 1 \quad\text{for}\ n = 1",
    source="[DDIM] section 4.2", of=Scheduler.timesteps, against="one step", bound=0.0,
    needs=("alpha_bar", "timesteps"), examples=1, unless=("all_steps",),
)  # fmt: skip
def a_run_of_one_step_has_one(scheduler: Scheduler) -> float:
    """The shortest run is a run. A claim of its own, so that what fails here fails nowhere else."""
    text = _not_falling(CheckedScheduler(scheduler), 1)
    return Difference(float(bool(text)), text)


def _not_falling(checked: CheckedScheduler, n: int) -> str:
    """What is wrong with the steps of a run of n, if anything."""
    try:
        steps = checked.timesteps(n)
    except Exception as error:
        return str(error) if isinstance(error, AssertionError) else f"timesteps({n}): {type(error).__name__}: {error}"
    if len(steps) != n:
        return f"timesteps({n}): expected {n} steps, got {len(steps)}"
    pairs = [f"{b:g} after {a:g}" for a, b in pairwise(steps) if b >= a]
    return f"timesteps({n}): expected falling ones, got {pairs[0]}" if pairs else ""


@claim(
    r"x_{t_1} = x_T \sim \mathcal N(0, I)",
    source="[DDPM] algorithm 2", of=Scheduler.timesteps, against="T, the step whose noise sampling starts from", bound=0.0,
    needs=("alpha_bar", "timesteps"), n=lengths, failure="convention", unit="steps",
)  # fmt: skip
def sampling_starts_where_the_noise_ends(scheduler: Scheduler, n: int) -> float:
    """Pure noise belongs to t = T. Shown as of an earlier t, it is not what the network was trained on there."""
    checked = CheckedScheduler(scheduler)
    n = checked.steps_of(n)
    first = checked.timesteps(n)[0]
    share = float(checked.at(first)[0])
    text = (
        f"the first of timesteps({n}): expected T = {checked.T}, got {first:g}, where x_t is {100 * share:.2g} % data"
    )
    return Difference(checked.T - first, text)


@claim(
    r"t_i = T + 1 - i \quad\text{for}\ n = T",
    source="[DDPM] algorithm 2", of=Scheduler.timesteps, against="T, T - 1, ..., 1", bound=0.0,
    needs=("alpha_bar", "timesteps"), examples=1, unit="steps",
)  # fmt: skip
def asked_for_all_steps_a_run_has_them_all(scheduler: Scheduler) -> float:
    """n = T is the whole process, step by step. The error is how many of them are missing: others in their place are a
    convention, as Karras's [EDM] eq. 5, the same twice or a run of another length is a fault."""
    checked = CheckedScheduler(scheduler)
    steps = checked.timesteps(checked.T)
    missing = sorted(set(range(1, checked.T + 1)) - set(steps))
    text = f"timesteps({checked.T}): expected all of 1 .. {checked.T}, missing {missing[:5]}"
    return Difference(len(missing), text, "convention" if len(set(steps)) == checked.T else "fault")
