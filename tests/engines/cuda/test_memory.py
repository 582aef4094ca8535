"""Arrays on a device: where they live, how long, what comes back, and that captured work is the work itself."""

from itertools import pairwise

import numpy as np
import pytest
from emulator import COMPILER, Emulator
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines.cuda.activation import silu
from refdiff.engines.cuda.array import ITEMSIZE, Array, dtype_name
from refdiff.engines.cuda.context import Context, current, use
from refdiff.engines.cuda.device import DeviceError
from refdiff.engines.cuda.memory import ALIGNMENT, Arena, Separate
from refdiff.engines.cuda.tensor_ops import host


class Addresses:
    """A device of addresses alone, aligned to 16 bytes and no more."""

    name = "addresses"

    def __init__(self, room=1 << 40):
        self.room, self.next, self.given = room, 16, {}

    def free_bytes(self):
        return self.room - sum(self.given.values())

    def reserve(self, nbytes):
        pointer, self.next = self.next, self.next + -(-nbytes // 16) * 16 + 48
        self.given[pointer] = nbytes
        return pointer

    def release(self, pointer):
        del self.given[pointer]


BLOCK = 1 << 14
calls = st.lists(st.one_of(st.integers(0, 3 * BLOCK), st.floats(0, 1, exclude_max=True)), max_size=60)


def play(arena, calls, check=lambda live: None):
    """An integer allocates so many bytes, a fraction frees that one of the living; -> the addresses given."""
    live, addresses = [], []
    for call in calls:
        if isinstance(call, int):
            addresses.append(arena.allocate(call))
            live.append((addresses[-1], call))
        elif live:
            arena.free(live.pop(int(call * len(live)))[0])
        check(live)
    return addresses, live


@given(calls)
def test_an_arena_keeps_arrays_apart(calls):
    device = Addresses()
    arena = Arena(device, BLOCK)
    peak = 0

    def check(live):
        nonlocal peak
        sizes = [-(-max(n, 1) // ALIGNMENT) * ALIGNMENT for _, n in live]
        assert arena.used == sum(sizes)
        peak = max(peak, arena.used)
        assert arena.peak == peak
        spans = sorted((p, p + size) for (p, _), size in zip(live, sizes, strict=True))
        assert all(p % ALIGNMENT == 0 for p, _ in spans)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans)), "two overlap"
        for start, end in spans:
            assert any(base <= start and end <= base + n for base, n in device.given.items()), (
                "outside of what was reserved"
            )

    addresses, live = play(arena, calls, check)
    assert arena.reserved == sum(device.given.values())
    assert play(Arena(Addresses(), BLOCK), calls)[0] == addresses, "the same calls give the same addresses"
    for pointer, _ in live:
        arena.free(pointer)
    assert arena.used == 0
    assert len(arena._free) == len(device.given), "free neighbours are one"
    blocks = len(device.given)
    for base in sorted(device.given):  # and are as large as at first
        arena.allocate(device.given[base] - 2 * ALIGNMENT)
    assert len(device.given) == blocks


def test_the_first_that_fits():
    arena = Arena(Addresses(), BLOCK)
    a, b, c, d = (arena.allocate(n) for n in (1000, 200, 300, 1))
    assert (b - a, c - b, d - c) == (1024, 256, 512)
    arena.free(a)
    arena.free(c)
    assert arena.allocate(257) == a
    assert arena.allocate(513) == d + 256, "neither hole has room"
    assert arena.allocate(512) == a + 512
    assert arena.allocate(512) == c


def test_an_arena_closes_with_its_last_array():
    device = Addresses()
    arena = Arena(device, BLOCK)
    pointer = arena.allocate(10)
    arena.close()
    assert device.given
    with pytest.raises(AssertionError, match="closed"):
        arena.allocate(1)
    arena.free(pointer)
    assert not device.given


def test_too_little_memory_is_said_in_numbers():
    arena = Arena(Addresses(room=200 << 20))
    arena.allocate(1)
    with pytest.raises(DeviceError, match=r"on addresses: 64 MiB .*, 150 MiB more .*, 135 MiB are free; lower"):
        arena.allocate(150 << 20)
    arena.allocate(100 << 20)


def test_an_array_lives_as_long_as_its_last_view():
    for memory in (Arena, Separate):
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
    came = host(Context(device, Separate(device)).array(x, "bfloat16"))
    finite = np.isfinite(x)
    np.testing.assert_array_equal(came[finite].view(np.uint32), nearest_bfloat16(x[finite]).view(np.uint32))
    np.testing.assert_array_equal(np.isnan(came), np.isnan(x))
    np.testing.assert_array_equal(came[np.isinf(x)], x[np.isinf(x)])


@pytest.mark.skipif(COMPILER is None, reason="the emulator needs g++")
def test_what_is_captured_is_the_work_itself():
    """A replay gives what the launches give, from the inputs as they are then, at the same addresses."""
    context = Context(Emulator())
    x, y = context.array(np.ones(100)), []

    def step():
        y[:] = [silu(silu(x)[0])[0]]

    step()
    address, ran = y[0].pointer, len(context.device.launches)
    y.clear()
    graph = context.capture(step)
    assert graph.launches == 2
    assert y[0].pointer == address
    assert len(context.device.launches) == ran, "a capture runs nothing"
    for value in (1.0, -2.0, 0.5):
        context.device.write(x.pointer, np.full(100, value, np.float32))
        graph.replay()
        np.testing.assert_array_equal(host(y[0]), host(silu(silu(context.array(np.full(100, value)))[0])[0]))


def test_copies_and_waiting_are_refused_during_a_capture(context):
    x = context.array(np.ones(3))
    for step, why in [
        (lambda: host(x), "copy to the host"),
        (lambda: context.device.write(x.pointer, np.ones(3, np.float32)), "copy from the host"),
        (lambda: Context(context.device).empty((3,)), "cannot be reserved"),
        (context.device.synchronise, "cannot wait"),
        (context.device.begin_capture, "do not nest"),
    ]:
        with pytest.raises(AssertionError, match=why):
            context.capture(step)
    assert host(x).sum() == 3, "a capture that failed is over"


def test_the_context_in_use(context):
    other = Context(context.device)
    assert current() is context
    with use(other), use(context):
        assert current() is context
    with use(other):
        assert current() is other
    assert current() is context
