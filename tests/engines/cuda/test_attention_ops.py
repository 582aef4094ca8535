"""Attention on the CUDA engine: every width of head, ragged lengths, pitched inputs, and what softmax means."""

import numpy as np
import pytest
from emulator.agreement import bound, check_agreement

from refdiff.engines import reference
from refdiff.engines.cuda import host
from refdiff.engines.cuda.attention_ops import KERNELS, attention, attention_backward, bfloat16_tiles
from refdiff.engines.cuda.runtime.context import Array
from refdiff.testing.measures import relative_error


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def parts(context, x, n, dtype):
    """x (..., n C) as n pitched arrays in one buffer."""
    whole = context.array(x, dtype)
    c = x.shape[-1] // n
    return whole, tuple(Array(whole.buffer, (*x.shape[:-1], c), whole.dtype, i * c, n * c) for i in range(n))


def gradients_as_one(gradients):
    """The array whose parts these are; AssertionError if they are not."""
    first, c = gradients[0], gradients[0].shape[-1]
    for i, a in enumerate(gradients):
        assert a.buffer is first.buffer
        assert (a.offset, a.pitch) == (i * c, len(gradients) * c)
    return Array(first.buffer, (*first.shape[:-1], len(gradients) * c), first.dtype)


@pytest.mark.parametrize(
    ("samples", "s", "length", "heads", "d"),
    [
        (2, 1, 2, 3, 16),
        (2, 7, 7, 2, 8),
        (1, 16, 65, 3, 12),
        (2, 65, 16, 1, 32),
        (1, 130, 9, 2, 40),
        (1, 5, 130, 2, 5),
        (1, 33, 40, 1, 96),
    ],
)
def test_agreement(context, dtype, samples, s, length, heads, d):
    inputs = (
        draw(samples, s, heads * d),
        draw(samples, length, heads * d, seed=1),
        draw(samples, length, heads * d, seed=2),
    )
    check_agreement(context, "attention", inputs, dtype=dtype, terms=d + length, heads=heads)


@pytest.mark.parametrize(
    ("s", "length", "d"),
    [
        (70, 33, 256),
        (16, 16, 512),
        pytest.param(64, 35, 160, marks=pytest.mark.slow),
        pytest.param(20, 17, 300, marks=pytest.mark.slow),
        pytest.param(256, 256, 256, marks=pytest.mark.slow),
    ],
)
def test_wide_heads(context, dtype, s, length, d):
    inputs = (draw(1, s, d), draw(1, length, d, seed=1), draw(1, length, d, seed=2))
    check_agreement(context, "attention", inputs, dtype=dtype, terms=d + length)


def test_long_sequence(context, dtype):
    inputs = tuple(draw(1, 256, 32, seed=i) for i in range(3))
    check_agreement(context, "attention", inputs, dtype=dtype, terms=32 + 256)


@pytest.mark.parametrize(("heads", "d"), [(2, 16), (3, 5)])
def test_parts_of_a_projection(context, dtype, heads, d):
    """q, k, v are read from one array, and their gradients written into one."""
    whole, (q, k, v) = parts(context, draw(2, 19, 3 * heads * d), 3, dtype)
    expected, wanted_saved = reference.attention(*np.split(host(whole).astype(np.float64), 3, axis=-1), heads)
    y, saved = attention(q, k, v, heads)
    assert relative_error(host(y), expected) <= bound(dtype, 64)

    dy = context.array(draw(*y.shape, seed=3), dtype)
    expected = np.concatenate(reference.attention_backward(host(dy).astype(np.float64), wanted_saved), axis=-1)
    dx = gradients_as_one(attention_backward(dy, saved))
    assert relative_error(host(dx), expected) <= bound(dtype, 64)


def test_keys_and_values_of_a_context(context, dtype):
    """Cross attention: q is dense, k and v are the parts of one array, and so are their gradients."""
    q = context.array(draw(2, 9, 48), dtype)
    whole, (k, v) = parts(context, draw(2, 21, 2 * 48, seed=1), 2, dtype)
    expected, wanted_saved = reference.attention(
        host(q).astype(np.float64), *np.split(host(whole).astype(np.float64), 2, axis=-1), 2
    )
    y, saved = attention(q, k, v, 2)
    assert relative_error(host(y), expected) <= bound(dtype, 64)

    dy = context.array(draw(*y.shape, seed=3), dtype)
    expected = reference.attention_backward(host(dy).astype(np.float64), wanted_saved)
    dq, *others = attention_backward(dy, saved)
    assert dq.dense
    assert relative_error(host(dq), expected[0]) <= bound(dtype, 64)
    assert relative_error(host(gradients_as_one(others)), np.concatenate(expected[1:], axis=-1)) <= bound(dtype, 64)


@pytest.mark.parametrize("all_negative", [False, True])
def test_large_scores_do_not_overflow(context, dtype, all_negative):
    """Scores of some thousands: nearly one key a row, in the forward and when p is worked out again; and where all are
    far below zero, a key that is not there, whose score would be 0, must not matter."""
    inputs = (30 * draw(1, 40, 32), 30 * draw(1, 70, 32, seed=1), draw(1, 70, 32, seed=2))
    if all_negative:
        inputs = (abs(inputs[0]), -abs(inputs[1]), inputs[2])
    q, k, v = (context.array(a, dtype) for a in inputs)
    q64, k64, v64 = (host(a).astype(np.float64) for a in (q, k, v))
    expected, _ = reference.attention(q64, k64, v64)
    y, saved = attention(q, k, v)
    # Scores are off by |z| eps, which is what p is off by, relatively.
    most = max(bound(dtype, 70), 4 * abs(q64 @ k64.swapaxes(-1, -2)).max() / 32**0.5 * 2.0**-24)
    assert relative_error(host(y), expected) <= most
    gradients = attention_backward(context.array(draw(*y.shape, seed=3), dtype), saved)
    assert all(np.isfinite(host(a)).all() for a in gradients)


def test_equal_values_come_back(context, dtype):
    """Rows of p sum to one."""
    q, k = context.array(draw(1, 37, 24), dtype), context.array(draw(1, 67, 24, seed=1), dtype)
    y, _ = attention(q, k, context.array(np.ones(k.shape), dtype), heads=3)
    np.testing.assert_allclose(host(y), 1, rtol=2.0**-8 if dtype == "bfloat16" else 2e-6)


def test_order_of_keys_does_not_matter(context, dtype):
    q, k, v = (draw(1, 20, 32, seed=i) for i in range(3))
    order = np.random.default_rng(0).permutation(20)
    a, _ = attention(*(context.array(x, dtype) for x in (q, k, v)))
    b, _ = attention(*(context.array(x, dtype) for x in (q, k[:, order], v[:, order])))
    assert relative_error(host(a), host(b)) <= bound(dtype, 32)


def test_one_key_is_the_answer(context, dtype):
    """p = 1: y is v, dv the sum of dy over the queries, and neither q nor k matters."""
    q, k, v, dy = (context.array(draw(2, n, 16, seed=n), dtype) for n in (5, 1, 1, 5))
    y, saved = attention(q, k, v)
    np.testing.assert_array_equal(host(y), np.broadcast_to(host(v), y.shape))
    dq, dk, dv = attention_backward(dy, saved)
    assert abs(host(dq)).max() <= bound(dtype, 16)
    assert abs(host(dk)).max() <= bound(dtype, 16)
    assert relative_error(host(dv), host(dy).sum(axis=1, keepdims=True)) <= bound(dtype, 5)


def test_shared_memory_suffices_everywhere():
    """99 KiB are what a block may have on every GPU from sm_80 on."""
    for d in range(1, 513):
        assert max(bfloat16_tiles(name, d).shared for name in KERNELS) <= 99 << 10


def test_too_wide_a_head_is_refused(context):
    x = context.array(draw(1, 2, 520))
    with pytest.raises(ValueError, match="at most 512 channels"):
        attention(x, x, x)
