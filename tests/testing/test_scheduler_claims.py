"""Our scheduler holds every claim; schedulers with one fault each are caught by the claim that is about it."""

import time

import numpy as np
import pytest

from refdiff.process import SCHEDULES, constant, cosine, linear, rescale_zero_terminal_snr
from refdiff.testing.audit import SCHEDULER_CLAIMS, audit, skipped
from refdiff.testing.scheduler import SCHEDULER_METHODS, RefdiffScheduler

QUICK = [claim for claim in SCHEDULER_CLAIMS if "sample" not in claim.needs]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("kind", ["eps", "x0", "v"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ours_holds_all_claims(schedule, kind, eta):
    verdicts = audit(RefdiffScheduler(schedule, kind, eta), examples=2)
    assert len(verdicts) == len(SCHEDULER_CLAIMS)
    assert {v.claim.name: v.message for v in verdicts if not v.holds} == {}


@pytest.mark.parametrize("schedule", [linear(1000, 1e-8, 0.02), constant(1000, 1e-7), cosine(20000)])
@pytest.mark.parametrize("kind", ["eps", "v"])
def test_ours_holds_the_claim_about_half_precision_for_steps_that_are_all_but_nothing(schedule, kind):
    (verdict,) = audit(RefdiffScheduler(schedule, kind), match="half precision")
    assert verdict.holds, verdict.message
    assert verdict.worst < 2


@pytest.mark.parametrize("T", [1, 2, 300])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ours_holds_them_on_every_schedule(schedule, T):
    """But that few steps of some schedules leave signal at T, which is their choice."""
    verdicts = audit(RefdiffScheduler(schedule, "v", 0.5, T), QUICK if T == 300 else None, examples=3)
    failing = {v.claim.name: v.kind for v in verdicts if not v.holds}
    assert failing.items() <= {("the last step hides the data", "convention")}


HIDES = {("the last step hides the data", "convention")}
UNUSUAL = {  # alpha_bar below what a dtype resolves, or so near to 1 that 1 - alpha_bar has lost its digits
    "linear(4000)": linear(4000), "scaled_linear(4000)": SCHEDULES["scaled_linear"](4000),
    "constant(1000)": constant(1000), "constant(2000)": constant(2000), "constant(4000)": constant(4000),
    "linear(1000, 1e-8)": linear(1000, 1e-8, 0.02), "constant(1000, 1e-7)": constant(1000, 1e-7),
}  # fmt: skip


SHORT = [claim for claim in SCHEDULER_CLAIMS if claim.name != "data at one point come back in all steps"]


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize("kind", ["eps", "x0", "v"])
def test_a_schedule_that_a_dtype_does_not_resolve_is_no_fault(name, kind):
    verdicts = audit(RefdiffScheduler(UNUSUAL[name], kind), SHORT, examples=2)
    failing = {(v.claim.name, v.kind) for v in verdicts if not v.holds}
    assert failing <= (HIDES if name == "constant(1000, 1e-7)" else set())


@pytest.mark.parametrize("name", ["linear(1000, 1e-8)", "constant(1000, 1e-7)"])
def test_a_reported_alpha_bar_is_known_to_its_last_digit(name):
    """At t = 1, where float64 has 1 - alpha_bar to 1e-8 or 1e-9 of itself."""
    for verdict in audit(RefdiffScheduler(UNUSUAL[name]), match="double precision"):
        assert verdict.holds, verdict.message


@pytest.mark.slow
@pytest.mark.parametrize("T", [1, 2, 20, 300, 1000, 4000])
@pytest.mark.parametrize("kind", ["eps", "x0", "v"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ours_holds_them_for_every_length(schedule, kind, T):
    verdicts = audit(RefdiffScheduler(schedule, kind, T=T), examples=4)
    assert {(v.claim.name, v.kind) for v in verdicts if not v.holds} <= HIDES


def test_ours_holds_them_where_there_is_no_signal_at_t():
    schedule = rescale_zero_terminal_snr(linear(200))
    assert {v.claim.name: v.message for v in audit(RefdiffScheduler(schedule, "v"), examples=3) if not v.holds} == {}


@pytest.mark.slow
def test_ours_holds_all_claims_on_random_cases():
    verdicts = audit(RefdiffScheduler("linear", "v", 0.5), random=True)
    assert {v.claim.name: v.message for v in verdicts if not v.holds} == {}


class OffByOne(RefdiffScheduler):
    """The noise of step t - 1."""

    def add_noise(self, x0, eps, t):
        return super().add_noise(x0, eps, np.asarray(t) - 1)


class NoRoot(RefdiffScheduler):
    """alpha_bar x_0 where sqrt(alpha_bar) x_0 belongs."""

    def add_noise(self, x0, eps, t):
        a = np.reshape(self.schedule.alpha_bar[t], (-1, *[1] * (x0.ndim - 1)))
        return (super().add_noise(0 * x0, eps, t) + a * x0).astype(x0.dtype)


class BetaNoise(RefdiffScheduler):
    """The posterior's mean with the noise of beta."""

    def step(self, x_t, t, t_prev, output, noise):
        mean = super().step(x_t, t, t_prev, output, 0 * noise)
        return mean + np.sqrt(self.schedule.between(t_prev, t)[1]) * noise if t_prev else mean


class NoiseAtTheEnd(RefdiffScheduler):
    def step(self, x_t, t, t_prev, output, noise):
        return super().step(x_t, t, t_prev, output, noise) + (0.01 * noise if t_prev == 0 else 0)


class Remembers(RefdiffScheduler):
    """Takes each step with the output of the one before."""

    def timesteps(self, n):
        self.last = None
        return super().timesteps(n)

    def step(self, x_t, t, t_prev, output, noise):
        last, self.last = self.last, output
        return super().step(x_t, t, t_prev, output if last is None else last, noise)


class Nan(RefdiffScheduler):
    def step(self, x_t, t, t_prev, output, noise):
        return super().step(x_t, t, t_prev, output, noise) / (np.nan if t_prev == 0 else 1)


class Shape(RefdiffScheduler):
    def add_noise(self, x0, eps, t):
        return super().add_noise(x0, eps, t)[:1]


class Dtype(RefdiffScheduler):
    def add_noise(self, x0, eps, t):
        return super().add_noise(x0, eps, t).astype(np.float64)


class Raises(RefdiffScheduler):
    def target(self, x0, eps, t):
        raise KeyError("no target today")


class StartsLate(RefdiffScheduler):
    def timesteps(self, n):
        return [t - 1 for t in super().timesteps(n)[:-1]] + [1]


class WritesIntoTheData(RefdiffScheduler):
    def add_noise(self, x0, eps, t):
        x0 *= 0.5
        return super().add_noise(x0, eps, t)


class Clips(RefdiffScheduler):
    """x0_hat clipped, eps_hat as it was."""

    def step(self, x_t, t, t_prev, output, noise):
        a, s = np.sqrt(self.schedule.alpha_bar[t]), np.sqrt(self.schedule.one_minus_alpha_bar[t])
        excess = np.clip((x_t - s * output) / a, -1, 1) - (x_t - s * output) / a
        return super().step(x_t, t, t_prev, output, noise) + np.sqrt(self.schedule.alpha_bar[t_prev]) * excess


FAULTS = {
    OffByOne: ("add noise is the closed form", "add_noise at t = 1, the part of"),
    NoRoot: ("add noise is the closed form", "the part of x0: expected"),
    BetaNoise: (
        "a steps fresh noise is at most the posteriors",
        "the share of fresh noise (that of beta: declare variance = 'beta'): expected",
    ),
    NoiseAtTheEnd: ("the last step adds no noise", "to 0, the share of fresh noise: expected 0, got 0.01"),
    Remembers: ("a step is a function of what it is given", "taken again after one from"),
    Nan: (
        "a step has the mean and the noise of where it goes",
        "expected finite numbers, got NaN or infinity in 48 of 48",
    ),
    Shape: ("add noise is the closed form", "add_noise: expected shape (8, 6), got (1, 6)"),
    Dtype: ("add noise keeps shape and dtype and leaves its inputs alone", "expected dtype float16, got float64"),
    Raises: ("the target gives back data and noise", "KeyError: 'no target today'"),
    StartsLate: ("sampling starts where the noise ends", "expected T = 1000, got 999"),
    WritesIntoTheData: (
        "add noise keeps shape and dtype and leaves its inputs alone",
        "expected x0 to stay as it was given",
    ),
    Clips: ("a clipped prediction changes its noise too", "x0_hat where it is clipped"),
}


@pytest.mark.parametrize("broken", FAULTS, ids=lambda broken: broken.__name__)
def test_a_fault_is_caught_by_the_claim_about_it(broken):
    name, text = FAULTS[broken]
    verdicts = {v.claim.name: v for v in audit(broken(), QUICK)}
    assert not verdicts[name].holds
    assert text in verdicts[name].message
    # The others go on, and most of them hold: alpha_bar is right in all of these.
    assert len(verdicts) == len(QUICK)
    assert verdicts["alpha bar falls from one"].holds
    assert verdicts["the last step hides the data"].holds
    assert broken is Raises or sum(v.holds for v in verdicts.values()) > len(verdicts) // 2


class Slow(RefdiffScheduler):
    def add_noise(self, x0, eps, t):
        time.sleep(0.2)
        return super().add_noise(x0, eps, t)


def test_a_slow_scheduler_is_a_verdict_of_the_claims_that_wait_for_it():
    started = time.perf_counter()
    verdicts = {v.claim.name: v for v in audit(Slow(), QUICK, examples=4, seconds=0.3)}
    assert "took longer than 0.3 s" in verdicts["add noise is linear"].message
    assert verdicts["a step has the mean and the noise of where it goes"].holds
    assert time.perf_counter() - started < 30


def test_only_what_a_scheduler_has_is_asked():
    class Noise:
        alpha_bar = RefdiffScheduler.alpha_bar
        add_noise = RefdiffScheduler.add_noise
        schedule = linear()

    verdicts = audit(Noise(), examples=2)
    assert all(set(v.claim.needs) <= {"alpha_bar", "add_noise"} for v in verdicts)
    assert all(v.holds for v in verdicts)
    missing = skipped(Noise())
    assert len(verdicts) + len(missing) == len(SCHEDULER_CLAIMS)
    assert missing["data at one point come back"] == ["target", "sample"]


def test_every_method_is_asked_by_some_claim():
    assert {name for claim in SCHEDULER_CLAIMS for name in claim.needs} == set(SCHEDULER_METHODS)


def test_one_claim_leaves_nothing_to_the_next():
    """Each claim has its own copy: a scheduler that breaks on its first use is asked anew by every claim."""

    class Once(RefdiffScheduler):
        def alpha_bar(self):
            self.schedule, schedule = None, self.schedule
            return schedule.alpha_bar

    verdicts = audit(Once(), [c for c in SCHEDULER_CLAIMS if c.needs == ("alpha_bar",)])
    assert len(verdicts) == 2
    assert all(v.holds for v in verdicts)
