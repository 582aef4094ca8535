"""The blocks of the U-Net, each by itself."""

import numpy as np
import pytest
from helpers import normal
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import reference as engine
from refdiff.models import blocks, tree_map
from refdiff.random import Sequence
from refdiff.testing.derivatives import check_backward
from refdiff.testing.measures import relative_error

seeds = st.integers(0, 2**32 - 1)
batches = st.integers(1, 3)
sizes = st.sampled_from([2, 4])
channels = st.sampled_from([4, 8, 12])
heads = st.sampled_from([1, 2, 4])


def check(forward, backward, inputs, seed):
    check_backward(forward, backward, inputs, np.random.default_rng(seed), 1e-12)


@pytest.mark.parametrize(
    ("channels", "most", "expected"),
    [(128, 32, 32), (384, 32, 32), (48, 32, 24), (8, 32, 4), (9, 32, 3), (7, 32, 1), (12, 4, 4)],
)
def test_groups_of_divides_the_channels_and_leaves_two_a_group(channels, most, expected):
    assert blocks.groups_of(channels, most) == expected


@given(batches, st.sampled_from([4, 5, 8]), st.sampled_from(["ddpm", "adm"]), st.sampled_from([0, 3]), seeds)
def test_conditioning(drawn, n, width, convention, classes, seed):
    p, rng = drawn(blocks.conditioning_layout(width, 4 * width, classes), seed), np.random.default_rng(seed)
    inputs = {"t": rng.integers(1, 1001, n), "label": rng.integers(0, classes + 1, n)}
    assert set(blocks.conditioning_inputs(classes)) == ({"t", "label"} if classes else {"t"})
    check(
        lambda p: blocks.conditioning(engine, p, inputs, convention),
        lambda demb, saved: blocks.conditioning_backward(engine, demb, saved)[1],
        (p,),
        seed,
    )
    times = {"t": inputs["t"].astype(np.float64), "label": inputs["label"]}
    check(
        lambda t: blocks.conditioning(engine, p, times | {"t": t}, convention),
        lambda demb, saved: blocks.conditioning_backward(engine, demb, saved, needs_dt=True)[0],
        (times["t"],),
        seed,
    )
    emb, _ = blocks.conditioning(engine, p, inputs, convention)
    h, _ = engine.time_embedding(inputs["t"], width, convention, np.float64)
    h = h @ p["time"]["linear1"]["weight"] + p["time"]["linear1"]["bias"]
    h = h / (1 + np.exp(-h)) @ p["time"]["linear2"]["weight"] + p["time"]["linear2"]["bias"]
    if classes:
        h = h + p["label"]["weight"][inputs["label"]]
    assert relative_error(emb, h / (1 + np.exp(-h))) <= 1e-13


@given(batches, sizes, channels, channels, st.sampled_from([0.0, 0.4]), seeds)
def test_residual(drawn, n, size, c_in, c_out, rate, seed):
    p = drawn(blocks.residual_layout(c_in, c_out, 6), seed)
    inputs = normal(seed, n, size, size, c_in), normal(seed + 1, n, 6), p
    key = Sequence(seed, 1 << 16, 3)
    check(
        lambda x, emb, p: blocks.residual(engine, p, x, emb, 2, rate, key),
        lambda dy, saved: blocks.residual_backward(engine, dy, saved),
        inputs,
        seed,
    )
    assert ("shortcut" in p) == (c_in != c_out)


@given(batches, sizes, channels, heads, seeds)
def test_attention(drawn, n, size, c, heads, seed):
    p = drawn(blocks.attention_layout(c), seed)
    check(
        lambda x, p: blocks.attention(engine, p, x, 2, heads),
        lambda dy, saved: blocks.attention_backward(engine, dy, saved),
        (normal(seed, n, size, size, c), p),
        seed,
    )


@given(batches, sizes, channels, st.sampled_from(["strided", "pooled"]), seeds)
def test_downsample(drawn, n, size, c, kind, seed):
    p = drawn(blocks.downsample_layout(c, kind), seed)
    x = normal(seed, n, size, size, c)
    check(
        lambda x, p: blocks.downsample(engine, p, x),
        lambda dy, saved: blocks.downsample_backward(engine, dy, saved),
        (x, p),
        seed,
    )
    y, _ = blocks.downsample(engine, p, x)
    assert y.shape == (n, size // 2, size // 2, c)
    # The window of an output pixel begins at the pixel twice as far in, and sees nothing before it.
    nudged = x.copy()
    nudged[:, 1, 1] += 1
    changed = np.abs(blocks.downsample(engine, p, nudged)[0] - y).max(axis=(0, 3)) > 0
    assert np.argwhere(changed).tolist() == [[0, 0]]


@given(batches, st.integers(1, 3), channels, seeds)
def test_upsample(drawn, n, size, c, seed):
    p = drawn(blocks.upsample_layout(c), seed)
    x = normal(seed, n, size, size, c)
    check(
        lambda x, p: blocks.upsample(engine, p, x),
        lambda dy, saved: blocks.upsample_backward(engine, dy, saved),
        (x, p),
        seed,
    )
    assert blocks.upsample(engine, p, x)[0].shape == (n, 2 * size, 2 * size, c)


@given(channels, heads, seeds)
def test_attention_block_does_not_know_where_a_pixel_is(drawn, c, heads, seed):
    x, p = normal(seed, 2, 16, c), drawn(blocks.attention_layout(c), seed)
    order = np.random.default_rng(seed).permutation(16)
    y, moved = (blocks.attention(engine, p, a.reshape(2, 4, 4, c), 2, heads)[0] for a in (x, x[:, order]))
    assert relative_error(moved.reshape(2, 16, c), y.reshape(2, 16, c)[:, order]) <= 1e-13


@given(channels, seeds)
def test_blocks_begin_as_the_identity(drawn, c, seed):
    """Their last layer being zero, whatever the others are."""
    x, emb = normal(seed, 2, 4, 4, c), normal(seed + 1, 2, 6)
    residual, attention = drawn(blocks.residual_layout(c, c, 6), seed), drawn(blocks.attention_layout(c), seed)
    for p, last in ((residual, "conv2"), (attention, "projection")):
        p[last] = tree_map(np.zeros_like, p[last])
    assert np.array_equal(blocks.residual(engine, residual, x, emb, 2)[0], x)
    assert np.array_equal(blocks.attention(engine, attention, x, 2, 2)[0], x)


@pytest.mark.parametrize("most", [1, 4, 8, 32])
def test_a_block_hears_the_time_however_many_groups_are_allowed(drawn, most):
    """The time shifts whole channels, and a norm of single channels would ignore the shift."""
    p, x = drawn(blocks.residual_layout(8, 8, 6), 0), normal(0, 2, 4, 4, 8)
    early, late = (blocks.residual(engine, p, x, normal(seed, 2, 6), most)[0] for seed in (1, 2))
    assert relative_error(late, early) > 1e-3


def test_dropout_wants_a_rate_and_a_key(drawn):
    p, x, emb = drawn(blocks.residual_layout(8, 8, 6), 0), normal(0, 2, 4, 4, 8), normal(1, 2, 6)
    key = Sequence(0, 1 << 16)
    plain, _ = blocks.residual(engine, p, x, emb, 2)
    for options in ({"rate": 0.5}, {"key": key}, {"rate": 0.0, "key": key}):
        assert np.array_equal(blocks.residual(engine, p, x, emb, 2, **options)[0], plain)
    assert not np.array_equal(blocks.residual(engine, p, x, emb, 2, 0.5, key)[0], plain)
