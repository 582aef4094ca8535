"""The classifier: its whole gradient for every pooling, what each pooling is, and what it refuses."""

from dataclasses import replace

import networks
import numpy as np
import pytest
from helpers import dense, normal
from hypothesis import given
from hypothesis import strategies as st
from models.cases import case, check_along_one_direction, check_keys_and_shapes, check_whole_backward, float32_error

from refdiff import models
from refdiff.engines import reference as engine
from refdiff.models import ClassifierConfig, blocks, layout, tree_map
from refdiff.models.encoder import encoder
from refdiff.random import Key
from refdiff.testing.derivatives import check_backward
from refdiff.testing.measures import relative_error

TINY = ClassifierConfig(8, 1, 8, (1, 2), 1, (4,), groups=4, classes=3)
KEY = Key(5, 2)
ADM = {
    "conditioning": "scale_shift",
    "resampling": "residual",
    "head_channels": 4,
    "qkv": "interleaved",
    "epsilon": 1e-5,
}
OPTIONS = {
    "attention": TINY,
    "adaptive": replace(TINY, pooling="adaptive", resampling="pooled"),
    "spatial": replace(TINY, pooling="spatial", multipliers=(1,), attention=()),
    "spatial_v2": replace(TINY, pooling="spatial_v2", multipliers=(1, 1), channels=2),
    "attention, as ADM": replace(TINY, dropout=0.3, time="adm", stem=0.5, multipliers=(0.5, 1), size=(4, 8), **ADM),
    "spatial, as ADM": replace(TINY, pooling="spatial", dropout=0.3, blocks=(1, 2), **ADM),
}  # fmt: skip
seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("name", OPTIONS)
def test_backward(drawn, name):
    check_whole_backward(drawn, OPTIONS[name], 0, KEY)


def test_the_pooling_has_as_many_heads_as_its_channels_have_room_for(drawn):
    p, x, t = case(drawn, TINY, 0)
    by_channels, by_number, one = (
        networks.predict(engine, replace(TINY, **heads), p, x, t)
        for heads in ({"head_channels": 4}, {"heads": 4}, {"heads": 1})
    )
    assert np.array_equal(by_channels, by_number)
    assert relative_error(by_channels, one) > 1e-3


@given(st.sampled_from(["attention", "adaptive"]), seeds)
def test_backward_along_one_direction(drawn, pooling, seed):
    check_along_one_direction(drawn, replace(TINY, pooling=pooling, **ADM), seed, KEY)


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_have_exactly_the_keys_and_shapes_of_the_parameters(drawn, name):
    y, saved = check_keys_and_shapes(drawn, OPTIONS[name], KEY)
    assert y.shape == (2, 3)
    assert networks.backward(engine, OPTIONS[name], y, saved, needs_dx=False)[0] is None


@pytest.mark.parametrize("name", OPTIONS)
def test_float32_says_what_float64_says(drawn, name):
    assert float32_error(drawn, OPTIONS[name], KEY) <= 2e-5


def test_the_gradient_of_the_time(drawn):
    config = replace(TINY, **ADM)
    p, x, t = case(drawn, config, 3)
    net = models.Network(config, p)
    check_backward(
        lambda t: models.forward(engine, net, {"x": x, "t": t}),
        lambda dy, saved: models.backward(engine, net, dy, saved, ("t",))[0]["t"],
        (t.astype(np.float64),),
        np.random.default_rng(3),
        1e-12,
    )


# ---- meaning


@pytest.mark.parametrize("name", OPTIONS)
def test_it_depends_on_the_time_and_on_every_pixel_and_not_on_the_rest_of_its_batch(drawn, name):
    config = OPTIONS[name]
    p, x, t = case(drawn, config, 4, n=3)
    y, saved = networks.forward(engine, config, p, x, t)
    assert relative_error(networks.forward(engine, config, p, x, t + 100)[0], y) > 1e-3
    assert np.all(networks.backward(engine, config, y, saved)[0] != 0)
    alone, _ = networks.forward(engine, config, p, x[1:2], t[1:2])
    assert relative_error(alone[0], y[1]) <= 1e-12


@given(seeds, st.sampled_from([1, 2, 4]))
def test_attention_pooling_is_the_first_row_of_attention_over_all_tokens(drawn, seed, heads):
    """One projection of 3 C for every token, as it is published, and what all tokens but the mean ask thrown away."""
    p, x = drawn(blocks.attention_pool_layout(8, 6, 5), seed), normal(seed, 2, 2, 3, 8)
    pixels = x.reshape(2, 6, 8)
    tokens = np.concatenate([pixels.mean(axis=1, keepdims=True), pixels], axis=1)
    tokens = tokens + np.concatenate([p["mean_position"]["weight"][None], p["position"]["weight"]])
    joined = {k: np.concatenate([p["q"][k], p["kv"][k]], axis=-1) for k in ("weight", "bias")}
    q, k, v = np.split(dense(tokens, joined), 3, axis=-1)
    h, _ = engine.attention(q, k, v, heads)
    y, _ = blocks.attention_pool(engine, p, x, heads)
    assert relative_error(y, dense(h, p["projection"])[:, 0]) <= 1e-13
    assert models.count(blocks.attention_pool_layout(8, 6, 5)) == 7 * 8 + 8 * 24 + 24 + 8 * 5 + 5


@given(seeds)
def test_attention_pooling_without_positions_does_not_see_the_order_of_pixels(drawn, seed):
    p, x = drawn(blocks.attention_pool_layout(8, 16, 5), seed), normal(seed, 2, 16, 8)
    order = np.random.default_rng(seed).permutation(16)
    for row in ("position", "mean_position"):
        y, moved = (blocks.attention_pool(engine, p, a.reshape(2, 4, 4, 8), 2)[0] for a in (x, x[:, order]))
        assert (relative_error(moved, y) > 1e-6) == (row == "position"), "it does while a position is learned"
        p["position"] = tree_map(np.zeros_like, p["position"])


@given(seeds)
def test_mean_pooling_begins_without_an_opinion(drawn, seed):
    first = models.initialise(layout(replace(TINY, pooling="adaptive")), seed, dtype=np.float64)
    _, x, t = case(drawn, TINY, seed)
    assert not networks.forward(engine, replace(TINY, pooling="adaptive"), first, x, t)[0].any()
    p, h = drawn(blocks.mean_pool_layout(4, 3), seed), normal(seed, 2, 2, 5, 4)
    assert relative_error(blocks.mean_pool(engine, p, h)[0], dense(h.mean(axis=(1, 2)), p["projection"])) <= 1e-14


@given(seeds)
def test_spatial_pooling_reads_the_mean_of_every_state(drawn, seed):
    states = [normal(seed, 2, 4, 4, 3), normal(seed + 1, 2, 4, 4, 2), normal(seed + 2, 2, 1, 2, 4)]
    means = np.concatenate([s.mean(axis=(1, 2)) for s in states], axis=1)
    p = drawn(blocks.spatial_pool_layout(9, 3, normed=False), seed)
    y, _ = blocks.spatial_pool(engine, p, states, 32)
    assert relative_error(y, dense(np.maximum(dense(means, p["hidden"]), 0), p["projection"])) <= 1e-13
    p = drawn(blocks.spatial_pool_layout(9, 3, normed=True), seed)
    y, _ = blocks.spatial_pool(engine, p, states, 32, epsilon=1e-5)
    h, _ = engine.group_norm_silu(dense(means, p["hidden"]), **p["norm"], groups=32, epsilon=1e-5)
    assert relative_error(y, dense(h, p["projection"])) <= 1e-13


@pytest.mark.parametrize("pooling", ["spatial", "spatial_v2"])
def test_spatial_pooling_is_given_the_states_after_every_layer(drawn, pooling):
    """Those of the first convolution, each layer of the encoder and the middle, in that order, and no norm."""
    config = replace(TINY, pooling=pooling, stem=0.5)
    p = layout(config)
    assert p["pool"]["hidden"]["weight"].shape == (4 + sum(layer.c_out for layer in encoder(config)) + 16, 2048)
    assert "norm_out" not in p
    p, x, t = case(drawn, config, 0)
    p["pool"]["hidden"]["weight"][:4] = 0  # the first convolution is no longer read, but through what follows
    _, saved = networks.forward(engine, config, p, x, t)
    first, _ = engine.global_average_pool(engine.conv2d(x, **p["conv_in"])[0])
    assert np.array_equal(saved["pool"]["hidden"][0][:, :4], first)


# ---- what does not fit


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"classes": 1}, "classes: expected at least 2 to tell apart, got 1"),
        ({"classes": 2.5}, "classes: expected at least 2"),
        ({"pooling": "max"}, "pooling: expected one of attention, adaptive, spatial, spatial_v2, got 'max'"),
        ({"size": 9}, "size: expected a multiple of 2"),
        ({"head_channels": 3}, "head_channels: expected a divisor of 16"),
        ({"blocks": (1,)}, "blocks: expected one number, or one for each of 2 levels"),
    ],
)
def test_configuration_says_what_does_not_fit(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **wrong)
