"""The U-Net: its whole gradient, for every option; its plan; and the same network written a second time."""

from dataclasses import FrozenInstanceError, replace

import networks
import numpy as np
import pytest
from helpers import dense, silu
from hypothesis import given, settings
from hypothesis import strategies as st
from models.cases import case, check_along_one_direction, check_keys_and_shapes, check_whole_backward, float32_error

from refdiff.engines import reference as engine
from refdiff.models import MODELS, UNetConfig, blocks, flatten
from refdiff.models.unet import RESCALES, decoder, encoder
from refdiff.random import Key
from refdiff.testing.measures import relative_error

TINY = UNetConfig(8, 1, 8, (1, 2), 1, (), groups=4)
KEY = Key(5, 2)
OPTIONS = {
    "plain": TINY,
    "one level": replace(TINY, multipliers=(1,), blocks=2, attention=(8,), heads=2),
    "three levels": replace(TINY, multipliers=(1, 2, 2), attention=(4, 2), heads=4, groups=2),
    "two blocks": replace(TINY, blocks=2, attention=(4,)),
    "narrower": replace(TINY, multipliers=(2, 1), attention=(8, 4), heads=2),
    "three channels": replace(TINY, channels=3, groups=1, width=5),
    "pooled": replace(TINY, resampling="pooled", channels=3),
    "adm": replace(TINY, time="adm", attention=(8,)),
    "dropout": replace(TINY, dropout=0.4, attention=(4,)),
    "labels, twice as much": replace(TINY, classes=1, outputs=2),
    "not square": replace(TINY, size=(4, 8), attention=(4,), heads=2),
    "scale and shift": replace(TINY, conditioning="scale_shift", dropout=0.4, epsilon=1e-5, attention=(4,)),
    "centred": replace(TINY, resampling="centred", epsilon=0.1, attention=(8,)),
    "without convolutions": replace(TINY, resampling="plain", multipliers=(1, 1, 1)),
    "residual": replace(TINY, resampling="residual", dropout=0.3),
    "residual, projected": replace(TINY, resampling="residual_projected", rescale="residual", attention=(4,), time="adm"),
    "heads by channels, interleaved": replace(TINY, head_channels=4, qkv="interleaved", attention=(8, 4)),
    "blocks a level, broken multipliers": replace(TINY, blocks=(2, 1), multipliers=(0.5, 1.25), stem=0.75),
    "skips": replace(TINY, rescale="skips", classes=2, null_label=False, embedding_silu="time"),
    "low_res": replace(TINY, low_res=(3, 4), channels=2),
    "all of ADM": replace(
        TINY, size=4, channels=2, multipliers=(0.5, 1.5), stem=0.5, blocks=(1, 2), attention=(2,), head_channels=2,
        qkv="interleaved", conditioning="scale_shift", resampling="residual", dropout=0.2, time="adm", classes=3,
        null_label=False, outputs=2, epsilon=1e-5, low_res=2, groups=2,
    ),
    "all of the others": replace(
        TINY, size=4, multipliers=(1, 2), attention=(4,), heads=2, qkv="interleaved", conditioning="scale_shift",
        resampling="residual_projected", rescale="residual", embedding_silu="time", classes=2, low_res=(2, 3),
    ),
}  # fmt: skip
seeds = st.integers(0, 2**32 - 1)


@st.composite
def configs(draw):
    multipliers = draw(st.sampled_from([(1,), (1, 2), (2, 1), (1, 2, 2), (0.5, 1.5)]))
    sizes = [8 // 2**level for level in range(len(multipliers))]
    return UNetConfig(
        size=8,
        channels=draw(st.sampled_from([1, 3])),
        width=8,
        multipliers=multipliers,
        blocks=draw(st.sampled_from([1, 2, (2, 1, 1)[: len(multipliers)]])),
        attention=tuple(draw(st.lists(st.sampled_from(sizes), unique=True))),
        heads=draw(st.sampled_from([1, 2, 4])),
        groups=draw(st.sampled_from([1, 2, 4])),
        dropout=draw(st.sampled_from([0.0, 0.3])),
        resampling=draw(st.sampled_from(blocks.RESAMPLINGS)),
        time=draw(st.sampled_from(["ddpm", "adm"])),
        stem=draw(st.sampled_from([1.0, 0.5])),
        head_channels=draw(st.sampled_from([0, 2])),
        qkv=draw(st.sampled_from(blocks.QKVS)),
        conditioning=draw(st.sampled_from(blocks.CONDITIONINGS)),
        epsilon=draw(st.sampled_from([1e-6, 1e-2])),
        rescale=draw(st.sampled_from(RESCALES)),
        embedding_silu=draw(st.sampled_from(blocks.EMBEDDING_SILUS)),
        classes=draw(st.sampled_from([0, 2])),
        null_label=draw(st.booleans()),
        low_res=draw(st.sampled_from([0, 3, (4, 2)])),
    )


# ---- gradient


@pytest.mark.parametrize("name", OPTIONS)
def test_backward(drawn, name):
    check_whole_backward(drawn, OPTIONS[name], 0, KEY)


@pytest.mark.slow
@settings(max_examples=10)
@given(configs(), seeds)
def test_backward_of_any_options(drawn, config, seed):
    check_whole_backward(drawn, config, seed, KEY)


@settings(max_examples=10)
@given(configs(), seeds)
def test_backward_along_one_direction(drawn, config, seed):
    check_along_one_direction(drawn, config, seed, KEY)


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_have_exactly_the_keys_and_shapes_of_the_parameters(drawn, name):
    check_keys_and_shapes(drawn, OPTIONS[name], KEY)


@pytest.mark.parametrize("name", OPTIONS)
def test_float32_says_what_float64_says(drawn, name):
    assert float32_error(drawn, OPTIONS[name], KEY) <= 1e-5


@pytest.mark.parametrize("name", OPTIONS)
def test_nothing_that_came_in_or_was_saved_is_written_to(drawn, name):
    config = OPTIONS[name]
    p, x, t = case(drawn, config, 3)
    expected, saved = networks.forward(engine, config, p, x, t, KEY)
    _, g = networks.backward(engine, config, expected, saved)
    for a in (x, t, *flatten(p).values()):
        a.flags.writeable = False
    y, saved = networks.forward(engine, config, p, x, t, KEY)
    for a in arrays(saved):
        a.flags.writeable = False
    for _ in range(2):
        again = flatten(networks.backward(engine, config, y, saved)[1])
        assert all(np.array_equal(again[name], a) for name, a in flatten(g).items())
    assert np.array_equal(y, expected)


def arrays(tree):
    if isinstance(tree, dict | tuple):
        return [a for part in (tree.values() if isinstance(tree, dict) else tree) for a in arrays(part)]
    return [tree] if isinstance(tree, np.ndarray) else []


# ---- meaning


@given(st.sampled_from(list(OPTIONS)), seeds)
def test_a_prediction_does_not_depend_on_the_rest_of_its_batch(drawn, name, seed):
    config = OPTIONS[name]
    p, x, t = case(drawn, config, seed, n=3)
    y, _ = networks.forward(engine, config, p, x, t)
    for i in range(3):
        alone, _ = networks.forward(engine, config, p, x[i : i + 1], t[i : i + 1])
        assert relative_error(alone[0], y[i]) <= 1e-12


@pytest.mark.parametrize("name", OPTIONS)
def test_a_prediction_depends_on_the_time_and_on_every_pixel(drawn, name):
    config = OPTIONS[name]
    p, x, t = case(drawn, config, 4, n=1)
    y, saved = networks.forward(engine, config, p, x, t)
    assert relative_error(networks.forward(engine, config, p, x, t + 100)[0], y) > 1e-3
    assert np.all(networks.backward(engine, config, y, saved)[0] != 0)


def test_dropout_is_on_with_a_key_and_off_without(drawn):
    config = OPTIONS["dropout"]
    p, x, t = case(drawn, config, 5)
    y, saved = networks.forward(engine, config, p, x, t, KEY)
    assert np.array_equal(networks.forward(engine, config, p, x, t, KEY)[0], y)
    assert not np.array_equal(networks.forward(engine, config, p, x, t, KEY._replace(step=3))[0], y)
    plain, _ = networks.forward(engine, replace(config, dropout=0.0), p, x, t, KEY)
    assert np.array_equal(networks.forward(engine, config, p, x, t)[0], plain)
    assert not np.array_equal(plain, y)
    # The mask of each block is named after it: no two are equal.
    masks = [saved[name]["residual"]["dropout"] for name in p if "block" in name]
    assert len({mask.tobytes() for mask in masks}) == len(masks)
    first = saved["down0_block0"]["residual"]["dropout"]
    assert np.array_equal(engine.dropout(np.ones_like(first), config.dropout, KEY("down0_block0/dropout"))[0], first)


# ---- the plan


@given(configs())
def test_encoder_and_decoder_fit_each_other(config):
    down, up = encoder(config), decoder(config)
    names = [layer.name for layer in down + up]
    assert len(set(names)) == len(names)
    levels = len(config.multipliers)
    assert [layer.kind for layer in down].count("block") == sum(config.depths)
    assert [layer.kind for layer in up].count("block") == sum(config.depths) + levels
    assert [layer.kind for layer in down].count("down") == [layer.kind for layer in up].count("up") == levels - 1

    # Walk down and up: channels and sizes as the layers say, each state kept and used once, at the size it had.
    size, c, kept = config.size, config.stem_width, [(config.size, config.stem_width)]
    for layer in down:
        assert layer.c_in == c
        size, c = size // 2 if layer.kind == "down" else size, layer.c_out
        assert layer.attention == (layer.kind == "block" and size in config.attention)
        kept.append((size, c))
    for layer in up:
        if layer.kind == "block":
            kept_size, kept_c = kept.pop()
            assert (kept_size, c + kept_c) == (size, layer.c_in)
            assert layer.attention == (size in config.attention)
        else:
            assert layer.c_in == layer.c_out == c
            size *= 2
        c = layer.c_out
    assert (size, c, kept) == (config.size, config.widths[0], [])


@pytest.mark.parametrize("name", [name for name, config in MODELS.items() if isinstance(config, UNetConfig)])
def test_presets_have_two_channels_or_more_a_group(name):
    """Else the norm after it would remove the time that was added (see test_blocks.py)."""
    config = MODELS[name]
    for channels in config.widths:
        assert channels // blocks.groups_of(channels, config.groups) >= 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "size: expected an integer of at least 1, got 0"),
        ({"channels": 0}, "channels: expected an integer of at least 1, got 0"),
        ({"channels": 1.5}, "channels: expected an integer of at least 1, got 1.5"),
        ({"width": -8}, "width: expected an integer of at least 1, got -8"),
        ({"width": 32.0}, "width: expected an integer of at least 1, got 32.0"),
        ({"width": 3}, "width: expected at least 4"),
        ({"blocks": 0}, "blocks: expected an integer"),
        ({"heads": 0}, "heads: expected an integer"),
        ({"groups": 0}, "groups: expected an integer"),
        ({"multipliers": ()}, r"multipliers: expected at least one number above 0, got \(\)"),
        ({"multipliers": (1, 0)}, "multipliers: expected"),
        ({"multipliers": (1, -1)}, r"multipliers: expected numbers above 0, got \(1, -1\)"),
        ({"multipliers": (1, float("nan"))}, "multipliers: expected numbers above 0"),
        ({"multipliers": (1, "2")}, "multipliers: expected numbers above 0"),
        ({"multipliers": (1, 1.3)}, "multipliers: expected whole channels, got 1.3, which times width = 16 makes 20.8"),
        ({"stem": 0.0}, "stem: expected a number above 0, got 0.0"),
        ({"stem": 0.03}, "stem: expected whole channels, got 0.03, which times width = 16 makes 0.48"),
        ({"blocks": (1, 2)}, r"blocks: expected one number, or one for each of 3 levels, of at least 1, got \[1, 2\]"),
        ({"blocks": (1, 2, 0)}, "blocks: expected one number, or one for each of 3 levels"),
        ({"head_channels": 5}, "head_channels: expected a divisor of 32, the channels with attention, got 5"),
        ({"head_channels": -1}, "head_channels: expected an integer of at least 0, got -1"),
        ({"epsilon": 0.0}, "epsilon: expected a finite number above 0, got 0.0"),
        ({"epsilon": float("nan")}, "epsilon: expected a finite number above 0"),
        ({"qkv": "mixed"}, "qkv: expected one of split, interleaved, got 'mixed'"),
        ({"conditioning": "film"}, "conditioning: expected one of add, scale_shift, got 'film'"),
        ({"rescale": "all"}, "rescale: expected one of none, residual, skips, got 'all'"),
        ({"embedding_silu": "none"}, "embedding_silu: expected one of sum, time, got 'none'"),
        ({"low_res": 32}, "low_res: expected less than size = 32, or 0 for none, got 32"),
        ({"low_res": (8, 40)}, r"low_res: expected less than size = 32, or 0 for none, got \(8, 40\)"),
        ({"low_res": (8, 0)}, "low_res: expected a side, or height and width, of at least 1 each"),
        ({"low_res": -1}, "low_res: expected an integer of at least 0, got -1"),
        ({"classes": -1}, "classes: expected how many labels there are, 0 for none, got -1"),
        ({"outputs": 0}, "outputs: expected an integer of at least 1, got 0"),
        ({"size": 30}, "size: expected a multiple of 4, since 3 multipliers halve it 2 times, got 30; pad the images"),
        ({"attention": (5,)}, r"attention: expected sizes among \[32, 16, 8\], got \[5\]"),
        ({"attention": (4,)}, "attention: expected sizes among"),
        ({"heads": 3}, "heads: expected a divisor of 32, the channels with attention, got 3"),
        ({"attention": (32,), "heads": 32}, "heads: expected a divisor of 16, the channels with attention, got 32"),
        ({"dropout": 1.0}, r"dropout: expected a rate in \[0, 1\), got 1.0"),
        ({"dropout": -0.1}, "dropout: expected a rate"),
        ({"dropout": float("nan")}, "dropout: expected a rate"),
        ({"resampling": "max"}, "resampling: expected one of strided, centred, pooled, plain, residual, residual_p"),
        ({"time": "edm"}, "time: expected one of ddpm, adm, got 'edm'"),
    ],
)
def test_configuration_says_what_does_not_fit(wrong, message):
    good = {"size": 32, "width": 16, "multipliers": (1, 2, 2), "attention": (16,)}
    UNetConfig(**good)
    with pytest.raises(ValueError, match=message):
        UNetConfig(**{**good, **wrong})


def test_a_configuration_is_a_value():
    """Equal by its fields, fit to be a key, and never changed; without fields it is CIFAR-10's, without dropout."""
    assert hash(UNetConfig(8, 1, 8, (1, 2), 1, (), groups=4)) == hash(TINY)
    assert UNetConfig() == replace(MODELS["cifar10"], dropout=0.0)
    with pytest.raises(FrozenInstanceError):
        TINY.size = 16


# ---- the same network once more, from [DDPM] appendix B and its published code, with nothing of blocks.py


def conv(x, q, stride=1, before=1):
    """3x3, zeros all around, or after the last row and column alone when it halves the size."""
    x = np.pad(x, ((0, 0), (before, 1), (before, 1), (0, 0)))
    h, w = (x.shape[1] - 2, x.shape[2] - 2)
    return q["bias"] + sum(
        x[:, i : i + h : stride, j : j + w : stride] @ q["weight"][i, j] for i in range(3) for j in range(3)
    )


def norm(x, q, groups):
    y = np.empty_like(x)
    for own in np.split(np.arange(x.shape[3]), groups):
        part = x[..., own]
        mean, variance = part.mean(axis=(1, 2, 3), keepdims=True), part.var(axis=(1, 2, 3), keepdims=True)
        y[..., own] = (part - mean) / np.sqrt(variance + 1e-6)
    return y * q["weight"] + q["bias"]


def resnet_block(x, temb, q, groups):
    h = conv(silu(norm(x, q["norm1"], groups)), q["conv1"])
    h = h + dense(silu(temb), q["time"])[:, None, None, :]
    h = conv(silu(norm(h, q["norm2"], groups)), q["conv2"])
    return h + (dense(x, q["shortcut"]) if "shortcut" in q else x)


def attention_block(x, q, groups):
    c = x.shape[3]
    query, key, value = np.split(dense(norm(x, q["norm"], groups), q["qkv"]), 3, axis=-1)
    w = np.exp(np.einsum("nhwc,nijc->nhwij", query, key) / c**0.5)
    h = np.einsum("nhwij,nijc->nhwc", w / w.sum(axis=(3, 4), keepdims=True), value)
    return x + dense(h, q["projection"])


def ddpm(p, x, t, config):
    half = config.width // 2
    angle = t[:, None] * np.exp(-np.log(10000) / (half - 1) * np.arange(half))
    temb = dense(np.concatenate([np.sin(angle), np.cos(angle)], axis=1), p["time"]["linear1"])
    temb = dense(silu(temb), p["time"]["linear2"])

    def block(name, h):
        h = resnet_block(h, temb, p[name]["residual"], config.groups)
        if name == "middle_block0" or (h.shape[1] in config.attention and name != "middle_block1"):
            h = attention_block(h, p[name]["attention"], config.groups)
        return h

    levels = len(config.multipliers)
    hs = [conv(x, p["conv_in"])]
    for level in range(levels):
        for i in range(config.blocks):
            hs.append(block(f"down{level}_block{i}", hs[-1]))
        if level != levels - 1:
            hs.append(conv(hs[-1], p[f"down{level}_halve"]["conv"], stride=2, before=0))
    h = block("middle_block1", block("middle_block0", hs[-1]))
    for level in reversed(range(levels)):
        for i in range(config.blocks + 1):
            h = block(f"up{level}_block{i}", np.concatenate([h, hs.pop()], axis=3))
        if level:
            h = conv(np.kron(h, np.ones((1, 2, 2, 1))), p[f"up{level}_double"]["conv"])
    assert not hs
    return conv(silu(norm(h, p["norm_out"], config.groups)), p["conv_out"])


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(8, 1, 8, (1, 2), 1, (4,), groups=4),
        UNetConfig(8, 3, 8, (1, 2, 2), 2, (8, 2), groups=2),
        UNetConfig(4, 2, 12, (1,), 1, (4,), groups=3),
    ],
)
def test_forward_is_the_network_of_ddpm(drawn, config):
    p, x, t = case(drawn, config, 6, n=3)
    y, _ = networks.forward(engine, config, p, x, t)
    assert y.shape == x.shape
    assert relative_error(y, ddpm(p, x, t, config)) <= 1e-12
