"""The variational autoencoder: its loss beside what is measured, probabilistic principal components, and what it refuses."""

import json

import numpy as np
import pytest
from contract_networks import AffineConfig
from helpers import fails

from refdiff import models
from refdiff.cli import main
from refdiff.config import Config
from refdiff.engines import reference
from refdiff.models import Network, PerceptronConfig, TableConfig
from refdiff.process import joint_ratio
from refdiff.random import Key, Sequence, normal
from refdiff.sampling import SampleConfig
from refdiff.systems import VAE, SystemModel, draw, vae
from refdiff.systems.bounds import log_mean_weights
from refdiff.systems.levels import draw_up
from refdiff.systems.system import Asked
from refdiff.training import State, system_model
from systems import checks, rows
from systems.autoencoders import ALONE
from systems.runs import configuration

VAES = [name for name in ALONE if name.startswith("vae")]


class Held(rows.Rows):
    """Data of which the first 40 are held out."""

    @property
    def x(self):
        return self.entries["x"][40:]

    @property
    def held_out(self):
        return self.entries["x"][:40]

    held_out_labels = None


def asked(networks):
    """The networks in float64, as `evaluate` asks them."""
    return {
        name: Asked(net.config, lambda batch, net=net: models.predict(reference, net, batch))
        for name, net in networks.items()
    }


@pytest.mark.parametrize("name", VAES)
def test_the_loss_is_what_is_measured_of_the_same_draws(name):
    """Of every term: in operations of the engine, and in NumPy."""
    config, data = ALONE[name].config, ALONE[name].data
    objective, networks = config.objective, checks.networks_of(config, State.first(config))
    x, key = data.entries["x"][:6].astype(np.float64), Key(3, 1, 0, 6)
    batch = objective.draw(reference, {"x": x}, key, {})
    terms, _ = objective.loss_and_gradient(reference, networks, batch, key)
    nets = asked(networks)
    levels = nets | {"encoder1": nets["encoder"], "decoder1": nets["decoder"]}
    d = draw_up(levels, objective.likelihood, x, [batch["eps"]])
    if objective.samples > 1:
        assert terms.keys() == {"loss"}
        log_w = joint_ratio(d.forward, d.reverse, d.prior).reshape(6, objective.samples)
        np.testing.assert_allclose(terms["loss"], -log_mean_weights(log_w)[0], rtol=1e-12)
        return
    divergence = d.divergence.sum(axis=1)
    np.testing.assert_allclose(terms["reconstruction"], -d.reverse[0], rtol=1e-12)
    np.testing.assert_allclose(terms["divergence"], divergence, rtol=1e-12)
    np.testing.assert_allclose(terms["loss"], -d.reverse[0] + objective.beta * divergence, rtol=1e-12)


def test_what_is_drawn():
    """eps of each sample by its number; of bits (x + 1) / 2, of anything else x itself and the row of its variance."""
    x, key = rows.images(4).entries["x"][:4], Key(3, 1, 0, 4)
    batch = VAE(samples=3, latent=2).draw(reference, {"x": x}, key, {})
    assert batch["eps"].shape == (4, 3, 2)
    np.testing.assert_allclose(batch["target"], (x + 1) / 2, atol=1e-7)
    part = VAE(samples=3, latent=2).draw(reference, {"x": x[2:]}, key._replace(first=2), {})
    assert np.array_equal(part["eps"], batch["eps"][2:])
    batch = VAE(likelihood="gaussian", latent=2).draw(reference, {"x": x}, key, {})
    assert batch["target"] is x
    assert not batch["index"].any()


def test_beta_one_is_the_bound_and_other_betas_weigh_the_divergence():
    config = ALONE["vae"].config
    networks, x = checks.networks_of(config, State.first(config)), ALONE["vae"].data.entries["x"][:4].astype(np.float64)
    batch = VAE(latent=3).draw(reference, {"x": x}, Key(0, 1, 0, 4), {})
    terms = {
        beta: VAE(latent=3, beta=beta).loss_and_gradient(reference, networks, batch, Key(0, 1, 0, 4))[0]
        for beta in (1.0, 0.25)
    }
    np.testing.assert_allclose(terms[1.0]["loss"] - terms[0.25]["loss"], 0.75 * terms[1.0]["divergence"], rtol=1e-12)


# ---- probabilistic principal components


def principal_log_likelihood(x, q):
    """The largest mean log likelihood of x = W z + m + s eps, z of q numbers: that of the first q eigenvalues of their
    covariance, and the mean of the others as s^2.   [PPCA] section 3.2"""
    eigenvalues = np.linalg.eigvalsh(np.cov(x.astype(np.float64).T, bias=True))[::-1]
    d, s2 = len(eigenvalues), eigenvalues[q:].mean()
    return -0.5 * (d * np.log(2 * np.pi) + np.log(eigenvalues[:q]).sum() + (d - q) * np.log(s2) + d)


def test_a_linear_gaussian_one_reaches_the_likelihood_of_probabilistic_principal_components():
    """Within 1 %, from below: its bound, the mean over q exact, as that of a polynomial of second degree."""
    n, d = 256, 5
    z, eps, W = (
        normal(Sequence(i, 2), np.arange(m), (size,), np.float64) for i, m, size in ((0, n, 2), (1, n, d), (2, 2, d))
    )
    data = rows.Rows(x=z @ W + 0.5 * eps + 0.3)
    networks = {
        "encoder": PerceptronConfig((d,), (), (2,), parts=2),
        "decoder": PerceptronConfig((2,), (), (d,), entry="z"),
        "noise": TableConfig(),
    }
    objective = VAE(likelihood="gaussian", latent=2)
    config = configuration(networks, objective, batch=n, rate=5e-2, steps=500, max_grad_norm=0.0)
    p = checks.trained(config, data, State.first(config), 500)[0].state().trees["p"]
    nets = {name: Network(model, p[name]) for name, model in networks.items()}
    x = data.entries["x"]
    nodes = np.float32(2**0.5) * np.concatenate([np.eye(2), -np.eye(2)]).astype(np.float32)
    bounds = [
        -objective.loss_and_gradient(
            reference,
            nets,
            {"x": x, "target": x, "eps": np.tile(e, (n, 1, 1)), "index": np.zeros(n, int)},
            Key(0, 0, 0, n),
        )[0]["loss"].mean()
        for e in nodes
    ]
    exact = principal_log_likelihood(x, 2)
    assert exact - 0.01 * abs(exact) <= np.mean(bounds) <= exact + 1e-4


# ---- what is measured, drawn and shown


@pytest.mark.parametrize("name", VAES)
def test_what_is_measured_is_the_bound_term_by_term(name, tmp_path):
    config, data = ALONE[name].config, Held(**ALONE[name].data.entries)
    state, _ = checks.trained(config, data, State.first(config), 20)
    model = system_model(config, state.state())
    found = vae.evaluate(model.networks, model.objective, data, Key(0).under("evaluate"), False)
    assert found["bits_per_dim"] == pytest.approx(found["reconstruction_bits"] + found["divergence_bits"])
    assert found["bound_nats"] == pytest.approx(found["bits_per_dim"] * 16 * np.log(2))
    assert found["importance_weighted_bits"] < found["bits_per_dim"]
    assert 0 < found["importance_weighted_bits_error"] < 0.1
    assert sum(found["unit_divergence_nats"]) == pytest.approx(found["divergence_bits"] * 16 * np.log(2))
    assert found["samples"] == 40
    vae.plot(model.networks, model.objective, data, found, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_the_error_of_the_bound_is_its_spread_over_draws():
    config, data = ALONE["vae"].config, Held(**ALONE["vae"].data.entries)
    model = system_model(config, State.first(config))
    found = [vae.evaluate(model.networks, model.objective, data, Key(seed), False) for seed in range(30)]
    for name in ("bits_per_dim", "importance_weighted_bits"):
        spread = np.std([f[name] for f in found])
        assert np.mean([f[f"{name}_error"] for f in found]) == pytest.approx(spread, rel=0.4), name


@pytest.mark.parametrize("name", ["vae", "vae_gaussian"])
def test_samples_are_decoded_normal_numbers(name):
    """Each by its own number; of bits the probability of a 1, as a grey."""
    config = ALONE[name].config
    networks = checks.networks_of(config, State.first(config))
    model = SystemModel(asked(networks), config.objective, SampleConfig())
    x = draw(model, 5, seed=4, progress=False)
    z = normal(Key(4).under("sample")("z"), np.arange(5), (config.objective.latent,))
    y = models.predict(reference, networks["decoder"], {"z": z.astype(np.float64)})
    expected = 2 / (1 + np.exp(-y)) - 1 if name == "vae" else y
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, expected, atol=1e-6)
    assert model.shape == x.shape[1:] == (4, 4, 1)
    np.testing.assert_allclose(draw(model, 5, seed=4, batch=2, progress=False), x, atol=1e-6)


def test_the_size_of_a_latent_follows_from_the_encoder():
    assert ALONE["vae"].config.objective.latent == 3
    changes = ["networks.encoder.latent=2", "networks.decoder.latent=2"]
    assert Config.resolve("digits-vae", changes=changes).objective.latent == 2
    assert Config.resolve("digits-vae").objective.latent == 16
    assert VAE(likelihood="gaussian").trains == ("encoder", "decoder", "noise")


# ---- what does not fit

GAUSSIAN = ["objective.likelihood=gaussian", "networks.noise.kind=table"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["objective.beta=0"], "^objective.beta: expected a finite number above 0, 1 for a bound, got 0.0$"),
        (["objective.beta=-1"], "^objective.beta: expected a finite number above 0"),
        (["objective.beta=inf"], "^objective.beta: expected a finite number above 0"),
        (["objective.samples=0"], "^objective.samples: expected at least 1, got 0$"),
        (
            ["objective.samples=4", "objective.beta=2"],
            "^objective.beta: expected 1 with 4 samples, .* objective.samples=1$",
        ),
        (["objective.likelihood=poisson"], "^objective.likelihood: expected one of bernoulli, gaussian, got 'poisson'"),
        (["networks.encoder.latent=0"], "^networks.encoder.latent: expected an integer of at least 1, got 0"),
        (["networks.decoder.latent=0"], "^networks.decoder.latent: expected an integer of at least 1, got 0"),
        (["networks.encoder.parts=1"], "^networks.encoder.parts: expected 2, a mean and a log variance, got 1; give"),
        (["networks.decoder.parts=2"], "^networks.decoder.parts: expected 1, .*, got 2; give networks.decoder.parts=1"),
        (
            ["networks.decoder.latent=8"],
            r"^networks.decoder: expected one that reads latents of shape \(16,\), .* \(8,\)",
        ),
        (["networks.decoder.size=16"], r"^networks.decoder: .* samples of shape \(8, 8, 1\), .* says \(16, 16, 1\)"),
        (["networks.decoder.kind=conv_encoder"], "^networks.decoder: expected a network that reads z alone, got Conv"),
        (["networks.encoder.kind=unet"], "^networks.encoder: expected a network that reads x alone, got UNet"),
        (["objective.likelihood=gaussian"], "^networks: expected 'noise', which VAE trains, got encoder, decoder; add"),
        ([*GAUSSIAN, "networks.noise.width=2"], "^networks.noise: expected a table of one row and one number"),
        (['objective.trains=["encoder"]'], "^objective.trains: expected encoder, decoder, got encoder; leave it out"),
    ],
)
def test_a_configuration_says_what_does_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        Config.resolve("digits-vae", changes=changes)


def test_points_have_no_bernoulli_likelihood():
    networks = {
        "encoder": PerceptronConfig((2,), (8,), (1,), parts=2),
        "decoder": PerceptronConfig((1,), (8,), (2,), entry="z"),
        "noise": TableConfig(),
    }
    with pytest.raises(ValueError, match=r"^objective.likelihood: expected gaussian for points \(2,\), .*=gaussian"):
        configuration(networks, VAE())
    assert configuration(networks, VAE(likelihood="gaussian")).objective.latent == 1


def test_a_network_that_does_not_say_a_shape_is_refused():
    networks = {"encoder": AffineConfig(2), "decoder": PerceptronConfig((1,), (8,), (2,), entry="z")}
    with pytest.raises(
        ValueError, match=r"^networks.encoder.kind: expected a network that says the shape `outputs`, such"
    ):
        configuration(networks, VAE())


def test_gaussian_by_name():
    config = Config.resolve("digits-vae", changes=GAUSSIAN)
    assert config.objective.trains == ("encoder", "decoder", "noise")
    again = config.changed(["objective.likelihood=bernoulli"])
    assert again.objective.trains == ("encoder", "decoder")


def test_a_run_is_trained_measured_and_drawn_from(tmp_path, capsys):
    out = tmp_path / "run"
    tiny = ["train.steps=3", "networks.encoder.width=4", "networks.decoder.width=4", "engine=reference"]
    sets = [word for change in tiny for word in ("--set", change)]
    main(["train", "--preset", "digits-vae", "--out", str(out), "--quiet", *sets])
    capsys.readouterr()
    main(["eval", str(out), "--json", "--quiet", "--plot", str(tmp_path / "a.png")])
    found = json.loads(capsys.readouterr().out)
    assert found["bits_per_dim"] >= found["importance_weighted_bits"] > 0
    assert len(found["unit_divergence_nats"]) == 16
    assert (tmp_path / "a.png").exists()
    main(["sample", str(out), "--n", "3", "--out", str(tmp_path / "s.npz"), "--quiet"])
    assert np.load(tmp_path / "s.npz")["x"].shape == (3, 8, 8, 1)
    assert "--nll: expected" in fails(capsys, "eval", out, "--nll", "--quiet")
