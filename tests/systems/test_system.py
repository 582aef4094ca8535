"""What holds for every system: a model that diverged gives neither numbers nor samples, and data that an objective cannot
have are not measured; settings that nothing reads are refused."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
from helpers import fails

from refdiff.cli import main
from refdiff.config import PRESETS, Config
from refdiff.data import Dataset, load
from refdiff.errors import NotFiniteError
from refdiff.systems import draw, measure, system_of
from refdiff.training import State, system_model, train

SYSTEMS = [name for name, config in PRESETS.items() if system_of(config.objective)]
ENTRY = {"digits-hvae": "decoder1", "digits-autoencoder": "decoder", "digits-vae": "decoder"}  # a network of each


def few(config):
    """Three samples to measure with."""
    data = load(config.data.source)
    return Dataset("few", data.x[:20], None, data.held_out[:3], None)


def lost(name):
    """A model of a preset of which one network's parameters are no numbers."""
    config = replace(PRESETS[name], engine="reference")
    if name == "heartbeat":
        config = config.changed(["objective.T=10"])
    state = State.first(config)
    for kind in ("p", "ema"):
        _fill(state.trees[kind][ENTRY.get(name, "denoiser")])
    return config, system_model(config, state)


def _fill(tree):
    for key, value in tree.items():
        if isinstance(value, dict):
            _fill(value)
        else:
            tree[key] = np.full_like(value, np.nan)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_model_that_diverged_is_not_measured(name):
    config, model = lost(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            NotFiniteError, match=r"\A[\w.]+: expected [^\n]*finite [^\n]*have the weights diverged\?\Z"
        ):
            measure(model, few(config), progress=False)


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name != "digits-autoencoder"])
def test_a_model_that_diverged_gives_no_samples(name):
    _, model = lost(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NotFiniteError, match=r"\A[\w.]+: expected finite [^\n]*have the weights diverged\?\Z"):
            draw(model, 2, progress=False)


def test_data_that_an_objective_cannot_have_are_not_measured():
    config = replace(PRESETS["digits-vdm"], engine="reference")
    data = few(config)
    grey = Dataset("grey", data.x, None, 0.9 * data.held_out, None)
    with pytest.raises(
        ValueError, match=r"\Adata.source: expected values on 17 levels from -1 to 1, got \d+ of 192 that"
    ):
        measure(system_model(config, State.first(config)), grey, progress=False)


def test_conditions_may_be_lists():
    config = PRESETS["heartbeat"].changed(["objective.T=10", "engine=reference"])
    model, known = system_model(config, State.first(config)), load("heartbeat").x[:3]
    mask = np.ones_like(known)
    expected = draw(model, 3, conditions={"known": known, "mask": mask}, progress=False)
    np.testing.assert_array_equal(
        draw(model, 3, conditions={"known": known.tolist(), "mask": mask.tolist()}, progress=False), expected
    )
    np.testing.assert_array_equal(expected, known)


def trained(preset, folder, *changes):
    """The folder of a run of one step."""
    small = ["train.steps=1", "train.batch=4", "train.grid_every=0", *changes]
    out = folder / preset
    train(Config.resolve(preset, changes=[*small, "engine=reference"]), out, progress=False)
    return out


@pytest.mark.parametrize("preset", ["digits-vae", "digits-hvae", "heartbeat", "swissroll-2015"])
def test_a_setting_by_which_nothing_is_drawn_is_refused(preset, tmp_path, capsys):
    run = trained(preset, tmp_path)
    line = fails(capsys, "sample", run, "--out", tmp_path / "x.npz", "--set", "sample.steps=5")
    assert re.search(r"--set: expected a key by which \w+ is drawn \(none\), got 'sample.steps=5'; leave it out", line)
    assert not (tmp_path / "x.npz").exists()


def test_of_a_schedule_of_its_own_some_settings_are_read(tmp_path, capsys):
    run = trained("digits-vdm", tmp_path)
    line = fails(capsys, "sample", run, "--out", tmp_path / "x.npz", "--set", "sample.guidance=2")
    assert (
        "(sample.method, sample.steps, sample.eta, sample.variance, sample.threshold), got 'sample.guidance=2'" in line
    )
    arguments = ["sample", run, "--out", tmp_path / "x.npz", "--n", 2, "--quiet"]
    assert main([str(a) for a in [*arguments, "--set", "sample.steps=3", "--set", "sample.method=ddim"]]) == 0


def test_an_evaluation_reads_no_settings(tmp_path, capsys):
    run = trained("digits-vae", tmp_path)
    assert "--set: expected a run of denoising, got VAE" in fails(capsys, "eval", run, "--set", "sample.steps=5")
