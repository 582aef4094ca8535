"""Latent diffusion from end to end: the run of an autoencoder, the run that it is frozen in, and samples by caption."""

from dataclasses import replace

import numpy as np
import pytest
from emulator import Emulator
from helpers import emulated

from refdiff import models
from refdiff.engines import cuda
from refdiff.models import flatten, tree_map
from refdiff.sampling import sample
from refdiff.training import State, load_state, save_state, train, trained
from refdiff.training.frozen import frozen_trees
from refdiff.training.trainers import trainer
from systems import latent, rows

ASKED = np.unique(rows.CAPTIONS, axis=0)  # all 32


@pytest.fixture(scope="module")
def run(autoencoder, latents, tmp_path_factory):
    """The configuration and the last state of the run on latents."""
    folder = tmp_path_factory.mktemp("latent")
    data, numbers = latents
    config = latent.config(autoencoder, steps=120, batch=64, engine="cpu")
    state = train(config, folder, data=data, progress=False)
    state.numbers = numbers
    return config, state


def right(x):
    """How many of the samples, one a caption, are nearest to what their caption says."""
    truth = np.stack([latent.data.entries["x"][(c == rows.CAPTIONS).all(1)].mean(0) for c in ASKED])
    return (((x[:, None] - truth) ** 2).sum(-1).argmin(1) == np.arange(len(ASKED))).mean()


def test_a_caption_decides_what_is_drawn(run):
    config, state = run
    model = trained(config, state)
    model = model._replace(settings=replace(config.sample, threshold="none", eta=0.0, guidance=2.0))
    z = sample(model, len(ASKED), conditions={"tokens": ASKED}, progress=False)
    assert right(latent.decode(frozen_trees(config, state), z, state.numbers)) >= 0.8  # by chance 0.03
    other = sample(model, len(ASKED), conditions={"tokens": ASKED[::-1]}, progress=False)
    assert right(latent.decode(frozen_trees(config, state), other, state.numbers)) <= 0.2


def test_without_a_caption_it_is_told_that_there_is_none(run):
    """Which is also all that guidance of scale 0 asks."""
    config, state = run
    model = trained(config, state)
    given = {"tokens": np.full(3, rows.NO_WORD)}
    plain, none = (sample(model, 4, conditions=c, progress=False) for c in ({}, given))
    assert np.array_equal(plain, none)
    caption = sample(model, 4, conditions={"tokens": ASKED[0]}, progress=False)
    assert not np.array_equal(plain, caption)
    none = model._replace(settings=replace(config.sample, guidance=0.0))
    guided = sample(none, 4, conditions={"tokens": ASKED[0]}, progress=False)
    np.testing.assert_allclose(guided, plain, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="context: expected no such condition, since this network takes tokens"):
        sample(model, 4, conditions={"context": np.zeros((4, 3, 16))}, progress=False)


@pytest.mark.parametrize("engine", ["cpu", pytest.param("cuda", marks=emulated)])
def test_another_engine_draws_what_the_reference_draws(run, engine):
    """The denoiser and the encoder of captions both on that engine."""
    config, state = run
    settings = replace(config.sample, steps=3, guidance=2.0)
    model = trained(config, state)._replace(engine="reference", settings=settings)
    expected = sample(model, 2, conditions={"tokens": ASKED[:2]}, progress=False)
    with cuda.use(cuda.Context(Emulator())):
        actual = sample(model._replace(engine=engine), 2, conditions={"tokens": ASKED[:2]}, progress=False)
    assert np.linalg.norm(actual - expected) <= 2e-5 * np.linalg.norm(expected)


def test_the_text_encoder_learns_through_the_context_alone(autoencoder, latents):
    config, (data, _) = latent.config(autoencoder), latents
    state = State.first(config)
    worker = trainer(config, state)
    worker.step(data.rows(np.arange(32), None))
    m = worker.state().trees["m"]["text"]
    assert all(np.abs(leaf).max() > 0 for leaf in flatten(m).values())
    assert set(worker.state().trees["p"]) == {"denoiser", "text"}


def test_a_frozen_network_that_changed_is_refused(autoencoder, tmp_path):
    config, state = load_state(autoencoder)
    save_state(tmp_path / "checkpoint.safetensors", config, state)
    later = latent.config(tmp_path)
    begun = State.first(later)
    trainer(later, begun)  # remembers what its frozen networks were
    assert set(begun.digests) == {"encoder", "decoder"}
    state.trees["ema"] = tree_map(lambda a: a + 1, state.trees["ema"])
    save_state(tmp_path / "checkpoint.safetensors", config, state)
    with pytest.raises(
        ValueError, match=r"networks.encoder.run: expected the weights that this run began with, digest"
    ):
        trainer(later, begun)


def test_latents_have_unit_variance(latents):
    data, numbers = latents
    assert data.entries["x"].std() == pytest.approx(1, abs=1e-5)
    assert numbers["sd"] > 0
    assert models.inputs(latent.AUTOENCODER["decoder"])["z"].shape == data.inputs["x"].shape
