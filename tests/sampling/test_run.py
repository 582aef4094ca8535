"""Sampling from a model: numbered noise, every method, and the shape and range of what comes."""

import networks
import numpy as np
import pytest

from refdiff import models
from refdiff.sampling import network_function, sample
from refdiff.sampling.cuda import tables
from refdiff.sampling.run import trajectory


@pytest.fixture
def weights(small):
    rng, p = np.random.default_rng(0), models.initialise(models.layout(small.model), small.seed)
    return models.tree_map(lambda a: a + 0.05 * rng.standard_normal(a.shape).astype("f"), p)


METHODS = [["sample.method=ddim", "sample.eta=0"], ["sample.method=ddim", "sample.eta=0.5"], ["sample.method=ancestral"],
           ["sample.method=ancestral", "sample.variance=beta"], ["sample.method=heun"], ["sample.method=dpmpp_2m"],
           ["sample.method=dpmpp_2s"], ["sample.method=dpmpp_2m", "sample.spacing=trailing"],
           ["sample.method=dpmpp_2m", "sample.spacing=quadratic"],
           ["sample.method=dpmpp_2m", "sample.spacing=karras"],
           ["sample.method=ddim", "sample.spacing=leading"]]  # fmt: skip
# The same in exact arithmetic.
TWINS = [(["sample.method=euler"], METHODS[0]), (["sample.method=euler_ancestral"], METHODS[2])]


@pytest.mark.parametrize("changes", METHODS + [changes for changes, _ in TWINS])
def test_a_sample_depends_on_its_number_and_the_seed_alone(small, weights, changes):
    model = networks.trained(small.changed(changes), weights)
    together = sample(model, 5, seed=3, progress=False)
    apart = sample(model, 5, seed=3, batch=2, progress=False)
    assert together.shape == (5, 8, 8, 1)
    assert together.dtype == np.float32
    np.testing.assert_allclose(apart, together, atol=5e-5)  # of eps_hat, whose last digit sigma_T = 157 magnifies
    assert np.abs(sample(model, 5, seed=4, progress=False) - together).max() > 0.1
    assert np.abs(together).max() <= 1


def test_the_trajectory_begins_with_noise_and_ends_with_the_samples(small, weights):
    way = list(trajectory(networks.trained(small, weights), np.arange(3), seed=1))
    assert [t for t, _ in way] == [1000, 667, 334, 1, 0]
    np.testing.assert_array_equal(way[-1][1], sample(networks.trained(small, weights), 3, seed=1, progress=False))
    assert abs(way[0][1].std() - 1) < 0.2


def test_the_methods_differ(small, weights):
    results = [sample(networks.trained(small.changed(changes), weights), 2, progress=False) for changes in METHODS]
    for i in range(len(results)):
        for j in range(i):
            assert np.abs(results[i] - results[j]).max() > 1e-3


@pytest.mark.parametrize(("changes", "twin"), TWINS)
def test_eulers_methods_are_ddim_and_ancestral_sampling(small, weights, changes, twin):
    one, other = (sample(networks.trained(small.changed(c), weights), 2, progress=False) for c in (changes, twin))
    np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize(
    ("spacing", "steps"),
    [
        ("uniform", [1, 334, 667, 1000]),
        ("trailing", [250, 500, 750, 1000]),
        ("quadratic", [1, 112, 445, 1000]),
        ("leading", [1, 251, 501, 751]),
    ],
)
def test_the_spacing_chooses_the_steps(small, weights, spacing, steps):
    config = small.changed([f"sample.spacing={spacing}"])
    way = trajectory(networks.trained(config, weights), np.arange(1), seed=1)
    assert [t for t, _ in way] == [1000, *steps[-2::-1], 0]  # the noise is that of T, whatever it is shown as
    rows = tables(config.schedule.build(), config.sample)
    assert rows.timesteps.tolist() == steps[::-1]
    assert np.isfinite(rows.coefficients).all()


def test_no_samples_is_an_error(small, weights):
    with pytest.raises(ValueError, match="n: expected at least one sample, got 0"):
        sample(networks.trained(small, weights), 0)


def test_one_process_and_two_denoise_to_the_same_bits(two_processes, use_threads, small, weights):
    model = networks.trained(small.changed(["engine=cpu"]), weights)
    x = np.random.default_rng(0).standard_normal((7, 8, 8, 1)).astype(np.float32)
    results = []
    for count in (1, 2):
        use_threads(count)
        predict = network_function(model.engine, model.networks["denoiser"])
        results.append([predict({"x": x[:n], "t": np.arange(1, n + 1) * 100}).tobytes() for n in (7, 2, 1)])
        results[-1].append(sample(model, 5, seed=3, progress=False).tobytes())
    assert results[0] == results[1]
