"""The autoencoder: principal components, what is measured and shown of it, and what it refuses."""

import numpy as np
import pytest

from refdiff.config import Config
from refdiff.data import Dataset, load
from refdiff.models import PerceptronConfig
from refdiff.random import Key, Sequence, normal
from refdiff.systems import Autoencoder, autoencoder, can_draw, draw
from refdiff.training import State, system_model
from systems import checks, rows
from systems.autoencoders import ALONE
from systems.runs import configuration


def points(n, dims=6):
    """Points near a plane, with a mean."""
    z, W = (
        normal(Sequence(0, 2), np.arange(n), (2,), np.float64),
        normal(Sequence(1, 2), np.arange(2), (dims,), np.float64),
    )
    return z @ W + 0.2 * normal(Sequence(2, 2), np.arange(n), (dims,), np.float64) + 1.5


@pytest.mark.parametrize("n", [4, 50])
def test_the_error_of_principal_components_is_the_sum_of_the_other_eigenvalues(n):
    """Whether the samples are fewer than their numbers or more; of as many components as numbers nothing is lost."""
    x = points(n)
    eigenvalues = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    for count in range(1, 6):
        error = autoencoder.principal_error(x, x, count).mean()
        assert error == pytest.approx(max(eigenvalues[count:].sum(), 0) / 6, abs=1e-12)
    assert autoencoder.principal_error(points(50), points(90)[50:], 6).max() <= 1e-20


def test_a_linear_one_finds_the_principal_components():
    """Trained, its error is theirs within 1 %, and never below."""
    x = (points(256) - points(256).mean(axis=0)).astype(np.float32)
    networks = {"encoder": PerceptronConfig((6,), (), (2,)), "decoder": PerceptronConfig((2,), (), (6,), entry="z")}
    config = configuration(networks, Autoencoder(), batch=256, rate=5e-2, steps=600, max_grad_norm=0.0)
    _, steps = checks.trained(config, rows.Rows(x=x), State.first(config), 600)
    least = autoencoder.principal_error(x, x, 2).mean()
    assert least * (1 - 1e-5) <= steps[-1].loss <= 1.01 * least


def test_what_is_measured_and_shown(tmp_path):
    config, digits = ALONE["squared_error"].config, load("digits")
    small = digits.x[:, ::2, ::2], digits.held_out[:20, ::2, ::2]
    data = Dataset("small", small[0], digits.labels, small[1], digits.held_out_labels[:20])
    trained, _ = checks.trained(config, data, State.first(config), 20)
    model = system_model(config, trained.state())
    found = autoencoder.evaluate(model.networks, model.objective, data, Key(0), False)
    z = model.networks["encoder"]({"x": data.held_out})
    error = (model.networks["decoder"]({"z": z}) - data.held_out) ** 2
    assert found["squared_error"] == pytest.approx(error.mean(), rel=1e-5)
    assert found["squared_error_error"] == pytest.approx(error.mean(axis=(1, 2, 3)).std(ddof=1) / 20**0.5, rel=1e-5)
    assert found["principal_components_error"] == pytest.approx(
        autoencoder.principal_error(data.x, data.held_out, 2).mean()
    )
    assert found["unit_variance"] == pytest.approx(z.var(axis=0).tolist(), rel=1e-4)
    assert (found["latent"], found["samples"]) == (2, 20)
    autoencoder.plot(model.networks, model.objective, data, found, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_nothing_can_be_drawn():
    config = ALONE["squared_error"].config
    assert not can_draw(config.objective)
    with pytest.raises(ValueError, match=r"^objective.kind: expected a system of which samples can be drawn, got Auto"):
        draw(system_model(config, State.first(config)), 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["networks.encoder.latent=0"], "^networks.encoder.latent: expected an integer of at least 1, got 0"),
        (["networks.encoder.parts=2"], "^networks.encoder.parts: expected 1, one number for each .*, got 2"),
        (
            ["networks.decoder.latent=8"],
            r"^networks.decoder: expected one that reads latents of shape \(2,\), .* \(8,\)",
        ),
        (["networks.decoder.channels=3"], r"^networks.decoder: .* shape \(8, 8, 1\), .* says \(8, 8, 3\)"),
        (["networks.encoder.kind=table"], "^networks.encoder: expected a network that reads x alone, got TableConfig"),
        (
            ['objective.trains=["decoder"]'],
            "^objective.trains: expected encoder, decoder, got decoder; leave it out",
        ),
    ],
)
def test_a_configuration_says_what_does_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        Config.resolve("digits-autoencoder", changes=changes)


def test_networks_follow_the_data(tmp_path):
    """Size and channels of encoder and decoder are those of the images, unless they are given."""
    np.save(tmp_path / "rgb.npy", np.zeros((20, 12, 16, 3), np.uint8))
    config = Config.resolve("digits-autoencoder", changes=[f"data.source={tmp_path / 'rgb.npy'}"])
    assert config.networks["encoder"].model.shape == config.networks["decoder"].model.outputs == (12, 16, 3)
