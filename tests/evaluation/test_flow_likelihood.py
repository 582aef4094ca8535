"""The likelihood by the flow: of Gaussian data it is the density, of levels the density spread over them; and it warns."""

import json
import warnings
from dataclasses import replace
from functools import partial

import networks
import numpy as np
import pytest

from refdiff.cli import main
from refdiff.config import Config
from refdiff.data import load
from refdiff.errors import DoubtWarning
from refdiff.evaluation import estimate_flow, flow_nll
from refdiff.process import GaussianMixture, linear, predictor, uniform_steps
from refdiff.testing.measures import normal_logpdf

SCHEDULE = linear(400, 0.1 / 400, 20 / 400)
VARIANCES = np.array([0.3, 0.2, 0.6])
MEAN = np.array([0.2, -0.3, 0.1])
DATA = GaussianMixture([1.0], MEAN[None], np.diag(VARIANCES)[None])
PREDICT = predictor(SCHEDULE, partial(DATA.eps, SCHEDULE))


def estimated(x, steps=100, **how):
    return estimate_flow(SCHEDULE, lambda chosen: PREDICT, x, uniform_steps(400, steps).tolist(), **how)


def test_of_gaussian_data_it_is_their_density():
    """-log2 p a dimension, however the samples are divided into batches; the error is the spread over samples."""
    x = MEAN + np.sqrt(VARIANCES) * np.random.default_rng(0).standard_normal((50, 3))
    each = -normal_logpdf(x, MEAN, VARIANCES).sum(axis=1) / (3 * np.log(2))
    found = estimated(x)
    assert found["flow_bits_per_dim"] == pytest.approx(each.mean(), abs=2e-3)
    assert found["flow_bits_per_dim_error"] == pytest.approx(each.std(ddof=1) / 50**0.5, rel=1e-2)
    assert (found["flow_samples"], found["flow_probes"], found["dims"], found["bins"]) == (50, 0, 3, None)
    other = estimated(x, batch=7)
    assert other["flow_bits_per_dim"] == pytest.approx(found["flow_bits_per_dim"], rel=1e-12)


def test_probes_estimate_the_same():
    """Signs, whose estimate is exact where the derivative is diagonal, as here."""
    x = np.random.default_rng(1).uniform(-1, 1, (20, 3))
    exact, by_signs = estimated(x), estimated(x, probes=2, seed=5)
    assert by_signs["flow_bits_per_dim"] == pytest.approx(exact["flow_bits_per_dim"], abs=1e-6)


def test_levels_are_spread_out_evenly():
    """E -log2 N(x + h (u - 1/2)) - log2 h, by quadrature over u, of every sample."""
    x = np.random.default_rng(2).integers(0, 5, (4000, 3)) / 2 - 1
    u, w = np.polynomial.legendre.leggauss(20)
    spread = x[..., None] + 0.25 * u
    expected = -(normal_logpdf(spread, MEAN[:, None], VARIANCES[:, None]) @ w).mean() / 2 / np.log(2) - np.log2(0.5)
    found = estimated(x, bins=5, batch=4000)
    assert found["flow_bits_per_dim"] == pytest.approx(expected, abs=0.04)  # of 12,000 places
    assert found["bins"] == 5


def test_steps_that_are_too_long_are_doubted():
    """Of two narrow modes; which samples, which step, and once however many batches say so."""
    data = GaussianMixture([0.5, 0.5], [[-0.8], [0.8]], [[[1e-3]], [[1e-3]]])
    predict = predictor(SCHEDULE, partial(data.eps, SCHEDULE))
    x = data.sample(9, 0)
    with pytest.warns(DoubtWarning, match=r"^of samples 0 to 3: timesteps: expected steps that err .*\(and 2 more\)$"):
        estimate_flow(SCHEDULE, lambda chosen: predict, x, [1, 150, 400], batch=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate_flow(SCHEDULE, lambda chosen: predict, x, range(1, 401))


def test_what_is_none_is_refused():
    for how in ({"probes": -1}, {"batch": 0}):
        with pytest.raises(ValueError, match=r"^probes, batch: expected at least 0 probes and batches of at least 1"):
            estimated(np.zeros((2, 3)), **how)
    model = networks.trained(Config.resolve("mixture"))
    with pytest.raises(ValueError, match=r"^x: expected samples \(N, 2\), got shape \(4, 3\)"):
        flow_nll(model, np.zeros((4, 3), np.float32), progress=False)
    with pytest.raises(ValueError, match="label"):
        flow_nll(model, np.zeros((4, 2), np.float32), progress=False, conditions={"label": np.zeros(4, int)})


def test_of_a_trained_model_it_asks_the_network_as_sampling_does():
    """Points have a density and an exact divergence; a fresh network says eps = 0, whose flow stretches x alone."""
    config = Config.resolve("mixture", changes=["sample.steps=10"])
    x = load("mixture").held_out[:30]
    model = networks.trained(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = flow_nll(model, x, progress=False)
    schedule = config.schedule.build()
    a = schedule.alpha_bar[-1] ** 0.5
    expected = -(normal_logpdf(a * x.astype(float), 0.0, 1.0).sum(1) + 2 * np.log(a)).mean() / 2 / np.log(2)
    assert found["flow_bits_per_dim"] == pytest.approx(expected, rel=1e-3)
    assert (found["flow_steps"], found["flow_probes"], found["bins"]) == (10, 0, None)
    few = model._replace(settings=replace(model.settings, steps=4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert flow_nll(few, x, progress=False)["flow_steps"] == 4
        assert flow_nll(model, x, steps=7, probes=3, progress=False)["flow_probes"] == 3


def test_at_the_command_line(tmp_path, capsys):
    """Beside what is measured of samples; the doubt is one line, and the labels of the data are told."""
    small = [
        "--set=train.steps=2",
        "--set=train.batch=8",
        "--set=networks.denoiser.width=4",
        "--set=networks.denoiser.groups=2",
    ]
    out = str(tmp_path / "run")
    assert main(["train", "--preset", "digits-classes", "--out", out, "--quiet", *small]) == 0
    np.savez(tmp_path / "few.npz", **few_digits())
    capsys.readouterr()
    command = ["eval", out, "--n", "10", "--quiet", "--flow", "--flow-steps", "6", "--data", str(tmp_path / "few.npz")]
    assert main([*command, "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["flow_steps"], found["flow_probes"], found["bins"], found["dims"]) == (6, 1, 17, 64)
    assert np.isfinite(found["flow_bits_per_dim"])
    assert found["frechet_samples"] > 0
    assert all(line.startswith("refdiff: warning: of samples 0 to") for line in said.err.splitlines())


def few_digits():
    """Sixty to train with, twelve held out."""
    digits = load("digits")
    few = {"x": digits.x[:60], "labels": digits.labels[:60]}
    return few | {"held_out": digits.held_out[:12], "held_out_labels": digits.held_out_labels[:12]}
