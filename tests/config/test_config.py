"""Configurations: every key is read, written back, checked and explained."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.config import PRESETS, Config
from refdiff.models import MLPConfig, UNetConfig
from refdiff.systems import system_of


@pytest.mark.parametrize("name", PRESETS)
def test_a_configuration_survives_its_own_toml(name, tmp_path):
    config = PRESETS[name].changed(["schedule.kind=cosine", "schedule.options.s=0.01", "seed=5"])
    (tmp_path / "c.toml").write_text(config.to_toml())
    like = "digits" if "denoiser" in config.networks else "adm-classifier64"  # whose networks a file changes, and keeps
    like = name if system_of(config.objective) else like
    assert Config.resolve(like, tmp_path / "c.toml") == config
    assert Config.from_dict(config.to_dict()) == config
    tomllib.loads(config.to_toml())


@given(st.integers(1, 10**6), st.floats(1e-8, 10), st.sampled_from(["eps", "x0", "v", "mu"]), st.integers(0, 2**64 - 1))
def test_changes_reach_their_keys(steps, rate, prediction, seed):
    config = Config().changed(
        [f"train.steps={steps}", f"train.learning_rate={rate!r}", f"objective.prediction={prediction}", f"seed={seed}"]
    )
    assert (config.train.steps, config.train.learning_rate) == (steps, rate)
    assert (config.objective.prediction, config.seed) == (prediction, seed)
    assert config.data == Config().data


def test_preset_then_file_then_single_keys(tmp_path):
    (tmp_path / "c.toml").write_text("seed = 3\n[train]\nsteps = 7\nbatch = 5\n[model]\nmultipliers = [1, 2, 2]\n")
    config = Config.resolve("digits", tmp_path / "c.toml", ["train.batch=6"])
    assert (config.seed, config.train.steps, config.train.batch) == (3, 7, 6)
    assert isinstance(config.model, UNetConfig)
    assert config.model.multipliers == (1, 2, 2)
    assert config.model.width == 32


def test_another_kind_of_model_or_schedule_starts_from_its_own_defaults():
    assert Config().changed(["model.kind=mlp"]).model == MLPConfig()
    config = Config().changed(["schedule.options.beta_end=0.01"])
    assert config.changed(["schedule.kind=cosine"]).schedule.options == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.stepz=5", r"key: expected one of .* got 'train.stepz'; did you mean train.steps\?"),
        ("trian.steps=5", r"key: expected one of .* got 'trian'; did you mean train\?"),
        ("train=5", r"train: expected a table such as \[train\], got 5"),
        ("train.steps", r"changes: expected key=value, got 'train.steps'; for example train.steps=500"),
        ("train.steps=many", r"train.steps: expected an int, got 'many'"),
        ("train.steps=1.5", r"train.steps: expected an int, got 1.5"),
        ("train.steps=true", r"train.steps: expected an int, got True"),
        ("train.steps=0", r"train.steps: expected a finite number above 0, got 0"),
        ("train.batch=-1", r"train.batch: expected a finite number above 0, got -1"),
        ("train.learning_rate=0", r"train.learning_rate: expected a finite number above 0, got 0"),
        ("train.learning_rate=nan", r"train.learning_rate: expected a finite number above 0, got nan"),
        ("train.learning_rate=inf", r"train.learning_rate: expected a finite number above 0, got inf"),
        ("train.warmup=-1", r"train.warmup: expected a number of at least 0, got -1"),
        ("train.ema_decay=1", r"train.ema_decay: expected a decay in \[0, 1\), got 1"),
        ("objective.prediction=score", r"objective.prediction: expected one of eps, x0, v, mu, got 'score'"),
        ("train.decay=linear", r"train.decay: expected one of cosine, constant"),
        ("schedule.T=0", r"T: expected a number of steps, an integer of at least 1, got 0"),
        ("schedule.kind=cosin", r"schedule.kind: expected one of .* did you mean cosine\?"),
        ("schedule.options.beta_stop=1", r"schedule.options: expected one of beta_start, beta_end, got 'beta_stop'"),
        ("schedule.options.beta_end=2", r"beta: expected values in \(0, 1\)"),
        ("schedule.T=40", r"sample.steps: expected at most schedule.T = 40, got 50; add sample.steps=40$"),
        ("sample.eta=2", r"sample.eta: expected a number from 0 to 1, got 2"),
        ("sample.method=eular", r"sample.method: expected one of .* did you mean euler\?"),
        ("schedule.kind=rescale_linear", r"schedule.kind: expected one of .* did you mean rescaled_linear\?"),
        ("sample.spacing=even", r"sample.spacing: expected one of uniform, leading, trailing"),
        ("engine=cudda", r"engine: expected one of auto, reference, .*got 'cudda'; did you mean cuda"),
        ("seed=-1", r"seed: expected an integer from 0 to 2\^64 - 1, got -1"),
        ("model.kind=vit", r"networks.denoiser.kind: expected one of unet, mlp.*, got 'vit'"),
        (
            "model.size=9",
            r"denoiser.size: expected a multiple of 2, .* got 9; pad .* to 10x10, or .*: networks.*multipliers=\[1\]$",
        ),
        (
            "model.attention=[3]",
            r"denoiser.attention: expected sizes among \[8, 4\], got \[3\]; give networks.denoiser.attention=\[4\]$",
        ),
        ("model.multipliers=3", r"networks.denoiser.multipliers: expected a list of numbers, got 3"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_was_expected(change, message):
    with pytest.raises(ValueError, match=message):
        Config().changed([change])


@pytest.mark.parametrize(
    "name", ["2024", "2024-01-01", "12:30:00", "true", "1e3", "1_000", "0x10", "inf", "nan", "a b", "[x]"]
)
def test_a_name_is_a_name_whatever_it_looks_like(name, tmp_path):
    for text in (name, f'"{name}"', f"'{name}'"):
        assert Config().changed([f"data.source={text}"]).data.source == name
    (tmp_path / "bare.toml").write_text("[data]\nsource = 2024\n")
    with pytest.raises(ValueError, match=r"data.source: expected a str, got 2024; put a name .* in quotes"):
        Config.resolve("digits", tmp_path / "bare.toml")


def test_an_unknown_preset_and_a_broken_file(tmp_path):
    with pytest.raises(ValueError, match=r"preset: expected one of digits.* did you mean digits\?"):
        Config.resolve("digit")
    with pytest.raises(ValueError, match=r"configuration .*none.toml: expected a readable TOML file"):
        Config.resolve("digits", tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("[train\n")
    with pytest.raises(ValueError, match=r"configuration .*broken.toml: expected a readable TOML file"):
        Config.resolve("digits", tmp_path / "broken.toml")


@pytest.mark.parametrize("change", ["kind=mlp", "classes=0", "null_label=false"])
def test_a_presets_guidance_goes_with_the_null_label(change):
    assert PRESETS["digits-classes"].sample.guidance > 1
    assert Config.resolve("digits-classes", changes=[f"networks.denoiser.{change}"]).sample.guidance == 1
    with pytest.raises(ValueError, match=r"^sample.guidance: expected 1"):
        Config.resolve("digits-classes", changes=[f"networks.denoiser.{change}", "sample.guidance=2"])


def test_a_run_without_a_schedule_is_not_bound_by_its_length():
    """Variational diffusion has its own: sample.steps may be more than schedule.T."""
    assert Config.resolve("digits-vdm", changes=["sample.steps=2000"]).sample.steps == 2000
    assert Config.resolve("digits-vae", changes=["schedule.T=10"]).schedule.T == 10
    with pytest.raises(
        ValueError, match=r"\Asample.steps: expected at most schedule.T = 1000, got 2000; add sample.steps"
    ):
        Config.resolve("digits", changes=["sample.steps=2000"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "objective.latents=[1, 2, 3]",
            "objective.latents: expected 32, 16, 8, as it follows from the networks, got 1, 2, 3",
        ),
        (
            "objective.latents=[]",
            "objective.latents: expected 32, 16, 8, as it follows from the networks, got none",
        ),
        (
            'objective.trains=["encoder1"]',
            "objective.trains: expected encoder1, encoder2, encoder3, decoder1, decoder2, dec",
        ),
    ],
)
def test_what_follows_from_the_networks_is_not_replaced_unsaid(change, message):
    with pytest.raises(ValueError, match=rf"\A{message}[^\n]*; leave it out\Z"):
        Config.resolve("digits-hvae", changes=[change])
    config = Config.resolve("digits-hvae", changes=["objective.latents=[32, 16, 8]", "objective.levels=3"])
    fewer = config.changed(["objective.levels=2"])
    assert fewer.objective.latents == (32, 16)
    assert "encoder3" not in fewer.objective.trains
