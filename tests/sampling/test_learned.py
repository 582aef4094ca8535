"""Samples of a network that learned its variance: which settings look at v, and with which result."""

import numpy as np
import pytest

from refdiff import models
from refdiff.config import Config
from refdiff.models import Network
from refdiff.process import SPACINGS, ancestral_step, convert, learned_log_variance, posterior_mean
from refdiff.random import Key, normal
from refdiff.sampling import Trained, denoiser, network_function, sample, trajectory

SMALL = ["model.width=8", "model.groups=4", "schedule.T=20", "schedule.options={beta_end=0.5}", "sample.steps=5"]


def made(*changes, prediction="eps", shift=0.0):
    """Weights that say something; shift: what is added to v."""
    changes = [*SMALL, "objective.variance=learned", f"objective.prediction={prediction}", *changes]
    config, rng = Config.resolve("digits", changes=[*changes, "engine=reference"]), np.random.default_rng(0)
    p = models.tree_map(lambda spec: 0.2 * rng.standard_normal(spec.shape).astype("f"), models.layout(config.model))
    p["conv_out"]["bias"][1] += shift
    return Trained({"denoiser": Network(config.model, p)}, config.objective, config.sample, "reference")


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "mu"])
def test_each_step_is_the_ancestral_one_with_the_variance_that_the_network_says(prediction):
    trained = made("sample.method=ancestral", prediction=prediction)
    schedule, ids = trained.objective.schedule.build(), np.arange(3)
    model = denoiser(network_function("reference", trained.networks["denoiser"]), {}, True)
    states = list(trajectory(trained, ids, seed=4))
    steps = SPACINGS["uniform"](schedule, 5)[::-1].tolist()
    for t, (_, x), (s, actual) in zip(steps, states, states[1:], strict=False):
        said, v = model(x, t)
        x0_hat = np.clip(convert(schedule, x, t, said, prediction, "x0"), -1, 1)
        eps = normal(Key(4).under("sample")._replace(step=t)("step"), ids, (8, 8, 1))
        assert actual.tobytes() == ancestral_step(schedule, x, t, s, x0_hat, eps, "learned", v=v).tobytes()
        sd = np.exp(0.5 * learned_log_variance(schedule, v, t, s)[0]) * (s > 0)
        assert np.allclose(actual, posterior_mean(schedule, x, x0_hat, t, s) + sd * eps, atol=1e-6)


def test_no_other_method_and_no_other_variance_looks_at_v():
    for method in ("ddim", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2s", "euler"):
        one, other = (sample(made(f"sample.method={method}", shift=s), 2, progress=False) for s in (0, 3))
        assert one.tobytes() == other.tobytes()
    for variance, same in (("posterior", True), ("beta", True), ("learned", False)):
        changes = "sample.method=ancestral", f"sample.variance={variance}"
        one, other = (sample(made(*changes, shift=s), 2, progress=False) for s in (0, 3))
        assert (one.tobytes() == other.tobytes()) == same


@pytest.mark.parametrize("engine", ["reference", "cpu"])
def test_a_sample_does_not_depend_on_the_others(engine):
    trained = made("sample.method=ancestral")._replace(engine=engine)
    together = sample(trained, 5, seed=3, progress=False)
    apart = sample(trained, 5, seed=3, batch=2, progress=False)
    np.testing.assert_allclose(apart, together, atol=5e-5)
    assert np.abs(together).max() <= 1
    np.testing.assert_allclose(
        together, sample(trained._replace(engine="reference"), 5, seed=3, progress=False), atol=2e-4
    )
