"""The model takes its shape from the data, at every size that a U-Net can take; what does not fit is said at once."""

import gzip
import re
import struct
import warnings
from types import SimpleNamespace

import networks
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from refdiff import DoubtWarning, engines, models
from refdiff.config import PRESETS, Config, SampleConfig, ScheduleConfig
from refdiff.config.fitting import check_fit, doubt_prediction, doubt_schedule, downscale_of
from refdiff.data import Dataset, load, shape_of
from refdiff.models import Input, UNetConfig
from refdiff.process import SCHEDULES
from refdiff.sampling import sample
from refdiff.sampling.settings import METHODS
from refdiff.training import train, trained
from refdiff.training.trainers.checking import check_batch


def folder_of(path, size, channels, n=3):
    path.mkdir()
    rng = np.random.default_rng(size)
    for i in range(n):
        pixels = rng.integers(0, 256, (size, size, 3)[: 2 + (channels == 3)], dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{i}.png")
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "attention"), [(8, (4,)), (12, (6,)), (16, (8,)), (28, (14,)), (32, (16,)), (64, ())])
def test_a_folder_of_images_needs_no_key_but_its_path(tmp_path, size, attention, channels):
    path = folder_of(tmp_path / "images", size, channels)
    config = Config.resolve("digits", changes=[f"data.source={path}"])
    assert config.model.shape == load(path).shape == (size, size, channels)
    assert config.model.attention == attention
    assert config == Config.resolve("digits").changed([f"data.source={path}"])
    (path.parent / "c.toml").write_text(config.to_toml())
    assert Config.resolve("mnist", path.parent / "c.toml") == config


@pytest.mark.parametrize("size", [12, 16, 28, 32])
def test_the_first_command_of_the_guide_trains_at_any_size(tmp_path, size):
    path = folder_of(tmp_path / "images", size, 3)
    changes = ["train.steps=1", "train.batch=2", "model.width=8", "train.grid_every=0", "sample.steps=2"]
    config = Config.resolve("digits", changes=[f"data.source={path}", *changes])
    state = train(config, tmp_path / "run", progress=False)
    assert sample(trained(config, state), 2, progress=False).shape == (2, size, size, 3)
    assert Config.resolve("digits", tmp_path / "run" / "config.toml") == config.changed(
        [f"train.shards={config.shards}"]
    )


def test_the_presets_are_as_they_were():
    expected = {
        "digits": (8, 1, (4,)),
        "mnist": (28, 1, (7,)),
        "cifar10": (32, 3, (16,)),
        "celebahq256": (256, 3, (16,)),
    }
    for name, (size, channels, attention) in expected.items():
        for config in (PRESETS[name], Config.resolve(name)):
            assert (config.model.size, config.model.channels, config.model.attention) == (size, channels, attention)
    assert UNetConfig().attention == (16,)


@given(st.integers(1, 80), st.integers(1, 4), st.sampled_from([1, 3]))
def test_every_size_that_can_be_halved_works_without_attention_being_named(size, levels, channels):
    multipliers = (1, 2, 1, 1)[:levels]
    if size % 2 ** (levels - 1):
        with pytest.raises(
            ValueError, match=rf"^size: expected a multiple of .* got {size}; pad .* or give .*multipliers="
        ):
            UNetConfig(size=size, channels=channels, width=4, multipliers=multipliers, blocks=1)
        return
    config = UNetConfig(size=size, channels=channels, width=4, multipliers=multipliers, blocks=1, groups=2)
    assert all(a <= 16 for a in config.attention)
    assert models.layout(config)
    if size <= 16:
        p = models.initialise(models.layout(config), 0)
        x = np.zeros((1, *config.shape), np.float32)
        y, _ = networks.forward(engines.get("reference"), config, p, x, np.array([1]))
        assert y.shape == x.shape


def test_the_remedies_of_the_errors_work(tmp_path):
    path = folder_of(tmp_path / "images", 9, 1)
    key = f"data.source={path}"
    message = (
        r"^networks.denoiser.size: .* multiple of 2, .* got 9; pad .* to 10x10, or .*: networks.*multipliers=\[1\]$"
    )
    with pytest.raises(ValueError, match=message):
        Config.resolve("digits", changes=[key])
    assert Config.resolve("digits", changes=[key, "model.multipliers=[1]"]).model.shape == (9, 9, 1)
    twelve = f"data.source={folder_of(tmp_path / 'twelve', 12, 1)}"
    with pytest.raises(ValueError, match=r"size: .* give at most 3: networks.denoiser.multipliers=\[1,2,2\]$"):
        Config.resolve("cifar10", changes=[twelve])
    assert Config.resolve("cifar10", changes=[twelve, "model.multipliers=[1,2,2]"]).model.attention == (6,)
    with pytest.raises(
        ValueError, match=r"attention: .* \[12, 6\], got \[4\]; give networks.denoiser.attention=\[6\]$"
    ):
        Config.resolve("digits", changes=[twelve, "model.attention=[4]"])
    assert Config.resolve("digits", changes=[twelve, "model.attention=[12]"]).model.attention == (12,)


def test_what_is_given_is_not_taken_from_the_data(tmp_path):
    path = folder_of(tmp_path / "images", 16, 3)
    config = Config.resolve("digits", changes=[f"data.source={path}", "model.size=8"])
    assert config.model.shape == (8, 8, 3)
    with pytest.raises(ValueError, match=r"of \(8, 8, 3\), .* got \(16, 16, 3\); give networks.denoiser.size=16 "):
        train(config, progress=False)
    (tmp_path / "c.toml").write_text(f'[data]\nsource = "{path}"\n[model]\nchannels = 1\n')
    assert Config.resolve("digits", tmp_path / "c.toml").model.shape == (16, 16, 1)
    assert Config.resolve("digits", changes=["model.size=32"]).model.attention == (16,)


def test_images_of_bytes_have_256_levels_and_the_bundled_digits_17(tmp_path):
    path = folder_of(tmp_path / "images", 8, 1)
    for preset, changes, bins in (
        ("digits", [], 17),
        ("digits", [f"data.source={path}"], 256),
        ("mnist", ["data.source=digits"], 17),
        ("digits", [f"data.source={path}", "objective.bins=5"], 5),
    ):
        assert Config.resolve(preset, changes=changes).objective.bins == bins
    assert Config().changed([f"data.source={path}"]).objective.bins == 256


def test_a_kind_of_data_that_the_model_cannot_take(tmp_path):
    Image.new("L", (8, 10)).save(tmp_path / "a.png")
    assert Config.resolve("digits", changes=[f"data.source={tmp_path}"]).model.shape == (10, 8, 1)
    with pytest.raises(
        ValueError, match=r"got \(10, 8, 1\); give networks.denoiser.size=\[10,8\] networks.den.*channels=1$"
    ):
        train(Config(), progress=False, data=load(tmp_path))
    with pytest.raises(ValueError, match="choose a preset for images, such as digits"):
        train(Config.resolve("mixture", changes=["data.source=digits"]), progress=False)
    with pytest.raises(ValueError, match="choose the mixture preset, whose model takes points"):
        train(Config.resolve("digits", changes=["data.source=moons"]), progress=False)
    nowhere = Config.resolve("digits", changes=["data.source=no/such/folder"])
    with pytest.raises(ValueError, match="got 'no/such/folder', which is neither"):
        train(nowhere, progress=False)


def test_the_shape_is_that_of_what_is_loaded(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (12, 6, 6, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "one.npz", pictures=x)
    np.savez_compressed(tmp_path / "more.npz", labels=np.arange(12), x=x, held_out=x[:2], held_out_labels=np.arange(2))
    np.savez(tmp_path / "points.npz", x=rng.standard_normal((12, 2)))
    idx = struct.pack(">4B3I", 0, 0, 8, 3, 12, 6, 6) + x[..., 0].tobytes()
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx))
    (tmp_path / "some-idx3-ubyte").write_bytes(idx)
    (tmp_path / "cifar").mkdir()
    (tmp_path / "cifar" / "data_batch_1.bin").write_bytes(bytes(3073 * 12))
    (tmp_path / "alone.bin").write_bytes(bytes(3073 * 12))
    folder_of(tmp_path / "folder", 6, 3)
    for path in sorted(tmp_path.iterdir()):
        assert shape_of(path) == load(path).shape, path
    for name in ("digits", "moons", "mixture"):
        assert shape_of(name) == load(name).shape
    assert shape_of(tmp_path / "nothing") is None
    assert shape_of("") is None
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "more.npz").write_bytes(b"PK")
    for name in ("x.npy", "more.npz"):
        with pytest.raises(ValueError, match=name):
            shape_of(tmp_path / name)


# What can be done and is hardly meant


@pytest.mark.parametrize(("T", "left"), [(10, "0.951"), (100, "0.603")])
def test_a_schedule_that_leaves_the_data_in_x_T_is_doubted_and_the_remedy_works(small, T, left):
    config = small.changed([f"schedule.T={T}", "train.steps=1"])
    with pytest.warns(
        DoubtWarning, match=rf"got sqrt\(alpha_bar_T\) = {left} of the data left in it at T = {T}"
    ) as seen:
        train(config, progress=False)
    (one,) = seen
    remedy = str(one.message).split("; ")[1]
    if T == 100:
        assert remedy.startswith("scale beta by 1000 / T: ")
    config = config.changed([word for word in remedy.split() if "=" in word and word[0] != "="])
    train(config, progress=False)  # with no warning, or this test fails


@pytest.mark.parametrize("T", [1, 2, 10, 25, 100, 500, 1000, 4000])
@pytest.mark.parametrize("law", SCHEDULES)
def test_each_doubt_has_a_remedy_that_removes_it(law, T):
    try:
        config = ScheduleConfig(law, T)
    except ValueError:
        pytest.skip("there is no such schedule")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        doubt_schedule(config)
    assert bool(seen) == (config.build().alpha_bar[-1] ** 0.5 > 0.1)
    if T >= 1000 or law in ("cosine", "sigmoid"):
        assert not seen
    for one in seen:
        changes = [word for word in str(one.message).split("; ")[1].split() if word.startswith("schedule.")]
        doubt_schedule(Config(schedule=config, sample=SampleConfig(steps=1)).changed(changes).schedule)


def test_images_scaled_to_0_1_are_doubted(tmp_path):
    v = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1))
    np.savez(tmp_path / "f.npz", x=(v / 255).astype(np.float32))
    with pytest.warns(DoubtWarning, match=r"f.npz: x: .* in \[-1, 1\], got \[0.0, 1.0\], .*scale them by 2 x - 1"):
        load(tmp_path / "f.npz")
    low = (v / 127.5 - 1).astype(np.float32)
    with pytest.warns(DoubtWarning, match="mine: held_out: expected images"):
        Dataset("mine", low, None, (v / 255).astype(np.float32), None)
    # No doubt: bytes whose least is light, all black or all white, points, and what has one value below 0.
    light = (np.maximum(v, 128) / 127.5 - 1).astype(np.float32)
    half = np.full((5, 4, 4, 1), 0.5, np.float32)
    half[0, 0, 0] = -0.1
    for x in (light, 0 * light - 1, 0 * light + 1, 0 * light, half, np.full((5, 2), 0.5, np.float32)):
        Dataset("fine", x, None, x[:0], None)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_value_just_past_1_is_shown_with_the_digits_that_tell(tmp_path, dtype):
    x = np.zeros((20, 4, 4, 1), dtype)
    x[0] = -1
    x[3, 2, 1] = past = np.nextafter(dtype(1), dtype(2))
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(
        ValueError, match=rf"x.npy: expected values in \[-1, 1\], got \[-1.0, {past!s}\]; clip it, which"
    ):
        load(tmp_path / "x.npy")
    assert str(past) != "1.0"
    x[3, 2, 1] = 200
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(ValueError, match=r"got \[-1.0, 200.0\]; scale it, or save bytes as uint8"):
        load(tmp_path / "x.npy")


# Schedules that leave nothing


ZERO = ["schedule.kind=cosine", "schedule.options.beta_max=1.0"]


def test_eps_without_signal_at_T_is_refused_when_the_configuration_is_made():
    message = r"^objective.prediction: expected v or x0 .* alpha_bar_T = 0, got eps, .*; take objective.prediction=v$"
    for changes in (ZERO, ["schedule.kind=constant", "schedule.T=1", "schedule.options.beta=1.0", "sample.steps=1"]):
        with pytest.raises(ValueError, match=message):
            Config.resolve("digits", changes=changes)
        for prediction in ("v", "x0"):
            Config.resolve("digits", changes=[*changes, f"objective.prediction={prediction}"])
    Config.resolve("digits", changes=["schedule.kind=cosine"])


@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_what_is_allowed_without_signal_gives_finite_samples_and_the_rest_names_what_does(small, prediction):
    config = small.changed([*ZERO, f"objective.prediction={prediction}", "sample.threshold=none"])
    for method in METHODS:
        change = f"sample.method={method}"
        if method in ("euler", "euler_ancestral", "heun"):
            others = "ddim, ancestral, dpmpp_2m, dpmpp_2s"
            message = rf"^sample.method: expected one of {others} .* got {method}; take sample.method=ddim$"
            with pytest.raises(ValueError, match=message):
                config.changed([change])
            continue
        for spacing in ("uniform", "leading", "trailing", "quadratic"):
            x = sample(networks.trained(config.changed([change, f"sample.spacing={spacing}"])), 2, progress=False)
            assert np.isfinite(x).all()
    with pytest.raises(
        ValueError,
        match=r"^sample.spacing: expected one of uniform, leading, trailing, quadratic .* karras; take sample.spacing=trail",
    ):
        config.changed(["sample.spacing=karras"])


@pytest.mark.parametrize(
    ("changes", "doubted"),
    [
        ([], False),
        (["schedule.kind=cosine"], False),
        (["schedule.options.beta_end=0.2"], True),
        (["schedule.options.beta_end=0.5"], True),
        (["schedule.T=4000"], True),
        (["schedule.T=4000", "objective.prediction=v"], False),
    ],
)
def test_eps_where_x_t_holds_less_of_the_data_than_its_digits_is_doubted(changes, doubted):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        doubt_prediction(Config().changed(changes))
    assert len(seen) == doubted
    for one in seen:
        assert re.search(
            r"float32 resolves \(1.2e-07\).*got sqrt\(alpha_bar_T\) = .*; take objective.prediction=v$",
            str(one.message),
        )


def test_samples_that_are_lost_there_blame_the_schedule():
    changes = [
        "schedule.options.beta_end=0.5",
        "sample.threshold=none",
        "sample.steps=3",
        "model.width=8",
        "model.groups=4",
    ]
    config = Config().changed(changes)
    p = models.initialise(models.layout(config.model), 0)
    p["conv_out"]["weight"] = p["conv_out"]["weight"] + 1
    with pytest.raises(
        ValueError, match=r"that are not; expected a schedule .* got sqrt\(alpha_bar_T\).* objective.prediction=v"
    ):
        sample(networks.trained(config, p), 2, progress=False)


# ---- super-resolution


UPSAMPLER = ["networks.denoiser.low_res=4", "networks.denoiser.attention=[4]"]


def test_low_res_is_made_from_x_where_sizes_say_how():
    config = Config.resolve("digits", changes=UPSAMPLER)
    assert config.objective.downscale == 2
    assert Config.from_dict(config.to_dict()) == config
    assert config.changed(["networks.denoiser.low_res=2"]).objective.downscale == 4
    assert Config.resolve("digits", changes=[*UPSAMPLER, "objective.downscale=0"]).objective.downscale == 0
    assert (
        Config.resolve("digits", changes=["networks.denoiser.low_res=3"]).objective.downscale == 0
    )  # of the data, then
    check_batch(config, load("digits").inputs, "digits")


@pytest.mark.parametrize(
    ("size", "low_res", "factor"),
    [(64, 16, 4), ((64, 32), (16, 8), 4), (64, (32, 32), 2), ((64, 32), (16, 16), 0), (48, 16, 0), (64, 64, 0), (64, 0, 0),
     (60, 8, 0), (None, 8, 0), ("a", 8, 0), (64, None, 0)],
)  # fmt: skip
def test_how_many_times_smaller_low_res_is(size, low_res, factor):
    assert downscale_of(size, low_res) == factor


@pytest.mark.parametrize("changes", [["networks.denoiser.low_res=4.0"], ["networks.denoiser.size=8.0", *UPSAMPLER]])
def test_a_size_that_is_no_integer_is_named(changes):
    with pytest.raises(ValueError, match=r"^networks.denoiser.(low_res|size): expected an int, got [48].0"):
        Config.resolve("digits", changes=changes)


def test_a_factor_that_does_not_fit_the_sizes_is_refused():
    with pytest.raises(
        ValueError, match=r"objective.downscale: expected .*size over low_res.* got 4 with size 8 and low_res 4"
    ):
        Config.resolve("digits", changes=[*UPSAMPLER, "objective.downscale=4"])
    with pytest.raises(ValueError, match=r"objective.downscale: .* got 2 with size 8 and low_res 0; leave it out"):
        Config.resolve("digits", changes=["objective.downscale=2"])


def test_data_without_low_res_or_label_are_one_clear_line():
    config = Config.resolve("digits", changes=[*UPSAMPLER, "objective.downscale=0"])
    with pytest.raises(
        ValueError,
        match=r"networks.denoiser: expected data with 'low_res', which it reads, got x, label .*downscale=2 to make",
    ) as refusal:
        check_batch(config, load("digits").inputs, "digits")
    assert "\n" not in str(refusal.value)
    with pytest.raises(
        ValueError, match=r"networks.denoiser: expected data with 'label', which it reads, got x from there"
    ):
        check_batch(Config.resolve("digits-classes"), {"x": Input((8, 8, 1))}, "there")


def test_data_that_have_low_res_and_an_objective_that_makes_it_are_refused():
    data = SimpleNamespace(inputs={"x": Input((8, 8, 1)), "low_res": Input((4, 4, 1))})
    with pytest.raises(ValueError, match=r"objective.downscale: expected 0, since digits has 'low_res', got 2; give"):
        check_fit(Config.resolve("digits", changes=UPSAMPLER), data)
