"""The arena: places do not overlap, and what is free joins its neighbours."""

from importlib import import_module
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

arena = import_module("refdiff.engines.cpu.runtime.arena")


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40_000)), max_size=60))
def test_places_of_an_arena_do_not_overlap_and_come_back(steps):
    own, held, most, now = arena.Arena(), [], 0, 0
    for give_back, count in steps:
        if give_back and held:
            now -= held.pop(count % len(held)).nbytes
        else:
            a = own.empty((count,))
            a[:] = len(held)
            held.append(a)
            now += a.nbytes
        most = max(most, now)
        starts = sorted((a.__array_interface__["data"][0], a.nbytes) for a in held)
        assert all(start + size <= later for (start, size), (later, _) in pairwise(starts))
    assert own.bytes <= 2 * most + 4096 * len(steps)
    a = None
    held.clear()
    assert [start for _, start, _ in own.free] == [0] * len({region for region, _, _ in own.free}), (
        "free neighbours are one"
    )
    assert bool(own.free) == bool(own.bytes)


def test_an_arena_grows():
    own = arena.Arena(region=1 << 16)
    arrays = [own.empty((n,)) for n in (5000, 5000, 50_000, 5000)]
    for i, a in enumerate(arrays):
        a[:] = i
    assert [a[0] for a in arrays] == [0, 1, 2, 3]
    assert own.bytes >= sum(a.nbytes for a in arrays)
    view = arrays[1][10:20]
    del arrays, a
    assert own.free == [(0, 0, 20480), (0, 40960, 1 << 16), (1, 0, 200704)]
    del view
    assert own.free == [(0, 0, 1 << 16), (1, 0, 200704)]
