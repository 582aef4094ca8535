"""Runs of a version that had one network: they load, predict what they did, sample, are measured, and go on."""

import json
import shutil
from pathlib import Path

import networks
import numpy as np
import pytest
from safetensors.numpy import load_file
from states import bits

from refdiff import FormatError, engines, models
from refdiff.cli import main
from refdiff.config import Config
from refdiff.models import flatten
from refdiff.sampling import sample
from refdiff.storage import load_checkpoint, save_checkpoint
from refdiff.training import load_state, train, trained

OLD = Path(__file__).parent / "old"


@pytest.fixture(params=["unet", "mlp"])
def old(request):
    return OLD / request.param


@pytest.fixture
def run(old, tmp_path):
    """A copy that may be written to."""
    return Path(shutil.copytree(old, tmp_path / "run"))


def printed(capsys, *words):
    assert main([str(word) for word in words]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_number_of_the_file_has_its_place(old):
    arrays = load_file(old / "checkpoint.safetensors")
    _, state = load_state(old)
    assert (state.step, state.updates) == (8, {"denoiser": 8})
    assert state.samples_seen == {"unet": 32, "mlp": 64}[old.name]
    found = {f"{tree}/{name}": leaf for tree in state.trees for name, leaf in flatten(state.trees[tree]).items()}
    expected = {}
    for name, array in arrays.items():
        tree, _, rest = name.partition("/")
        expected[f"{ {'average': 'ema'}.get(tree, tree) }/denoiser/{rest}"] = array
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], array) for name, array in expected.items())


def test_the_networks_predict_what_they_did(old):
    expected = json.loads((old / "expected.json").read_text())
    config, state = load_state(old)
    shape = config.model.shape
    x = np.linspace(-1, 1, 2 * int(np.prod(shape))).reshape(2, *shape)
    p = models.tree_map(lambda a: a.astype(float), state.networks(config)["denoiser"].p)
    x = x.astype(np.float32).astype(float)
    y = networks.predict(engines.get("reference"), config.model, p, x, np.array([1, 700]))
    np.testing.assert_allclose(y.reshape(2, -1)[:, :6], expected["prediction"], rtol=1e-12)
    assert (y**2).mean() == pytest.approx(expected["mean_square"], rel=1e-12)


def test_the_keys_of_its_configuration_are_read_as_what_they_are_called_now():
    for config in (load_state(OLD / "unet")[0], Config.resolve(file=OLD / "unet" / "config.toml")):
        assert (config.schedule.kind, config.objective.prediction) == ("cosine", "v")
        assert (config.train.max_grad_norm, config.train.ema_decay, config.sample.threshold) == (0.5, 0.9, "none")
        assert (config.model.width, config.model.attention, config.networks["denoiser"].rule.rule) == (4, (4,), "adamw")
        assert Config.from_dict(config.to_dict()) == config
    mixture = load_state(OLD / "mlp")[0]
    assert (mixture.model.width, mixture.data.source, mixture.sample.threshold) == (8, "mixture", "none")


@pytest.mark.parametrize("engine", ["reference", "cpu"])
def test_it_samples(old, engine):
    config, state = load_state(old)
    config = config.changed([f"engine={engine}"])
    x = sample(trained(config, state), 4, progress=False)
    assert x.shape == (4, *config.model.shape)
    assert np.isfinite(x).all()
    assert np.array_equal(x, sample(trained(config, state), 4, progress=False))
    first = {"ema": {"denoiser": models.initialise(models.layout(config.model), 0)}}
    state.trees |= first
    assert not np.allclose(x, sample(trained(config, state), 4, progress=False), atol=1e-2)


def test_it_goes_on_and_is_then_of_this_version(old, run):
    config = load_state(old)[0].changed(["train.steps=12"])
    state = train(config, run, resume=True, progress=False)
    saved, loaded = load_state(run)
    assert (state.step, state.updates) == (12, {"denoiser": 12})
    assert bits(loaded) == bits(state)
    assert saved.train.shards == 2
    assert {"ema/denoiser", "p/denoiser"} < {
        "/".join(name.split("/")[:2]) for name in load_file(run / "checkpoint.safetensors")
    }
    assert (run / "config.toml").read_text() == saved.to_toml()
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [4, 8, 12]


def test_the_command_shows_measures_and_resumes_it(old, run, capsys):
    shown = printed(capsys, "info", run, "--json")
    assert (shown["step"], shown["samples_seen"]) == (8, {"unet": 32, "mlp": 64}[old.name])
    assert shown["networks"]["denoiser"]["width"] == {"unet": 4, "mlp": 8}[old.name]
    assert shown["parameters"] == sum(leaf.size for leaf in flatten(load_state(run)[1].trees["p"]).values())
    measured = printed(capsys, "eval", run, "--n", 70, "--quiet", "--json")
    assert measured["step"] == 8
    assert measured["samples"] == 70
    changes = ["--set", "train.steps=10", "--set", "train.log_every=1"]
    assert printed(capsys, "train", "--out", run, "--resume", *changes, "--quiet", "--json")["steps"] == 10
    assert printed(capsys, "info", run, "--json")["train"]["log_every"] == 1


def test_another_configuration_than_its_own_is_refused(run, capsys):
    assert main(["train", "--out", str(run), "--resume", "--set", "train.max_grad_norm=3", "--quiet"]) == 2
    assert "train.max_grad_norm = " in capsys.readouterr().err


def test_a_file_that_lacks_an_array_is_refused(run):
    arrays, metadata = load_checkpoint(run / "checkpoint.safetensors")
    name = next(name for name in arrays if name.startswith("average/"))
    del arrays[name]
    save_checkpoint(run / "checkpoint.safetensors", arrays, metadata)
    place = name.replace("average/", "ema/denoiser/")
    with pytest.raises(FormatError, match=f"{place}: expected float32 .* got nothing"):
        load_state(run)
