"""Group norm and layer norm on the CUDA engine."""

import numpy as np
import pytest
from emulator.agreement import EPS32, check_agreement

from refdiff.engines import reference
from refdiff.engines.cuda import host, norm, split_backward
from refdiff.engines.cuda.runtime.context import Array
from refdiff.testing.measures import relative_error


def drawn(shape, seed=0):
    """x, scale, shift, and the parameters; weights away from zero."""
    rng, (n, c) = np.random.default_rng(seed), (shape[0], shape[-1])
    x = 0.5 + 2 * rng.standard_normal(shape)
    scale, shift = rng.standard_normal((2, n, c))
    return x, scale, shift, {"weight": 1 + 0.3 * rng.standard_normal(c), "bias": rng.standard_normal(c)}


def check(context, name, shape, groups, dtype):
    x, scale, shift, p = drawn(shape)
    inputs = (x, scale, shift) if name.startswith("adaptive") else (x,)
    check_agreement(context, name, inputs, p, dtype=dtype, terms=max(x.size // shape[-1], x[0].size), groups=groups)


# Two channels a group inside a pack; a group of one and a half packs; channels that are no packs; one position.
@pytest.mark.parametrize(
    ("shape", "groups"), [((2, 3, 5, 16), 8), ((3, 37, 24), 2), ((2, 7, 3, 6), 3), ((1, 9, 5), 1), ((2, 24), 3)]
)
def test_adaptive_group_norm_silu(context, dtype, shape, groups):
    check(context, "adaptive_group_norm_silu", shape, groups, dtype)


@pytest.mark.parametrize(("name", "dtype"), [("group_norm", "float32"), ("group_norm_silu", "bfloat16")])
def test_group_norm(context, name, dtype):
    check(context, name, (2, 5, 4, 32), 8, dtype)


# Rows longer than a block, packed and not, groups of more channels than a warp has lanes, a last chunk cut short.
@pytest.mark.parametrize(("shape", "groups"), [((1, 130, 1032), 4), ((2, 70, 259), 7)])
def test_long_rows(context, shape, groups):
    check(context, "adaptive_group_norm_silu", shape, groups, "float32")


@pytest.mark.parametrize("chunks", [1, 2])
def test_many_rows_a_thread(context, monkeypatch, chunks, dtype):
    monkeypatch.setattr(norm, "MAX_CHUNKS", chunks)
    check(context, "adaptive_group_norm_silu", (2, 19, 43, 16), 2, dtype)


def test_scale_and_shift_may_be_parts_of_a_split(context, dtype):
    x, scale, shift, p = drawn((3, 5, 8))
    x, both = context.array(x, dtype), context.array(np.concatenate([scale, shift], 1), dtype)
    parts = [Array(both.buffer, scale.shape, dtype, offset, 16) for offset in (0, 8)]
    p = {key: context.array(a) for key, a in p.items()}
    results, launches = [], context.device.launches
    for given in (parts, [context.array(a, dtype) for a in (scale, shift)]):
        y, saved = norm.adaptive_group_norm_silu(x, *given, **p, groups=2)
        dx, dscale, dshift, g = norm.adaptive_group_norm_silu_backward(y, saved)
        assert [kernel.name for kernel in launches] == [
            "group_statistics", "group_norm", "group_sums", "group_norm_backward"
        ]  # fmt: skip
        joined = split_backward((dscale, dshift), None)
        assert len(launches) == 4, "the gradients of a split are joined without a copy"
        assert np.array_equal(host(joined), np.concatenate([host(dscale), host(dshift)], axis=1))
        launches.clear()
        results.append([host(a).tobytes() for a in (y, dx, dscale, dshift, g["weight"], g["bias"])])
    assert results[0] == results[1]


@pytest.mark.parametrize("chunks", [1, 32])
def test_a_large_mean(context, monkeypatch, chunks):
    """mean 1000, sd 0.1 in float32, against float64 of the same float32 numbers. A mean in float32 is off by some 2^-24 of
    1000, so xhat by 2^-24 |mean| / sd; 1 / sd by the mean of many such errors, for which 1 / 100 is room enough."""
    most = 4 * EPS32 * 1000 / 0.1
    monkeypatch.setattr(norm, "MAX_CHUNKS", chunks)
    x = np.random.default_rng(1).normal(1000, 0.1, (2, 300, 16)).astype(np.float32)
    p = {"weight": np.ones(16), "bias": np.zeros(16)}
    y, saved = norm.group_norm(context.array(x), **{k: context.array(a) for k, a in p.items()}, groups=4)
    expected, (_, sd, _) = reference.group_norm(x.astype(np.float64), **p, groups=4)
    assert relative_error(host(saved[2]), 1 / sd.reshape(2, 4)) <= most / 100
    assert relative_error(host(y), expected) <= most

    y, saved = norm.layer_norm(context.array(x), **{k: context.array(a) for k, a in p.items()})
    expected, (_, sd, _) = reference.layer_norm(x.astype(np.float64), **p)
    assert relative_error(host(saved[2]), 1 / sd.ravel()) <= most / 100
    assert relative_error(host(y), expected) <= most


@pytest.mark.parametrize("shape", [(5, 7), (37, 64), (2, 3, 40), (3, 1040)])
def test_layer_norm(context, dtype, shape):
    rng = np.random.default_rng(2)
    x, weight, bias = (
        rng.standard_normal(shape),
        1 + 0.3 * rng.standard_normal(shape[-1]),
        rng.standard_normal(shape[-1]),
    )
    check_agreement(
        context,
        "layer_norm",
        (x,),
        {"weight": weight, "bias": bias},
        dtype=dtype,
        terms=max(shape[-1], x.size // shape[-1]),
    )
