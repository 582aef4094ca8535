"""Products in blocks against NumPy's in float64, of any shape and wherever the arrays lie."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines.cpu import products

EPS32 = 2.0**-24
WAYS = ["contiguous", "transposed", "rows", "columns", "part"]
heights, widths = [1, 15, 16, 17, 32, 45, 100, 256], [1, 31, 32, 64, 65, 96, 160, 192]
seeds = st.integers(0, 2**32 - 1)


def lying(a, way):
    """The same numbers (P, M, N) otherwise in memory: transposed, every second row or column, a part of longer rows."""
    p, m, n = a.shape
    if way == "transposed":
        view = np.empty((p, n, m), np.float32).swapaxes(1, 2)
    elif way == "rows":
        view = np.full((p, 2 * m, n), np.nan, np.float32)[:, ::2]
    elif way == "columns":
        view = np.full((p, m, 2 * n), np.nan, np.float32)[:, :, ::2]
    elif way == "part":
        view = np.full((p, m, n + 7), np.nan, np.float32)[:, :, 3:-4]
    else:
        view = np.empty(a.shape, np.float32)
    view[...] = a
    return view


def check(seed, p, m, k, n, ways):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((p, m, k)).astype(np.float32), rng.standard_normal((p, k, n)).astype(np.float32)
    out = lying(np.full((p, m, n), np.nan, np.float32), ways[2])
    products.product(lying(a, ways[0]), lying(b, ways[1]), out)
    expected = np.matmul(a.astype(np.float64), b.astype(np.float64))
    error = np.linalg.norm(out - expected) / np.linalg.norm(expected)
    assert error <= 4 * k**0.5 * EPS32


@given(st.integers(1, 3), st.sampled_from(heights), st.sampled_from([1, 7, 64, 200, 500]), st.sampled_from(widths),
       st.tuples(*3 * [st.sampled_from(WAYS)]), seeds)  # fmt: skip
def test_a_product_is_numpys(p, m, k, n, ways, seed):
    check(seed, p, m, k, n, ways)


@pytest.mark.parametrize(
    ("m", "k", "n"),
    [(64, 200, 96), (100, 200, 128), (100, 600, 64), (100, 1500, 32), (37, 1953, 32), (40, 1954, 32), (16, 3000, 64),
     (15, 700, 128), (100, 300, 100), (65, 200, 96)],
    ids=["32x32", "32x64 and rows left", "16x64 and rows left", "16x32", "just fits", "too deep", "far too deep",
         "too low", "not divisible", "one row left"],
)  # fmt: skip
@pytest.mark.parametrize("way", ["contiguous", "transposed"])
def test_each_kind_of_block_and_what_does_not_fit(m, k, n, way):
    check(0, 2, m, k, n, (way, "contiguous", "part"))


@pytest.fixture
def multiplied(monkeypatch):
    """multiplied(m, k, n): the sizes of the matrices that a product hands on."""

    def sizes(m, k, n):
        actual, matmul = [], np.matmul

        def seen(a, b, out):
            actual.append((a.shape[-2], a.shape[-1], b.shape[-1]))
            return matmul(a, b, out=out)

        with monkeypatch.context() as patch:
            patch.setattr(np, "matmul", seen)
            a, b = np.ones((1, m, k), np.float32), np.ones((1, k, n), np.float32)
            products.product(a, b, np.empty((1, m, n), np.float32))
        return actual

    return sizes


@pytest.mark.parametrize(("m", "k", "n"), [(100, 200, 128), (100, 600, 64), (100, 1500, 32)])
def test_large_products_are_made_in_blocks_that_are_small_enough(multiplied, m, k, n):
    blocks, rest = multiplied(m, k, n)
    assert np.prod(blocks) <= products.SMALL
    assert rest == (m % blocks[0], k, n)


@pytest.mark.parametrize(
    ("m", "k", "n"), [(100, 1954, 32), (100, 3000, 64), (15, 700, 128), (100, 300, 100), (96, 100, 64)]
)
def test_what_is_small_or_has_no_blocks_is_one_product(multiplied, m, k, n):
    assert multiplied(m, k, n) == [(m, k, n)]


@given(st.integers(1, 4), st.sampled_from([1, 31, 32, 33, 70]), st.sampled_from([1, 5, 64]), st.sampled_from(WAYS),
       st.sampled_from(WAYS), seeds)  # fmt: skip
def test_transposing_is_exact(p, m, n, way, way_out, seed):
    a = np.random.default_rng(seed).standard_normal((p, m, n)).astype(np.float32)
    out = lying(np.full((p, n, m), np.nan, np.float32), way_out)
    assert products.transposed(lying(a, way), out) is out
    np.testing.assert_array_equal(out, a.swapaxes(1, 2))
