"""The bound of a chain of fewer steps: all of them are the full chain, and of a Gaussian every term is known."""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import networks
import numpy as np
import pytest

from refdiff.config import Config
from refdiff.data import load
from refdiff.evaluation.likelihood import nll
from refdiff.models import KINDS, Input, Network, linear_layout, register
from refdiff.objectives import Denoising, ScheduleConfig
from refdiff.process import (
    SPACINGS,
    convert,
    learned_log_variance,
    posterior_log_variance,
    posterior_mean_coefficients,
    step_log_variance,
)
from refdiff.sampling import SampleConfig, Trained

MEAN, VARIANCE, V = 0.3, 0.4, 0.25
SCHEDULE = ScheduleConfig("cosine", 40)


@dataclass(frozen=True)
class Perfect:
    """The perfect denoiser of data N(MEAN, VARIANCE), which says v = V of its variance."""

    prediction: str
    outputs: int


def forward(engine, net, inputs, key=None):
    s, x, t = SCHEDULE.build(), inputs["x"].astype(np.float64), inputs["t"]
    a, noise = np.sqrt(s.alpha_bar[t])[:, None], s.one_minus_alpha_bar[t][:, None]
    x0_hat = MEAN + a * VARIANCE / (a * a * VARIANCE + noise) * (x - a * MEAN)
    y = convert(s, x, t, x0_hat, "x0", net.config.prediction)
    return np.concatenate([y, np.full(x.shape, V)][: net.config.outputs], axis=1), {}


MODULE = SimpleNamespace(
    inputs=lambda config: {"x": Input((2,)), "t": Input((), "int")}, layout=lambda config: {"w": linear_layout(1, 1)},
    forward=forward, backward=forward,
)  # fmt: skip


@pytest.fixture(autouse=True)
def perfect_is_known():
    register("perfect", Perfect, MODULE)
    yield
    del KINDS["perfect"]


def perfect(prediction="eps", spacing="uniform", learned=True):
    objective = Denoising(schedule=SCHEDULE, prediction=prediction, variance="learned" if learned else "fixed", bins=0)
    variance = "learned" if learned else "beta"
    settings = SampleConfig(steps=10, spacing=spacing, threshold="none", variance=variance)
    network = Network(Perfect(prediction, 1 + objective.learned), {})
    return Trained({"denoiser": network}, objective, settings, "reference")


def exact(spacing, n, kind):
    """The bound in bits of one number of N(MEAN, VARIANCE), by the moments of the chain of n steps: the error of the mean of
    x_{t-1} is b (x_0 - x0_hat), whose mean square is b^2 times the variance of x_0 given x_t."""
    full = SCHEDULE.build()
    s = full.respaced(SPACINGS[spacing](full, n).tolist())
    nats = 0.0
    for i in range(1, s.T + 1):
        left = VARIANCE * s.one_minus_alpha_bar[i] / (s.alpha_bar[i] * VARIANCE + s.one_minus_alpha_bar[i])
        log_variance = {
            "learned": lambda i: float(learned_log_variance(s, np.array([V]), i)[0][0]),
            "posterior": lambda i: float(posterior_log_variance(s, i)), "beta": lambda i: float(step_log_variance(s, i)),
        }[kind](i)  # fmt: skip
        if i == 1:
            nats += 0.5 * (math.log(2 * math.pi) + log_variance + left * math.exp(-log_variance))
            continue
        of_x0, _ = posterior_mean_coefficients(s, i)
        true = float(posterior_log_variance(s, i))
        square = math.exp(true) + of_x0**2 * left
        nats += 0.5 * (log_variance - true - 1 + square * math.exp(-log_variance))
    a2, s2 = s.alpha_bar[-1], s.one_minus_alpha_bar[-1]
    return (nats + 0.5 * (a2 * (MEAN**2 + VARIANCE) + s2 - 1 - math.log(s2))) / math.log(2)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "mu"])
@pytest.mark.parametrize("spacing", ["uniform", "trailing", "quadratic"])
def test_of_a_gaussian_and_its_perfect_denoiser_every_variance_gives_what_the_moments_say(prediction, spacing):
    x = MEAN + math.sqrt(VARIANCE) * np.random.default_rng(0).standard_normal((4000, 2))
    found = nll(perfect(prediction, spacing), x, steps=7, per_step=150, first_variance="refdiff", progress=False)
    assert found["timesteps"] == SPACINGS[spacing](SCHEDULE.build(), 7).tolist()
    assert (found["nll_steps"], len(found["terms"]), found["variance"]) == (7, 8, "learned")
    for kind, suffix in (("learned", ""), ("posterior", "_posterior"), ("beta", "_beta")):
        actual, error = found[f"bits_per_dim{suffix}"], found[f"bits_per_dim{suffix}_error"]
        assert abs(actual - exact(spacing, 7, kind)) <= 5 * error, kind
        assert error <= 0.04 * (1 + abs(actual)), kind


def test_all_steps_are_the_full_chain_to_the_bit():
    x = np.random.default_rng(0).standard_normal((50, 2))
    for learned in (False, True):
        model = perfect(learned=learned)
        full, chosen = (nll(model, x, per_step=4, steps=steps, progress=False) for steps in (None, 40))
        assert "nll_steps" not in full
        assert {k: v for k, v in chosen.items() if k not in ("nll_steps", "timesteps")} == full


def test_fewer_steps_of_the_perfect_denoiser_are_a_worse_bound_with_as_many_images_in_all():
    x = MEAN + math.sqrt(VARIANCE) * np.random.default_rng(0).standard_normal((4000, 2))
    few, more = (nll(perfect(), x, steps=steps, per_step=100, progress=False) for steps in (4, 20))
    assert few["bits_per_dim"] > more["bits_per_dim"]
    assert 4000 <= sum(few["counts"]) <= 4010
    assert 4000 <= sum(more["counts"]) <= 4030


def test_the_digits_have_a_bound_of_any_number_of_steps():
    changes = ["networks.denoiser.width=8", "networks.denoiser.groups=8", "schedule.T=10", "schedule.options={beta_end=0.5}",
               "sample.steps=4"]  # fmt: skip
    model, x = networks.trained(Config.resolve("digits", changes=changes)), load("digits").held_out[:20]
    for steps in (1, 3):
        found = nll(model, x, per_step=4, steps=steps, progress=False)
        assert len(found["terms"]) == steps + 1
        assert np.isfinite(found["bits_per_dim"])
        assert all(term >= 0 for term in found["terms"])


@pytest.mark.parametrize("steps", [0, 41])
def test_as_many_steps_as_there_are_not_are_refused(steps):
    with pytest.raises(ValueError, match=rf"n: expected a number of steps from 1 to T = 40, got {steps}"):
        nll(perfect(), np.zeros((5, 2)), steps=steps, progress=False)
