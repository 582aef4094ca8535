"""Arrays on a device: where they live, how long, and what comes back."""

import numpy as np
import pytest
from addresses import Addresses
from emulator import Emulator
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import ITEMSIZE, Array, Context, current, dtype_name, use
from refdiff.engines.cuda.runtime.memory import PerArrayAllocator
from refdiff.engines.cuda.transfer import host


def test_an_array_lives_as_long_as_its_last_view():
    for memory in (Arena, PerArrayAllocator):
        device = Addresses()
        context = Context(device, memory(device))
        x = context.empty((4, 6), "bfloat16")
        part = Array(x.buffer, (4, 3), x.dtype, offset=3, pitch=6)
        view = x.view((2, 12))
        pointer = x.pointer
        assert (part.pointer, part.dense, view.pointer, view.dense, x.nbytes) == (pointer + 6, False, pointer, True, 48)
        del x, view
        assert context.empty((4, 6), "bfloat16").pointer != pointer
        del part
        if memory is Arena:
            assert context.empty((4, 6), "bfloat16").pointer == pointer
        else:
            assert device.given == {}


def test_the_names_of_types():
    assert [dtype_name(d) for d in (np.float32, "bfloat16", np.dtype("int32"))] == ["float32", "bfloat16", "int32"]
    with pytest.raises(ValueError, match=r"dtype: expected one of float32, .*, got complex64"):
        dtype_name(np.complex64)


@pytest.mark.parametrize("name", sorted(set(ITEMSIZE) - {"bfloat16"}))
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 3, 5)])
def test_what_goes_to_the_device_comes_back(context, name, shape):
    x = np.random.default_rng(0).integers(0, 1 << 20, shape).astype(name)
    y = host(context.array(x, name))
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(host(context.array(x.T, name)), x.T)


def nearest_bfloat16(x):
    """By distances, in float64: of the two neighbours the nearer, of equally near ones the even."""
    low = x.view(np.uint32) & np.uint32(0xFFFF0000)
    high = low + np.uint32(0x10000)
    value = lambda bits: np.where(  # noqa: E731  past the largest comes 2^128
        (bits & 0x7FFFFFFF) == 0x7F800000,
        np.copysign(2.0**128, x.astype(np.float64)),
        bits.view(np.float32).astype(np.float64),
    )
    down, up = abs(x.astype(np.float64) - value(low)), abs(x.astype(np.float64) - value(high))
    odd = (low >> 16) & 1 == 1
    return np.where((up < down) | ((up == down) & odd), high, low).view(np.float32)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_bfloat16_is_the_nearest(words):
    ties = [w & 0xFFFF0000 | tail for w in words for tail in (0x7FFF, 0x8000, 0x8001)]
    x = np.array([*words, *ties, 0x7F7FFFFF, 0x7F7F7FFF, 0xFF7F8000, 0x80000001], np.uint32).view(np.float32)
    device = Emulator()
    actual = host(Context(device, PerArrayAllocator(device)).array(x, "bfloat16"))
    finite = np.isfinite(x)
    np.testing.assert_array_equal(actual[finite].view(np.uint32), nearest_bfloat16(x[finite]).view(np.uint32))
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(x))
    np.testing.assert_array_equal(actual[np.isinf(x)], x[np.isinf(x)])


def test_the_context_in_use(context):
    other = Context(context.device)
    assert current() is context
    with use(other), use(context):
        assert current() is context
    with use(other):
        assert current() is other
    assert current() is context


def test_a_context_is_a_device_with_its_memory(context):
    """An array knows its memory, and by it the context that it came from."""
    other = Context(context.device)
    for origin in (context, other):
        x = origin.empty((3,))
        assert (x.context.device, x.context.memory) == (origin.device, origin.memory)
        assert x.buffer.memory is origin.memory
