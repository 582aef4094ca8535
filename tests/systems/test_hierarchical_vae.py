"""The hierarchical variational autoencoder: its gradient at every depth, its bound both ways, samples, bad input."""

from dataclasses import replace

import numpy as np
import pytest

from refdiff import models
from refdiff.config import Config, NetworkConfig
from refdiff.data import Dataset
from refdiff.engines import reference
from refdiff.models import Network, PerceptronConfig, flatten
from refdiff.process import consistency_terms
from refdiff.random import Key
from refdiff.sampling import SampleConfig
from refdiff.systems import VAE, HierarchicalVAE, SystemModel, draw, trajectory
from refdiff.systems import hierarchical_vae as module
from refdiff.systems.levels import draw_up, drawn_anew, means_down
from refdiff.testing.measures import relative_error
from refdiff.training import State
from systems import checks, hierarchical, rows
from systems.runs import batch_at, configuration

IMAGES, POINTS = (
    Dataset("rows", x[:96], None, x[96:], None)
    for x in (rows.images(4).entries["x"][:128], rows.points(labels=False).entries["x"][:128])
)
DEPTHS = [(3,), (5, 2), (5, 3, 2), ((2, 2, 1), (4, 1), 4)]  # latents of other numbers, and of other shapes


def small(latents, likelihood="bernoulli", **options):
    """A configuration and its data: images, or points of a Gaussian likelihood."""
    data = POINTS if likelihood == "gaussian" else IMAGES
    return hierarchical.system(data.shape, latents, likelihood, **options), data


def drawn(config, data, step=1):
    """Networks in float64, a batch and its key."""
    networks = checks.networks_of(config, State.first(config))
    batch = {name: a.astype(np.float64) for name, a in batch_at(config, data, step).items()}
    key = Key(config.seed, step, 0, config.train.batch)
    return networks, config.objective.draw(reference, batch, key, {}), key


def asked(config, networks=None):
    """The system's model, with weights of float64."""
    networks = networks or checks.networks_of(config, State.first(config))
    return SystemModel.of(networks, config.objective, SampleConfig(), "reference", "float32")


@pytest.mark.parametrize("latents", DEPTHS, ids=str)
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_gradient_of_every_network(latents, likelihood):
    config, data = small(latents, likelihood)
    errors = checks.gradient_errors(config, State.first(config), config.objective, data)
    assert len(errors) == 2 * len(latents) + (likelihood == "gaussian")
    assert max(errors.values()) <= 1e-12, errors


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_one_level_is_the_variational_autoencoder(likelihood):
    config, data = small((3,), likelihood)
    networks, batch, key = drawn(config, data)
    terms, g = config.objective.loss_and_gradient(reference, networks, batch, key)
    vae = VAE(likelihood=likelihood, latent=3)
    same = {"encoder": networks["encoder1"], "decoder": networks["decoder1"]} | {
        name: network for name, network in networks.items() if name == "noise"
    }
    expected, of_vae = vae.loss_and_gradient(reference, same, batch | {"eps": batch["eps1"][:, None]}, key)
    assert relative_error(terms["loss"], expected["loss"]) <= 1e-14
    assert relative_error(terms["prior"], expected["divergence"]) <= 1e-14
    for name, other in {"encoder1": "encoder", "decoder1": "decoder"}.items():
        assert relative_error(g[name], of_vae[other]) <= 1e-14
    assert set(g) - {"encoder1", "decoder1"} == set(of_vae) - {"encoder", "decoder"}


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_terms_are_those_that_are_measured_and_their_sum_is_the_loss(likelihood):
    """Of the same draws: the engine's operations against NumPy; that of the prior is no draw but a divergence."""
    config, data = small((5, 3, 2), likelihood)
    networks, batch, key = drawn(config, data)
    terms, _ = config.objective.loss_and_gradient(reference, networks, batch, key)
    d = draw_up(
        asked(config, networks).networks, likelihood, batch["x"], [batch[f"eps{l}"][:, None] for l in (1, 2, 3)]
    )
    measured = [*consistency_terms(d.forward, d.reverse, d.prior)[:-1], d.divergence.sum(axis=1)]
    names = ["reconstruction", "consistency1", "consistency2", "prior"]
    assert list(terms) == ["loss", *names]
    for name, expected in zip(names, measured, strict=True):
        assert relative_error(terms[name], expected) <= 1e-5, name
    assert relative_error(terms["loss"], sum(terms[name] for name in names)) <= 1e-14


def test_the_bound_both_ways_and_the_tighter_one():
    config, data = small((3, 2), "gaussian")
    model = asked(config)
    found = module.evaluate(model.networks, config.objective, data, Key(0), False)
    terms = [found[f"{name}_bits"] for name in ("reconstruction", "consistency1", "prior")]
    assert found["sum_of_terms_bits"] == pytest.approx(sum(terms), rel=1e-12)
    apart, error = found["bits_per_dim"] - found["sum_of_terms_bits"], found["bits_per_dim_error"]
    assert 0 < error < 0.1 * found["bits_per_dim"]
    assert 0 < abs(apart) < 5 * error
    assert found["importance_weighted_bits"] < found["bits_per_dim"]
    assert found["bound_nats"] == pytest.approx(found["bits_per_dim"] * 2 * np.log(2), rel=1e-12)


def test_a_sample_is_its_own_and_comes_down_level_by_level():
    config, _ = small(((2, 2, 1), (4, 1), 4))
    model = asked(config)
    states = list(trajectory(model, np.arange(6), seed=3))
    assert [t for t, _ in states] == [2, 1, 0]
    assert all(x.shape == (6, 4, 4, 1) and x.dtype == np.float32 for _, x in states)
    assert len({x.tobytes() for _, x in states}) == 3
    alone = [x for _, x in trajectory(model, np.array([4]), seed=3)]
    for (_, x), one in zip(states, alone, strict=True):
        assert relative_error(one[0], x[4]) <= 1e-6
    assert np.array_equal(draw(model, 6, seed=3, progress=False), states[-1][1])
    assert np.abs(states[-1][1]).max() < 1  # the mean of bits -1 and 1


def test_what_is_kept_stays_and_what_is_below_is_drawn():
    """Kept at level 1 there is nothing to draw; kept at the top, another key gives another sample of the same z."""
    config, data = small((5, 3, 2))
    networks = asked(config).networks
    eps = [np.random.default_rng(l).standard_normal((4, 1, n)) for l, n in enumerate((5, 3, 2))]
    z = draw_up(networks, "bernoulli", data.x[:4], eps).z
    one, other = (drawn_anew(networks, "bernoulli", 1, z[0], Key(seed)) for seed in (1, 2))
    assert np.array_equal(one, other)
    assert np.array_equal(one, means_down(networks, "bernoulli", 1, z[0]))
    one, other = (drawn_anew(networks, "bernoulli", 3, z[2], Key(seed)) for seed in (1, 2))
    assert np.abs(one - other).max() > 1e-3
    assert np.array_equal(one, drawn_anew(networks, "bernoulli", 3, z[2], Key(1)))


def test_the_picture(tmp_path):
    for latents, likelihood in (((3, 2), "bernoulli"), ((2,), "gaussian")):
        config, data = small(latents, likelihood)
        model = asked(config)
        found = module.evaluate(model.networks, config.objective, data, Key(0), False)
        path = tmp_path / f"{likelihood}.png"
        module.plot(model.networks, config.objective, data, found, path)
        assert path.stat().st_size > 5000


def networks_without(name, latents=(2, 2, 2)):
    networks = hierarchical.levels((2,), latents, "gaussian")
    del networks[name]
    return networks


def changed(name, **changes):
    networks = hierarchical.levels((2,), (2, 2, 2), "gaussian")
    return networks | {name: replace(networks[name], **changes)}


@pytest.mark.parametrize(
    ("networks", "options", "message"),
    [
        ({}, {"levels": 0}, "objective.levels: expected at least 1 level, got 0; 1 makes a VAE of it"),
        (
            networks_without("encoder3"), {"levels": 3},
            "networks: expected 'encoder3', which HierarchicalVAE trains, got encoder1, decoder1, encoder2, decoder2, "
            "decoder3, noise; add a table [networks.encoder3]",
        ),
        (
            changed("encoder2", inputs=(3,)), {"levels": 3},
            "networks.encoder2: expected one that reads latents of shape (2,), as networks.encoder1 says them, got one that "
            "reads (3,); give both the same",
        ),
        (
            changed("decoder2", outputs=(3,)), {"levels": 3},
            "networks.decoder2: expected one that says samples of shape (2,), as networks.encoder2 reads them, got one that "
            "says (3,); give both the same",
        ),
        (
            changed("decoder3", inputs=(4,)), {"levels": 3},
            "networks.decoder3: expected one that reads latents of shape (2,), as networks.encoder3 says them, got one that "
            "reads (4,); give both the same",
        ),
        (
            changed("decoder2", parts=1), {"levels": 3},
            "networks.decoder2.parts: expected 2, a mean and a log variance, got 1; give networks.decoder2.parts=2",
        ),
        (
            changed("encoder2", entry="x"), {"levels": 3},
            "networks.encoder2: expected a network that reads z alone, got PerceptronConfig, which reads x; give "
            "networks.encoder2.entry=z, or a network that does",
        ),
        (
            hierarchical.levels((2,), (2,), "bernoulli"), {"levels": 1, "likelihood": "bernoulli"},
            "objective.likelihood: expected gaussian for points (2,), of which (x + 1) / 2 may lie outside [0, 1], got",
        ),
        (
            hierarchical.levels((2,), (2,), "bernoulli"), {"levels": 1, "likelihood": "poisson"},
            "objective.likelihood: expected ",
        ),
        (
            hierarchical.levels((2,), (2, 2), "gaussian") | {"other": PerceptronConfig()},
            {"levels": 2, "trains": ("encoder1", "other")},
            "objective.trains: expected encoder1, encoder2, decoder1, decoder2, noise, got encoder1, other; leave it out",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_clear_line(networks, options, message):
    with pytest.raises(ValueError, match="expected") as error:
        configuration(networks, HierarchicalVAE(**{"likelihood": "gaussian", **options}))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_latent_of_zero_size_is_refused():
    with pytest.raises(ValueError, match=r"outputs: expected .* got \(0,\)"):
        hierarchical.levels((2,), (2, 0), "gaussian")


def test_the_numbers_of_the_latents_and_the_names_follow_the_networks():
    config, _ = small((5, 3, 2))
    assert config.objective.latents == (5, 3, 2)
    assert config.objective.trains == ("encoder1", "encoder2", "encoder3", "decoder1", "decoder2", "decoder3")
    assert Config.from_dict(config.to_dict()) == config
    fewer = config.changed(["objective.levels=2"])
    assert (fewer.objective.latents, fewer.objective.trains) == (
        (5, 3),
        ("encoder1", "encoder2", "decoder1", "decoder2"),
    )
    assert isinstance(fewer.networks["encoder3"], NetworkConfig)


def test_each_network_has_its_gradient_and_no_more():
    config, data = small((5, 2))
    networks, batch, key = drawn(config, data)
    _, g = config.objective.loss_and_gradient(reference, networks, batch, key)
    assert set(g) == set(networks)
    for name, network in networks.items():
        assert isinstance(network, Network)
        expected = {path: parameter.shape for path, parameter in flatten(models.layout(network.config)).items()}
        assert {path: a.shape for path, a in flatten(g[name]).items()} == expected
