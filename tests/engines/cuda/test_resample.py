"""Images in other sizes on the CUDA engine."""

import numpy as np
import pytest
from emulator.agreement import check_agreement

from refdiff.engines import cuda, reference

SHAPES = [(1, 2, 2, 1), (2, 4, 6, 3), (1, 2, 4, 8), (2, 6, 2, 40), (3, 2, 2, 5)]


@pytest.mark.parametrize("name", ["upsample_nearest", "average_pool"])
@pytest.mark.parametrize("shape", SHAPES)
def test_resample(context, dtype, name, shape):
    check_agreement(context, name, (np.random.default_rng(0).standard_normal(shape),), dtype=dtype)


@pytest.mark.parametrize("shape", [(2, 3, 5, 8), (1, 1, 1, 3)])
def test_odd_sizes_can_be_doubled(context, dtype, shape):
    check_agreement(context, "upsample_nearest", (np.random.default_rng(0).standard_normal(shape),), dtype=dtype)


def test_odd_sizes_cannot_be_halved(context):
    with pytest.raises(AssertionError, match="even"):
        cuda.average_pool(context.array(np.zeros((1, 2, 3, 4))))


# Larger, smaller, one of each; not whole multiples; from and to a single pixel; channels that are packs and that are not.
@pytest.mark.parametrize("c", [3, 16])
@pytest.mark.parametrize(
    ("before", "after"),
    [((2, 3), (8, 12)), ((8, 6), (3, 2)), ((5, 4), (3, 9)), ((7, 7), (7, 7)), ((1, 1), (4, 3)), ((6, 5), (1, 1)),
     ((3, 2), (40, 2)), ((40, 3), (3, 5))],
)  # fmt: skip
def test_resize_bilinear(context, dtype, before, after, c):
    x = np.random.default_rng(c).standard_normal((2, *before, c))
    terms = 4 * max(1, after[0] // before[0]) * max(1, after[1] // before[1])
    check_agreement(context, "resize_bilinear", (x,), dtype=dtype, terms=terms, size=after)


def test_weights_are_exact_far_from_the_first_pixel(context):
    """One weight a pixel, of a line of 999 to 1,501 pixels: as the reference rounds them."""
    x = np.zeros((1, 999, 1, 1))
    x[0, 990:] = np.arange(9).reshape(9, 1, 1)
    y = cuda.host(cuda.resize_bilinear(context.array(x), (1501, 1))[0])
    np.testing.assert_allclose(y, reference.resize_bilinear(x, (1501, 1))[0], rtol=4e-7, atol=0)


@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 8), (1, 7, 9, 24), (2, 5, 7, 3), (2, 1, 1, 8), (2, 33, 65)])
def test_global_average_pool(context, dtype, shape):
    x = np.random.default_rng(0).standard_normal(shape)
    check_agreement(context, "global_average_pool", (x,), dtype=dtype, terms=int(np.prod(shape[1:-1])))


def test_the_parts_of_a_split_are_resized_too(context, dtype):
    x = context.array(np.random.default_rng(0).standard_normal((2, 3, 4, 8)), dtype)
    part = np.split(cuda.host(x), 2, axis=-1)[1].astype(np.float64)
    (_, right), _ = cuda.split(x, 2)
    for name, options in (
        ("resize_bilinear", {"size": (5, 7)}),
        ("global_average_pool", {}),
        ("scale", {"factor": 0.5}),
    ):
        actual, expected = getattr(cuda, name)(right, **options)[0], getattr(reference, name)(part, **options)[0]
        np.testing.assert_allclose(cuda.host(actual), expected, rtol=1e-2, atol=2e-2)
