"""Rows of a table and sinusoids of time on the CUDA engine."""

import numpy as np
import pytest
from emulator.agreement import bound

from refdiff.engines import cuda, reference
from refdiff.testing.measures import relative_error


@pytest.mark.parametrize(
    ("shape", "rows", "c"), [((5,), 3, 8), ((2, 3), 4, 5), ((1,), 1, 1), ((40,), 6, 136), ((), 2, 4)]
)
@pytest.mark.parametrize("on_device", [False, True])
def test_embedding(context, dtype, shape, rows, c, on_device):
    rng = np.random.default_rng(c)
    index, weight = rng.integers(0, rows, shape), context.array(rng.standard_normal((rows, c)), dtype)
    given = context.array(index, "int32") if on_device else index
    y, saved = cuda.embedding(given, weight=weight)
    wanted, wanted_saved = reference.embedding(index, cuda.host(weight).astype(np.float64))
    assert np.array_equal(cuda.host(y), wanted)
    dy = context.array(rng.standard_normal(y.shape), dtype)
    g, again = (cuda.embedding_backward(dy, saved)["weight"] for _ in range(2))
    assert g.dtype == "float32"
    assert cuda.host(g).tobytes() == cuda.host(again).tobytes()
    wanted = reference.embedding_backward(cuda.host(dy).astype(np.float64), wanted_saved)["weight"]
    assert np.linalg.norm(cuda.host(g) - wanted) <= bound("float32", 40) * np.linalg.norm(wanted)


def test_embedding_refuses_what_is_no_row(context):
    weight = context.array(np.zeros((3, 4)))
    for index in ([3], [-1], [0.0]):
        with pytest.raises(AssertionError, match="expected"):
            cuda.embedding(np.array(index), weight)


@pytest.mark.parametrize("channels", [4, 5, 16, 129])
@pytest.mark.parametrize("convention", ["ddpm", "adm"])
@pytest.mark.parametrize("on_device", [False, True])
def test_time_embedding(context, dtype, channels, convention, on_device):
    t = np.array([0, 1, 2, 500, 1000, 123456])
    y = cuda.time_embedding(context.array(t, "int32") if on_device else t, channels, convention, dtype)
    wanted = reference.time_embedding(t, channels, convention, np.float64)
    assert (y.dtype, y.shape) == (dtype, wanted.shape)
    assert relative_error(cuda.host(y), wanted) <= bound(dtype)
    assert np.abs(cuda.host(y) - wanted).max() <= (2.0**-8 if dtype == "bfloat16" else 1e-7)
