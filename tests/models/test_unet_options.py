"""What each option of the U-Net means: a property that holds for it alone, and the gradients of all that it is told."""

from dataclasses import replace

import networks
import numpy as np
import pytest
from helpers import normal
from hypothesis import given
from hypothesis import strategies as st
from models.cases import case

from refdiff import models
from refdiff.engines import reference as engine
from refdiff.models import Network, UNetConfig, blocks, flatten, layout, tree_map
from refdiff.random import Key
from refdiff.testing.derivatives import check_backward
from refdiff.testing.measures import relative_error

TINY = UNetConfig(8, 1, 8, (1, 2), 1, (), groups=4)
KEY = Key(5, 2)
seeds = st.integers(0, 2**32 - 1)


def forward(config, p, batch):
    return models.forward(engine, Network(config, p), batch)[0]


def zeros(tree):
    return tree_map(np.zeros_like, tree)


def conditioned(p):
    """The names of the layers that hold a residual block."""
    return [name for name in p if "residual" in p[name]]


# ---- the gradients of all inputs


@pytest.mark.parametrize("wrt", [("x", "low_res", "t"), ("low_res",), ("x",)])
def test_gradients_of_the_inputs(drawn, wrt):
    config = replace(
        TINY, channels=2, low_res=(3, 4), classes=2, conditioning="scale_shift", resampling="residual", rescale="skips"
    )
    p, x, t = case(drawn, config, 0)
    whole = {"x": x, "t": t.astype(np.float64), "low_res": normal(1, 2, 3, 4, 2), "label": np.array([0, 2])}
    net = Network(config, p)
    check_backward(
        lambda told: models.forward(engine, net, whole | told, KEY),
        lambda dy, saved: models.backward(engine, net, dy, saved, wrt)[0],
        ({name: whole[name] for name in wrt},),
        np.random.default_rng(0),
        1e-12,
    )
    y, saved = models.forward(engine, net, whole, KEY)
    assert set(models.backward(engine, net, y, saved, wrt)[0]) == set(wrt)


# ---- Fourier features


@pytest.mark.parametrize("low_res", [0, 4])
def test_fourier_features_lie_beside_x_and_x_has_a_gradient_through_them(drawn, low_res):
    """The network of x with features is that of more channels, told them; and the gradients of x and of all parameters."""
    config = replace(TINY, channels=2, fourier=(0, 3), low_res=low_res)
    assert (config.channels_in, layout(config)["conv_in"]["weight"].shape[2]) == ((12, 12) if low_res else (10, 10))
    p, x, t = case(drawn, config, 0)
    batch = networks.inputs(config, x, t)
    features = [x, *(f(2.0**n * np.pi * x) for f in (np.sin, np.cos) for n in (0, 3))]
    wide = replace(TINY, channels=10)
    assert config.shape == x.shape[1:]
    told = {"x": np.concatenate(features, axis=-1), "t": t}
    if not low_res:  # but for the last convolution, it is the same network
        more = p | {"conv_out": layout_of_zeros(layout(wide)["conv_out"])}
        more["conv_out"]["weight"][..., :2] = p["conv_out"]["weight"]
        more["conv_out"]["bias"][:2] = p["conv_out"]["bias"]
        assert relative_error(forward(config, p, batch), forward(wide, more, told)[..., :2]) <= 1e-13
    check_backward(
        lambda x, p: models.forward(engine, Network(config, p), batch | {"x": x}),
        lambda dy, saved: (lambda d, g: (d["x"], g))(*models.backward(engine, Network(config, p), dy, saved, ("x",))),
        (x, p),
        np.random.default_rng(1),
        1e-12,
    )


def layout_of_zeros(tree):
    return tree_map(lambda spec: np.zeros(spec.shape), tree)


def test_fourier_features_of_no_exponents_change_nothing_and_others_are_refused():
    assert layout(replace(TINY, fourier=())) == layout(TINY)
    assert replace(TINY, fourier=[3, 4]).fourier == (3, 4)
    for wrong in ((0.5,), (3, 3), (True,)):
        with pytest.raises(ValueError, match=r"^fourier: expected exponents, integers and each once, got"):
            replace(TINY, fourier=wrong)


# ---- conditioning


@given(seeds, st.sampled_from(["", "down", "up"]))
def test_scale_and_shift_of_zero_are_an_addition_of_zero(drawn, seed, resample):
    """And of scale 0 the shift is added, behind the norm."""
    p, x, emb = drawn(blocks.residual_layout(4, 8, 6), seed), normal(seed, 2, 4, 4, 4), normal(seed + 1, 2, 6)
    p["time"] = zeros(p["time"])
    twice = p | {"time": zeros(blocks_time(drawn, 8, seed))}
    plain, _ = blocks.residual(engine, p, x, emb, 2, resample=resample)
    scaled, _ = blocks.residual(engine, twice, x, emb, 2, conditioning="scale_shift", resample=resample)
    assert relative_error(scaled, plain) <= 1e-13
    shift = normal(seed + 2, 8)
    shifted = p | {"norm2": p["norm2"] | {"bias": p["norm2"]["bias"] + shift}}
    twice["time"]["bias"][8:] = shift
    expected, _ = blocks.residual(engine, shifted, x, emb, 2, resample=resample)
    actual, _ = blocks.residual(engine, twice, x, emb, 2, conditioning="scale_shift", resample=resample)
    assert relative_error(actual, expected) <= 1e-13


def blocks_time(drawn, channels, seed):
    return drawn(blocks.residual_layout(4, channels, 6, "scale_shift"), seed)["time"]


@given(seeds)
def test_the_first_half_of_the_projection_is_the_scale(drawn, seed):
    """Weight and bias of the second norm times 1 + scale do what the scale does."""
    p, x, emb = (
        drawn(blocks.residual_layout(4, 8, 6, "scale_shift"), seed),
        normal(seed, 2, 4, 4, 4),
        normal(seed, 2, 6),
    )
    p["time"] = zeros(p["time"])
    scale = normal(seed + 1, 8)
    times = p | {"norm2": tree_map(lambda a: a * (1 + scale), p["norm2"])}
    expected, _ = blocks.residual(engine, times, x, emb, 2, conditioning="scale_shift")
    p["time"]["bias"][:8] = scale
    actual, _ = blocks.residual(engine, p, x, emb, 2, conditioning="scale_shift")
    assert relative_error(actual, expected) <= 1e-13


@given(seeds)
def test_where_the_silu_of_the_embedding_stands(drawn, seed):
    """Before the sum with the label, two labels differ by their rows at any t; without labels nothing changes."""
    p, t = drawn(blocks.conditioning_layout(8, 12, 3), seed), np.array([5, 800])
    first, second = (
        blocks.conditioning(engine, p, {"t": t, "label": np.array([label] * 2)}, "adm", "time")[0] for label in (0, 3)
    )
    row = p["label"]["weight"]
    assert relative_error(second - first, np.array([row[3] - row[0]] * 2)) <= 1e-12
    p["label"] = zeros(p["label"])
    batch = {"t": t, "label": np.array([1, 2])}
    time, total = (blocks.conditioning(engine, p, batch, "adm", kind)[0] for kind in ("time", "sum"))
    assert np.array_equal(time, total)


def test_without_a_null_label_the_table_has_a_row_a_class():
    rows = [layout(replace(TINY, classes=3, null_label=null))["label"]["weight"].shape for null in (True, False)]
    assert rows == [(4, 32), (3, 32)]
    assert "label" not in layout(replace(TINY, null_label=False))


# ---- attention


@given(seeds, st.sampled_from([1, 2, 4]))
def test_the_two_orders_of_q_k_v_are_one_permutation_apart(drawn, seed, heads):
    x, p = normal(seed, 2, 4, 4, 8), drawn(blocks.attention_layout(8), seed)
    # Column i of "interleaved" is column order[i] of "split": all of a head's q, k and v, then the next head's.
    order = np.arange(24).reshape(3, heads, 8 // heads).swapaxes(0, 1).ravel()
    moved = p | {"qkv": tree_map(lambda a: a[..., order], p["qkv"])}
    split, _ = blocks.attention(engine, p, x, 2, heads)
    interleaved, _ = blocks.attention(engine, moved, x, 2, heads, qkv="interleaved")
    assert np.array_equal(interleaved, split)


def test_heads_by_channels_are_as_many_as_fit(drawn):
    config = replace(TINY, attention=(8, 4), head_channels=4)
    assert [config.heads_of(c) for c in config.widths] == [2, 4]
    p, x, t = case(drawn, replace(TINY, attention=(4,)), 0)
    fixed, by_channels = replace(TINY, attention=(4,), heads=4), replace(TINY, attention=(4,), heads=1, head_channels=4)
    fixed, by_channels = (networks.forward(engine, c, p, x, t)[0] for c in (fixed, by_channels))
    assert np.array_equal(fixed, by_channels)


@given(seeds, st.floats(0.1, 10))
def test_epsilon_stands_under_the_root(drawn, seed, size):
    """Images times s with epsilon times s^2 have the same norms."""
    x, p = normal(seed, 2, 4, 4, 8), drawn(blocks.attention_layout(8), seed)
    small, _ = blocks.attention(engine, p, x, 2, 2, epsilon=0.5)
    large, _ = blocks.attention(engine, p, size * x, 2, 2, epsilon=0.5 * size**2)
    assert relative_error(large - size * x, small - x) <= 1e-11


@pytest.mark.parametrize("conditioning", blocks.CONDITIONINGS)
def test_epsilon_is_that_of_every_norm(drawn, conditioning):
    """Where it is huge every norm gives its bias: nothing of x is left but through what no norm sees."""
    config = replace(TINY, attention=(8, 4), epsilon=1e300, conditioning=conditioning, resampling="residual")
    p, x, t = case(drawn, config, 0)
    y, saved = networks.forward(engine, config, p, x, t)
    assert np.ptp(y[:, 2:-2, 2:-2], axis=(1, 2)).max() <= 1e-12, "the network's last norm"
    for name in conditioned(p):
        own = flatten(networks.backward(engine, config, np.ones_like(y), saved)[1][name])
        assert all(
            np.abs(g).max() <= 1e-100 for path, g in own.items() if path.endswith(("norm1/weight", "norm2/weight"))
        ), name


# ---- resampling


@given(seeds, st.sampled_from(["down", "up"]))
def test_a_residual_block_that_says_nothing_resamples(drawn, seed, direction):
    """BigGAN's: mean or nearest of x; with a projection that of the projected pixels."""
    x, emb = normal(seed, 2, 4, 4, 6), normal(seed + 1, 2, 6)
    resized, _ = engine.average_pool(x) if direction == "down" else engine.upsample_nearest(x)
    for projected in (False, True):
        p = drawn(blocks.residual_layout(6, 6, 6, "scale_shift", projected), seed)
        p["conv2"] = zeros(p["conv2"])
        y, _ = blocks.residual(engine, p, x, emb, 2, conditioning="scale_shift", resample=direction)
        expected = engine.linear(resized, **p["shortcut"])[0] if projected else resized
        assert np.array_equal(y, expected)
        assert ("shortcut" in p) == projected


@given(seeds, st.sampled_from(["down", "up"]))
def test_the_first_norm_of_a_residual_block_comes_before_it_resamples(drawn, seed, direction):
    """Nothing of a checkerboard is left of its mean, but of silu(norm) of it there is."""
    p = drawn(blocks.residual_layout(4, 4, 6), seed)
    board = np.indices((4, 4)).sum(axis=0)[None, :, :, None] % 2 * 2.0 - 1
    x, emb = board * np.array([1.0, 2, 3, 4]), np.zeros((1, 6))
    _, saved = blocks.residual(engine, p, x, emb, 2, resample=direction)
    h, _ = engine.group_norm_silu(x, **p["norm1"], groups=2)
    h, _ = engine.average_pool(h) if direction == "down" else engine.upsample_nearest(h)
    assert np.array_equal(saved["conv1"][0], h)


def test_what_a_stride_sees(drawn):
    """Centred windows overlap: a pixel of odd row and column is in four of them."""
    p, x = drawn(blocks.downsample_layout(4, "centred"), 0), normal(0, 2, 4, 4, 4)
    y, _ = blocks.downsample(engine, p, x, "centred")
    assert y.shape == (2, 2, 2, 4)
    nudged = x.copy()
    nudged[:, 1, 1] += 1
    changed = np.abs(blocks.downsample(engine, p, nudged, "centred")[0] - y).max(axis=(0, 3)) > 0
    assert np.argwhere(changed).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_which_layers_have_parameters_to_resample():
    config = replace(TINY, multipliers=(1, 1))
    found = {}
    for kind in blocks.RESAMPLINGS:
        p = layout(replace(config, resampling=kind))
        found[kind] = [tuple(p.get(name, {})) for name in ("down0_halve", "up1_double")]
        if "residual" in kind:
            found[kind] = ["shortcut" in p[name]["residual"] for name in ("down0_halve", "up1_double")]
            assert not any("shortcut" in p[name]["residual"] for name in ("down0_block0", "middle_block0")), kind
    assert found == {
        "strided": [("conv",), ("conv",)], "centred": [("conv",), ("conv",)], "pooled": [(), ("conv",)], "plain": [(), ()],
        "residual": [False, False], "residual_projected": [True, True],
    }  # fmt: skip


# ---- rescaling


@given(seeds)
def test_a_rescaled_block_that_says_nothing_divides_by_the_root_of_two(drawn, seed):
    x, emb = normal(seed, 2, 4, 4, 8), normal(seed + 1, 2, 6)
    residual, attention = drawn(blocks.residual_layout(8, 8, 6), seed), drawn(blocks.attention_layout(8), seed)
    residual["conv2"], attention["projection"] = zeros(residual["conv2"]), zeros(attention["projection"])
    for y in (
        blocks.residual(engine, residual, x, emb, 2, factor=2**-0.5)[0],
        blocks.attention(engine, attention, x, 2, 2, factor=2**-0.5)[0],
    ):
        assert relative_error(y, x / 2**0.5) <= 1e-15
    assert replace(TINY, rescale="residual").branch_factor == 2**-0.5
    assert replace(TINY, rescale="skips").branch_factor == TINY.branch_factor == 1


@given(seeds)
def test_rescaled_skips_are_seen_by_the_shortcut_alone(drawn, seed):
    """A norm whose groups do not mix them with h divides the factor out again: rows of the shortcut bear it instead."""
    config = replace(TINY, multipliers=(1, 1), epsilon=1e-30)
    p, x, t = case(drawn, config, seed)
    actual, _ = networks.forward(engine, replace(config, rescale="skips"), p, x, t)
    for name in [name for name in p if name.startswith("up") and "block" in name]:
        p[name]["residual"]["shortcut"]["weight"][8:] *= 2**-0.5
    expected, _ = networks.forward(engine, config, p, x, t)
    assert relative_error(actual, expected) <= 1e-11


# ---- sizes


def test_the_stem_is_the_first_convolution_alone():
    narrow, wide = (layout(replace(TINY, stem=stem)) for stem in (0.5, 1.0))
    assert narrow["conv_in"]["weight"].shape == (3, 3, 1, 4)
    changed = {name for name in wide if narrow[name] != wide[name]}
    assert changed == {"conv_in", "down0_block0", "up0_block1"}, "and what reads it"


def test_the_first_number_of_blocks_is_that_of_the_images_own_size():
    names = set(layout(replace(TINY, blocks=(1, 3))))
    assert {name for name in names if "_block" in name} == {
        "down0_block0", *(f"down1_block{i}" for i in range(3)), "middle_block0", "middle_block1",
        *(f"up1_block{i}" for i in range(4)), "up0_block0", "up0_block1",
    }  # fmt: skip


def test_lists_are_as_good_as_tuples():
    listed = UNetConfig([8, 12], 1, 8, [1, 2], [1, 2], [4], groups=4, low_res=[4, 6])
    assert listed == UNetConfig((8, 12), 1, 8, (1, 2), (1, 2), (4,), groups=4, low_res=(4, 6))
    assert hash(listed) == hash(replace(listed, blocks=(1, 2)))
    with pytest.raises(ValueError, match=r"^blocks: expected one number, or one for each of 2 levels, .* got \[1\]$"):
        replace(listed, blocks=[1])


def test_a_multiplier_is_written_as_it_is_meant():
    """A float that is whole is an integer, so that a run read back from its file is the run that was written."""
    config = UNetConfig(8, 1, 8, (1.0, 2.0), 1, (), groups=4)
    assert config == TINY
    assert [type(m) for m in config.multipliers] == [int, int]
    assert replace(TINY, multipliers=(0.5, 1.5)).widths == (4, 12)
    assert replace(TINY, width=100, multipliers=(0.07, 0.29)).widths == (7, 29), "though 100 x 0.29 is no whole float"


# ---- the small image


def test_a_small_image_is_interpolated_and_lies_behind_x(drawn):
    """Weights for x alone leave the network without it; a constant one is a constant channel."""
    config = replace(TINY, low_res=4, channels=2)
    p, x, t = case(drawn, config, 0)
    small = normal(1, 2, 4, 4, 2)
    alone = p | {"conv_in": p["conv_in"] | {"weight": p["conv_in"]["weight"][:, :, :2]}}
    expected = forward(replace(config, low_res=0), alone, {"x": x, "t": t})
    silent = p["conv_in"]["weight"].copy()
    silent[:, :, 2:] = 0
    actual = forward(config, p | {"conv_in": p["conv_in"] | {"weight": silent}}, {"x": x, "t": t, "low_res": small})
    assert relative_error(actual, expected) <= 1e-13
    by_size = [
        forward(replace(config, low_res=size), p, {"x": x, "t": t, "low_res": np.full((2, size, size, 2), 0.3)})
        for size in (1, 4, 7)
    ]
    assert relative_error(by_size[1:], [by_size[0]] * 2) <= 1e-12
    assert models.inputs(config)["low_res"].shape == (4, 4, 2)
    assert models.inputs(replace(config, low_res=(2, 3)))["low_res"].shape == (2, 3, 2)
    assert "low_res" not in models.inputs(TINY)
