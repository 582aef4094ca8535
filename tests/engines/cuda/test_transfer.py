"""What comes back from the device, also where its rows do not lie together."""

import numpy as np
import pytest

from refdiff.engines import cuda
from refdiff.engines.cuda.runtime.context import Array


@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 3, 12), (0, 6), (1, 1, 3)])
def test_the_parts_of_a_split(context, dtype, shape):
    """Each is read where it lies: nothing is launched, and nothing past its last element is looked at."""
    x = context.array(np.arange(np.prod(shape)).reshape(shape), dtype)
    parts, _ = cuda.split(x, 3)
    before = len(context.device.launches)
    for part, expected in zip(parts, np.split(cuda.host(x), 3, axis=-1), strict=True):
        actual = cuda.host(part)
        assert (actual.shape, actual.dtype, actual.flags.writeable) == (expected.shape, np.float32, True)
        np.testing.assert_array_equal(actual, expected)
    assert len(context.device.launches) == before


def test_a_part_of_a_row(context):
    x = context.array(np.arange(10), "int32")
    np.testing.assert_array_equal(cuda.host(Array(x.buffer, (3,), "int32", 5)), [5, 6, 7])
    number = cuda.host(Array(x.buffer, (), "int32", 9))
    assert (number.shape, int(number)) == ((), 9)
