"""The configurations that come with the package: what their papers say of them."""

import subprocess
import sys

import pytest

from refdiff.config import PRESETS, Config
from refdiff.models import MODELS

IDDPM = [name for name in PRESETS if name.startswith("iddpm")]
ADM = [name for name in PRESETS if name.startswith("adm") and "classifier" not in name]
CLASSIFIERS = [name for name in PRESETS if name.startswith("adm-classifier")]


def test_every_model_is_in_a_preset():
    used = [network.model for config in PRESETS.values() for network in config.networks.values()]
    assert all(model in used for model in MODELS.values())


@pytest.mark.parametrize("name", PRESETS)
def test_each_is_read_back_from_its_tables(name):
    assert Config.from_dict(PRESETS[name].to_dict()) == PRESETS[name]
    assert Config.resolve(name) == PRESETS[name]


@pytest.mark.parametrize("name", [*IDDPM, *ADM])
def test_the_published_models_learn_a_variance(name):
    config = PRESETS[name]
    assert (config.objective.variance, config.objective.vlb_weight, config.objective.prediction) == (
        "learned",
        1e-3,
        "eps",
    )
    assert (config.model.outputs, config.sample.variance) == (2, "learned")
    assert (config.sample.method, config.sample.steps, config.sample.threshold) == ("ancestral", 250, "static")
    train = config.train
    assert (train.ema_decay, train.decay, train.warmup, train.max_grad_norm) == (0.9999, "constant", 0, 0)
    assert (config.model.epsilon, config.model.conditioning, config.model.time) == (1e-5, "scale_shift", "adm")
    assert config.objective.null == ()


@pytest.mark.parametrize(("name", "dropout"), [("iddpm-cifar10", 0.3), ("iddpm-imagenet64", 0.0)])
def test_improved_ddpm(name, dropout):
    config = PRESETS[name]
    assert (config.schedule.kind, config.schedule.T) == ("cosine", 4000)
    assert (config.train.batch, config.train.learning_rate, config.model.dropout) == (128, 1e-4, dropout)
    assert (config.model.heads, config.model.qkv, config.model.resampling) == (4, "interleaved", "centred")


@pytest.mark.parametrize("name", ADM)
def test_adm(name):
    config, small = PRESETS[name], name == "adm64"
    assert (config.schedule.kind, config.schedule.T) == ("cosine" if small else "linear", 1000)
    assert (config.train.batch, config.train.learning_rate) == ((2048, 3e-4) if small else (256, 1e-4))
    assert config.model.dropout == (0.1 if small else 0.0)
    assert config.model.qkv == ("split" if small else "interleaved")
    assert config.data.source == f"imagenet{config.model.size}"
    assert config.objective.downscale == (4 if config.model.low_res else 0)
    assert config.model.resampling == "residual"


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_has_the_schedule_and_the_data_of_what_it_guides(name):
    config, guided = PRESETS[name], PRESETS[name.replace("-classifier", "")]
    assert config.schedule == guided.schedule
    assert config.data == guided.data
    classifier = config.networks["classifier"].model
    assert (classifier.size, classifier.classes) == (guided.model.size, guided.model.classes)
    assert (classifier.multipliers, classifier.stem) == (guided.model.multipliers, guided.model.stem)
    assert (classifier.pooling, classifier.width, classifier.head_channels) == ("attention", 128, 64)
    assert config.objective.trains == ("classifier",)
    assert config.train.weight_decay > 0


def test_no_layout_is_worked_out_when_they_are_imported():
    """So that a command begins at once, whatever presets there are."""
    script = (
        "import refdiff.models.registry as r\n"
        "def none(config): raise SystemExit('a layout')\n"
        "r.layout = none\n"
        "import refdiff.models; refdiff.models.layout = none\n"
        "import refdiff.config\nprint(len(refdiff.config.PRESETS))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(found.stdout) == len(PRESETS)
