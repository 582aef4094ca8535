"""Schedulers with one fault each are found, with the right kind; right ones, in float32 tables too, are not accused."""

from itertools import pairwise

import numpy as np
import pytest

from refdiff.process import uniform_steps
from refdiff.testing.audit import SCHEDULER_CLAIMS, audit
from refdiff.testing.checked_scheduler import CheckedScheduler
from refdiff.testing.claims.steps import misses, take
from refdiff.testing.published_schedules import published
from refdiff.testing.scheduler import Declared


def rescaled(T, of=1000):
    """The linear schedule over so many steps."""
    return np.linspace(1e-4, 0.02 * of / T, T)


class Tables:
    """DDPM as public code has it: tables of one dtype, `arithmetic` before the cast, sampling as in [DDPM] algorithm 2
    over any steps, x0_hat clipped, noise of the posterior's variance."""

    table = np.float32
    arithmetic = np.float64
    clip = True

    def __init__(self, T=300, beta=None):
        beta = rescaled(T) if beta is None else beta
        self.T = T
        alpha = np.concatenate([[1], 1 - beta]).astype(self.arithmetic)
        self.exact = np.cumprod(alpha, dtype=self.arithmetic)
        self.abar = self.exact.astype(self.table)
        self.root = np.sqrt(self.exact).astype(self.table)
        self.noise_root = np.sqrt(1 - self.exact).astype(self.table)

    def alpha_bar(self):
        return np.concatenate([[1.0], self.abar[1:]])  # as an adapter does, and float64 by accident

    def add_noise(self, x0, eps, t):
        a, s = (np.reshape(v[t], (-1, *[1] * (x0.ndim - 1))) for v in (self.root, self.noise_root))
        return (a * x0 + s * eps).astype(x0.dtype)

    def target(self, x0, eps, t):
        return eps

    def timesteps(self, n):
        return uniform_steps(self.T, n)[::-1].tolist()

    def x0(self, x, t, eps):
        recip = (1 / np.sqrt(self.exact[t])).astype(self.table)
        recip_m1 = np.sqrt(1 / self.exact[t] - 1).astype(self.table)
        x0 = recip * x - recip_m1 * eps
        return np.clip(x0, -1, 1) if self.clip else x0

    def coefficients(self, t, s):
        alpha = self.exact[t] / self.exact[s]
        beta, r, of = 1 - alpha, 1 - self.exact[s], 1 - self.exact[t]
        return np.sqrt(self.exact[s]) * beta / of, np.sqrt(alpha) * r / of, np.sqrt(beta * r / of)

    def step(self, x, t, s, output, noise):
        of_x0, of_x, sigma = (np.asarray(v).astype(self.table) for v in self.coefficients(t, s))
        return (of_x0 * self.x0(x, t, output) + of_x * x + sigma * noise).astype(x.dtype)

    def sample(self, model, x, n, noise):
        steps = [*self.timesteps(n), 0]
        for t, s in pairwise(steps):
            x = self.step(x, t, s, model(x, t), noise(t))
        return x


class AllSingle(Tables):
    """Every calculation of the tables in float32 too."""

    arithmetic = np.float32


class Unclipped(Tables):
    clip = False


class Doubles(Tables):
    table = np.float64


class Beta(Doubles):
    """The variance of beta, declared."""

    variance = "beta"

    def coefficients(self, t, s):
        of_x0, of_x, _ = super().coefficients(t, s)
        return of_x0, of_x, np.sqrt(1 - self.exact[t] / self.exact[s]) if s else 0.0


class AllSteps(Tables):
    """No runs but that of all steps, declared."""

    all_steps = True

    def timesteps(self, n):
        return list(range(self.T, 0, -1))


class Score(Tables):
    def target(self, x0, eps, t):
        return (-eps / np.reshape(self.noise_root[t], (-1, *[1] * (x0.ndim - 1)))).astype(x0.dtype)

    def x0(self, x, t, score):
        return super().x0(x, t, -self.noise_root[t] * score)


class OnlySingle(AllSingle):
    """Casts what it is given to float32."""

    def add_noise(self, x0, eps, t):
        return super().add_noise(x0, eps, t).astype(np.float32)

    def step(self, x, t, s, output, noise):
        return super().step(x.astype(np.float32), t, s, output.astype(np.float32), noise.astype(np.float32))

    def sample(self, model, x, n, noise):
        return super().sample(model, x.astype(np.float32), n, noise)


QUICK = [claim for claim in SCHEDULER_CLAIMS if "sample" not in claim.needs]
PRECISION = {
    "double precision data get noise in double precision": "rounding",
    "double precision data are stepped in double precision": "rounding",
}


def found(subject, claims=None, **options):
    """{claim: kind} of those that fail."""
    return {v.claim.name: v.kind for v in audit(subject, claims, **{"examples": 8, **options}) if not v.holds}


@pytest.mark.parametrize("T", [300, 4000])
@pytest.mark.parametrize("right", [Tables, AllSingle, Unclipped, Score], ids=lambda c: c.__name__)
def test_float32_tables_are_a_matter_of_rounding_alone(right, T):
    subject, claims = right(T, rescaled(T)), None if T == 300 else QUICK
    assert found(subject, claims, examples=4).items() <= PRECISION.items()
    assert found(subject, QUICK, examples=4, dtype="float32") == {}


@pytest.mark.parametrize("right", [Doubles, Beta], ids=lambda c: c.__name__)
@pytest.mark.parametrize("T", [300, 4000])
def test_right_ones_are_not_accused(right, T):
    assert found(right(T, rescaled(T)), None if T == 300 else QUICK, examples=4) == {}


@pytest.mark.parametrize("right", [Tables, Doubles, AllSingle], ids=lambda c: c.__name__)
@pytest.mark.parametrize("T", [1, 2, 3])
def test_right_ones_of_few_steps_are_not_accused(right, T):
    few = found(right(T, np.linspace(0.3, 0.9999, T) if T > 1 else np.array([0.99999])))
    assert few.items() <= (PRECISION.items() | {("gaussian data come back in many steps", "fault")})


def test_a_right_one_of_all_steps_only_is_not_accused():
    subject = AllSteps(200, np.linspace(1e-4, 0.1, 200))
    assert found(subject).items() <= PRECISION.items()
    assert found(subject, dtype="float32") == {}


class AllStepsInSingle(AllSteps):
    """Every calculation in float32, where each step changes least and rounding most."""

    arithmetic = np.float32


@pytest.mark.parametrize("T", [1000, 4000])
@pytest.mark.parametrize("dtype", [None, "float32"])
def test_the_rounding_of_a_small_step_is_no_fault(T, dtype):
    checked = CheckedScheduler(Declared(AllStepsInSingle(T, rescaled(T)), dtype=dtype))
    for t in (1, 2, 3, 5, 10, 20, 50, 100, T // 2, T - 1, T):
        step = take(checked, T, (T - t + 0.5) / T, seed=t)
        assert step.t == t
        assert max(misses(checked, step)) < 0.01, str(step)


RUNS = [claim for claim in SCHEDULER_CLAIMS if "sample" in claim.needs and claim.examples > 1]


@pytest.mark.parametrize("right", [Doubles, Unclipped, AllSingle, Score], ids=lambda c: c.__name__)
@pytest.mark.parametrize("claims", [QUICK, RUNS], ids=["steps", "runs"])
@pytest.mark.parametrize("dtype", [None, "float32"])
def test_data_that_x_does_not_carry_are_no_fault(right, claims, dtype):
    """sqrt(alpha_bar_T) is 1.6e-9: float16 overflows, float32 has no digit of x0_hat left, float64 half of them."""
    subject = right(4000, np.linspace(1e-4, 0.02, 4000))
    assert found(subject, claims, examples=3, dtype=dtype).items() <= (
        PRECISION.items() if right is not Doubles else set()
    )


class WiderAtTheEnd(Unclipped, Doubles):
    """Half as wide again as a run should end."""

    def sample(self, model, x, n, noise):
        return 1.5 * super().sample(model, x, n, noise)


@pytest.mark.parametrize(
    "beta", [rescaled(300), np.full(1000, 0.02), np.full(1000, 1e-7)], ids=["usual", "coarse", "no noise"]
)
def test_gaussian_data_with_too_wide_a_spread_are_a_fault_on_any_schedule(beta):
    """Room for the discretisation is no room for anything else."""
    actual = found(WiderAtTheEnd(len(beta), beta), RUNS, examples=3)
    assert actual["gaussian data come back in many steps"] == "fault"


def test_one_for_float32_alone_can_say_so():
    assert found(OnlySingle(), QUICK, dtype="float32") == {}
    assert found(OnlySingle(), QUICK)["add noise keeps shape and dtype and leaves its inputs alone"] == "fault"


class WrongConversion(Doubles):
    """x0_hat = x_t / a - s eps, where (s / a) eps belongs; clipped, so that nothing blows up."""

    def x0(self, x, t, eps):
        return np.clip(x / np.sqrt(self.exact[t]) - np.sqrt(1 - self.exact[t]) * eps, -1, 1)


class WrongConversionAllSteps(WrongConversion):
    all_steps = True
    timesteps = AllSteps.timesteps


class LateNoise(Doubles):
    """The noise of step t - 1."""

    def add_noise(self, x0, eps, t):
        return super().add_noise(x0, eps, np.asarray(t) - 1)


class HiddenSingle(Doubles):
    """Coefficients in float32, and alpha_bar as if they were not."""

    def add_noise(self, x0, eps, t):
        a, s = (np.reshape(v[t].astype(np.float32), (-1, *[1] * (x0.ndim - 1))) for v in (self.root, self.noise_root))
        return (a * x0 + s * eps).astype(x0.dtype)

    def coefficients(self, t, s):
        return [np.float32(v) for v in super().coefficients(t, s)]


class HalfDifference(Doubles):
    """1 - alpha_bar taken in the dtype of the data."""

    def add_noise(self, x0, eps, t):
        abar = np.reshape(self.exact[t].astype(x0.dtype), (-1, *[1] * (x0.ndim - 1)))
        return (np.sqrt(abar) * x0 + np.sqrt(1 - abar) * eps).astype(x0.dtype)


class HalfTables(Doubles):
    """Everything from a product in float16."""

    table = np.float16
    arithmetic = np.float16


class BetaUndeclared(Beta):
    variance = None


class BetaOfOneStep(Doubles):
    """In a run of 10 of 1000 the noise of a single step."""

    def coefficients(self, t, s):
        of_x0, of_x, _ = super().coefficients(t, s)
        return of_x0, of_x, np.sqrt(1 - self.exact[t] / self.exact[t - 1]) if s else 0.0


class VarianceAsDeviation(Doubles):
    def coefficients(self, t, s):
        of_x0, of_x, sigma = super().coefficients(t, s)
        return of_x0, of_x, sigma**2


class AllStepsUndeclared(AllSteps, Doubles):
    all_steps = None


class NotOne(Doubles):
    """Breaks for runs of one step."""

    def timesteps(self, n):
        if n == 1:
            raise IndexError("no second step")
        return super().timesteps(n)


class Leading(Doubles):
    def timesteps(self, n):
        return [1 + self.T // n * i for i in range(n)][::-1]


class EndsAtOne(Doubles):
    """Goes to t = 1 where it should go to the data."""

    def step(self, x, t, s, output, noise):
        a, r = (np.sqrt(v) for v in (self.exact[max(s, 1)], 1 - self.exact[max(s, 1)]))
        return (
            (a * self.x0(x, t, output) + r * output).astype(x.dtype) if s == 0 else super().step(x, t, s, output, noise)
        )


class LeavesATrace(Doubles):
    """A part of the last run's result is added to the next."""

    def sample(self, model, x, n, noise):
        last, self.last = getattr(self, "last", 0.0), super().sample(model, x, n, noise)
        return self.last + 0.01 * np.mean(last)


class DrawsItsOwn(Doubles):
    """Noise of its own in place of ours."""

    generator = np.random.default_rng(0)

    def __deepcopy__(self, memo):
        return self

    def sample(self, model, x, n, noise):
        return super().sample(model, x, n, lambda t: self.generator.standard_normal(x.shape).astype(x.dtype))


class Forgets(Doubles):
    """add_noise knows the t of the run that was begun last, and takes the last of them for any other."""

    def timesteps(self, n):
        self.run = super().timesteps(n)
        return self.run

    def add_noise(self, x0, eps, t):
        run = getattr(self, "run", range(self.T + 1))
        return super().add_noise(x0, eps, np.where(np.isin(t, run), t, run[-1]))


class Backwards(Doubles):
    """add_noise counts from the other end once a run has begun."""

    begun = False

    def timesteps(self, n):
        self.begun = n < self.T
        return super().timesteps(n)

    def add_noise(self, x0, eps, t):
        return super().add_noise(x0, eps, self.T + 1 - np.asarray(t) if self.begun else t)


class Named(Doubles):
    """Linear, and says so."""

    def published_schedule(self):
        return "linear", {"T": self.T, "beta_start": 1e-4, "beta_end": 0.06}


class Misnamed(Named):
    """A percent too much at the end."""

    def __init__(self):
        super().__init__(300, np.linspace(1e-4, 0.0606, 300))


class LaplaceRoot(Named):
    """sqrt(alpha_bar) where alpha_bar belongs."""

    def __init__(self):
        root = published("laplace", T=300, floor=1e-6)[0]
        super().__init__(1000, 1 - root[1:] / root[:-1])

    def published_schedule(self):
        return "laplace", {"T": 300, "floor": 1e-6}


MEAN = "a step has the mean and the noise of where it goes"
FRESH = "a steps fresh noise is at most the posteriors"
CLOSED = "add noise is the closed form"
MISBUILT = {  # the claims that must fail, and whether others may
    WrongConversion: ({MEAN: "fault"}, True),
    LateNoise: ({CLOSED: "fault"}, False),
    HiddenSingle: (PRECISION, False),
    HalfDifference: ({"half precision data get the right noise": "rounding", CLOSED: "rounding"}, False),
    BetaUndeclared: ({FRESH: "convention"}, False),
    BetaOfOneStep: ({MEAN: "fault"}, True),
    VarianceAsDeviation: ({MEAN: "fault"}, True),
    NotOne: (
        {
            "a run of one step has one": "fault",
            "the step of a run of one goes to the data": "fault",
            "one step gives the mean of the data": "fault",
        },
        False,
    ),
    EndsAtOne: (
        {
            MEAN: "convention",
            "the step of a run of one goes to the data": "convention",
            "data at one point come back": "convention",
            "data at one point come back in all steps": "convention",
        },
        True,
    ),
    LeavesATrace: ({"a run leaves nothing behind": "fault"}, False),
    DrawsItsOwn: ({"a run leaves nothing behind": "fault"}, True),
    Forgets: ({"add noise does not know of sampling": "convention"}, False),
    Backwards: ({"add noise does not know of sampling": "fault"}, False),
    Leading: (
        {
            "sampling starts where the noise ends": "convention",
            "one step gives the mean of the data": "convention",
        },
        False,
    ),
    Misnamed: ({"alpha bar is that of the schedule it names": "fault"}, False),
    LaplaceRoot: ({"alpha bar is that of the schedule it names": "fault"}, True),
    HalfTables: ({"alpha bar falls from one": "fault"}, True),
}


@pytest.mark.parametrize("broken", MISBUILT, ids=lambda broken: broken.__name__)
def test_one_fault_is_found_with_its_kind(broken):
    expected, others = MISBUILT[broken]
    actual = found(broken(), examples=6)
    assert expected.items() <= actual.items()
    assert others or actual == expected
    assert broken is HiddenSingle or not actual.items() & PRECISION.items()  # no other fault is one of precision


@pytest.mark.parametrize("broken", [WrongConversion, WrongConversionAllSteps], ids=lambda c: c.__name__)
@pytest.mark.parametrize("beta", [rescaled(4000), np.linspace(1e-4, 0.02, 4000)], ids=["rescaled", "as for 1000"])
def test_a_wrong_conversion_is_found_at_four_thousand_steps(broken, beta):
    """Each step changes so little that in units of x its error is small."""
    actual = found(broken(4000, beta), QUICK, examples=10)
    assert actual[MEAN] == "fault"
    assert not actual.items() & PRECISION.items()


def test_all_steps_only_is_told_once():
    claims = {"a run has as many steps as asked each before the last": "convention"}
    assert found(AllStepsUndeclared(200, np.linspace(1e-4, 0.1, 200))) == claims
    assert found(AllStepsUndeclared(200, np.linspace(1e-4, 0.1, 200)), all_steps=True) == {}


def test_a_declared_variance_is_asked_for():
    assert found(BetaUndeclared(), variance="beta") == {}
    assert found(Doubles(), QUICK, variance="beta")[MEAN] == "fault"
