"""The arena of a device: arrays apart and aligned, the same calls the same addresses, all given back at the end."""

import gc
from itertools import pairwise

import pytest
from addresses import Addresses
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import Context
from refdiff.engines.cuda.runtime.device import DeviceError
from refdiff.engines.cuda.runtime.memory import ALIGNMENT, require_memory

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
    assert len(arena.free_places) == len(device.given), "free neighbours are one"
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
    assert arena.allocate(513) == d + 256, "neither hole is large enough"
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
    arena = Arena(Addresses(capacity=200 << 20))
    arena.allocate(1)
    with pytest.raises(DeviceError, match=r"on addresses: 64 MiB .*, 150 MiB more .*, 135 MiB are free; lower"):
        arena.allocate(150 << 20)
    arena.allocate(100 << 20)


def test_an_arena_that_goes_with_its_arrays_in_a_cycle(monkeypatch):
    """Whichever of them the collector ends first, all goes back to the device once, and nobody complains."""
    failures = []
    monkeypatch.setattr("sys.unraisablehook", failures.append)
    device = Addresses()
    for order in (lambda *x: x, lambda *x: x[::-1]):
        context = Context(device, Arena(device, BLOCK))
        cycle = list(order(context.memory, context.empty((3,)), context.empty((4,))))
        cycle.append(cycle)
        del context, cycle
        gc.collect()
    assert not device.given
    assert not failures


def test_more_than_there_is_is_refused_in_numbers():
    device = Addresses(capacity=3 << 30)
    assert require_memory(device, 1 << 30, "this needs", "take less") == (1 << 30) + ALIGNMENT
    match = r"on addresses: this needs 3.00 GiB, 3.00 GiB are free; take less, take dtype=.bfloat16. or engine=.cpu"
    with pytest.raises(DeviceError, match=match):
        require_memory(device, 3 << 30, "this needs", "take less")
