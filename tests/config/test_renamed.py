"""Keys of the previous version: its files and runs are read, every key as what it is called now."""

import tomllib

import numpy as np
import pytest

from refdiff.config import PRESETS, Config
from refdiff.config.renamed import modern
from refdiff.models import flatten, initialise, layout
from refdiff.sampling import sample
from refdiff.storage import save_checkpoint
from refdiff.training import load_state, train, trained

# config.toml of a run of the previous version, with a value other than the default for each key.
OLD = """\
engine = "reference"
dtype = "float32"
seed = 3

[data]
source = "digits"

[model]
kind = "unet"
size = 8
channels = 1
width = 8
multipliers = [1, 2]
blocks = 1
attention = [8]
heads = 2
groups = 4
dropout = 0.1
downsampling = "pooled"
time = "adm"

[schedule]
law = "cosine"
T = 900

[schedule.options]
s = 0.01

[train]
steps = 4
batch = 6
learning_rate = 0.001
warmup = 2
decay = "constant"
weight_decay = 0.01
clip = 0.5
average = 0.9
prediction = "v"
log_every = 2
grid_every = 0
checkpoint_every = 3

[sample]
method = "ancestral"
steps = 3
spacing = "trailing"
eta = 0.5
variance = "beta"
clip = false
"""
RENAMED = {
    "schedule.law": "schedule.kind", "train.clip": "train.max_grad_norm", "train.average": "train.ema_decay",
    "train.prediction": "objective.prediction",
}  # fmt: skip


def flat(table, prefix=""):
    found = {}
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def test_every_key_of_an_old_file_has_its_place():
    old, now = flat(tomllib.loads(OLD)), flat(Config.from_dict(tomllib.loads(OLD)).to_dict())
    assert len(old) == 37
    for key, value in old.items():
        if key == "sample.clip":
            assert now["sample.threshold"] == "none"
            continue
        key = RENAMED.get(key, key).replace("model.", "networks.denoiser.").replace(".downsampling", ".resampling")
        assert now[key] == value, key
    assert not [key for key in now if key in RENAMED or key.startswith("model.") or key == "sample.clip"]
    assert not [key for key in now if key.endswith("downsampling")]


@pytest.mark.parametrize("clip", ["true", "false"])
def test_an_old_file_resolves_and_is_written_anew(tmp_path, clip):
    (tmp_path / "old.toml").write_text(OLD.replace("clip = false", f"clip = {clip}"))
    config = Config.resolve("mnist", tmp_path / "old.toml")
    assert config.sample.threshold == {"true": "static", "false": "none"}[clip]
    assert (config.model.width, config.train.max_grad_norm, config.train.ema_decay) == (8, 0.5, 0.9)
    (tmp_path / "new.toml").write_text(config.to_toml())
    assert Config.resolve("digits", tmp_path / "new.toml") == config
    assert "[model]" not in config.to_toml()


def test_the_preset_of_then_is_that_of_now(tmp_path):
    then = """
        seed = 0
        [model]
        kind = "mlp"
        size = 2
        [data]
        source = "mixture"
        [schedule]
        law = "linear"
        [train]
        clip = 1.0
        average = 0.995
        prediction = "eps"
        [sample]
        clip = false
    """
    (tmp_path / "then.toml").write_text(then)
    assert Config.resolve("mixture", tmp_path / "then.toml") == PRESETS["mixture"]


@pytest.mark.parametrize(
    ("old", "new"),
    [("schedule.law=cosine", "schedule.kind=cosine"), ("train.clip=0", "train.max_grad_norm=0"),
     ("train.average=0.5", "train.ema_decay=0.5"), ("train.prediction=x0", "objective.prediction=x0"),
     ("sample.clip=false", "sample.threshold=none"), ("sample.clip=true", "sample.threshold=static"),
     ("model.width=16", "networks.denoiser.width=16"), ("model.kind=mlp", "networks.denoiser.kind=mlp"),
     ("model.downsampling=pooled", "networks.denoiser.resampling=pooled"),
     ("networks.denoiser.downsampling=pooled", "networks.denoiser.resampling=pooled")],
)  # fmt: skip
def test_an_old_key_at_the_command_line_is_the_new_one(old, new):
    assert Config().changed([old]) == Config().changed([new]) != Config(seed=1)


def test_where_both_names_stand_the_new_one_counts():
    table = {
        "train": {"clip": 3.0, "max_grad_norm": 2.0},
        "model": {"width": 16},
        "networks": {"denoiser": {"width": 8, "downsampling": "strided", "resampling": "pooled"}},
    }
    config = Config.from_dict(table | {"sample": {"clip": True, "threshold": "none"}})
    assert (config.train.max_grad_norm, config.model.width, config.sample.threshold) == (2.0, 8, "none")
    assert config.model.resampling == "pooled"
    assert table["train"] == {"clip": 3.0, "max_grad_norm": 2.0}  # unchanged
    assert "downsampling" in table["networks"]["denoiser"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.clipp=1", "key: expected one of .* got 'train.clipp'"),
        ("train.max_grad_nrom=1", r"got 'train.max_grad_nrom'; did you mean train.max_grad_norm\?"),
        ("schedule.lawn=linear", "key: expected one of schedule.kind, schedule.T, .* got 'schedule.lawn'"),
        ("sample.clip=maybe", "key: expected one of .* got 'sample.clip'"),
        ("model.widht=8", r"got 'networks.denoiser.widht'; did you mean networks.denoiser.width\?"),
        ("model=3", r"networks.denoiser: expected a table such as \[networks.denoiser\], got 3"),
        ("train.average=2", r"train.ema_decay: expected a decay in \[0, 1\), got 2"),
        (
            "networks.denoizer.width=8",
            "^networks.denoizer.kind: expected what the network denoizer is .*or take networks.denoiser",
        ),
    ],
)
def test_an_unknown_key_is_refused_as_before(change, message):
    with pytest.raises(ValueError, match=message):
        Config().changed([change])


def test_a_table_that_says_nothing_old_is_as_it_was():
    table = Config().to_dict()
    assert modern(table) == table


def test_an_old_checkpoint_is_sampled_and_trained_on(tmp_path):
    """Its arrays stand under p, average, m and v without a network's name, its count of samples under "seen"."""
    config = Config.from_dict(tomllib.loads(OLD))
    p = flatten(initialise(layout(config.model), 3))
    rng = np.random.default_rng(0)
    arrays = {}
    for tree in ("p", "average", "m", "v"):
        for path, leaf in p.items():
            arrays[f"{tree}/{path}"] = (
                leaf if tree == "p" else np.abs(rng.standard_normal(leaf.shape)).astype("f") * 1e-3
            )
    path = tmp_path / "run" / "checkpoint.safetensors"
    path.parent.mkdir()
    save_checkpoint(path, arrays, {"config": tomllib.loads(OLD), "step": 2, "seen": 12})
    loaded, state = load_state(path)
    assert loaded == config
    assert (state.step, state.samples_seen, state.updates) == (2, 12, {"denoiser": 2})
    for name, tree in {"p": "p", "ema": "average", "m": "m", "v": "v"}.items():
        for leaf_path, leaf in flatten(state.trees[name]["denoiser"]).items():
            np.testing.assert_array_equal(leaf, arrays[f"{tree}/{leaf_path}"])
    assert sample(trained(loaded, state), 2, progress=False).shape == (2, 8, 8, 1)
    (tmp_path / "old.toml").write_text(OLD)
    named = Config.resolve(
        "digits", tmp_path / "old.toml"
    )  # it knows how many levels the digits have, which OLD does not say
    last = train(named, path.parent, resume=True, progress=False)
    assert (last.step, last.samples_seen, last.updates) == (4, 24, {"denoiser": 4})
