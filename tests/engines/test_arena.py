"""Places of an arena: apart, the lowest first, and what is free joins its neighbours but not those of another region."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines.arena import Places

REGION = 100
steps = st.lists(st.one_of(st.integers(1, REGION), st.floats(0, 1, exclude_max=True)), max_size=60)


def play(steps):
    """An integer takes so many units, in a new region right behind the last where there is none; a fraction gives one of
    those taken back.   -> places, what is taken at the end, the most that was, how many regions, the starts given."""
    places, taken, most, regions, starts = Places(), [], 0, 0, []
    for step in steps:
        if isinstance(step, int):
            expected = next((start for start, size in places.free if size >= step), None)
            start = places.take(step)
            assert start == expected, "the lowest that is large enough"
            if start is None:
                places.add_region(REGION * regions, REGION)
                regions += 1
                start = places.take(step)
            taken.append((start, step))
            starts.append(start)
        elif taken:
            places.give_back(taken.pop(int(step * len(taken)))[0])
        most = max(most, sum(size for _, size in taken))
        check(places, taken, regions)
    return places, taken, most, regions, starts


def check(places, taken, regions):
    """What is taken and what is free are all there is, and do not overlap."""
    spans = sorted([*taken, *places.free])
    assert all(start + size <= later for (start, size), (later, _) in pairwise(spans))
    assert sum(size for _, size in spans) == REGION * regions
    assert all(start // REGION == (start + size - 1) // REGION for start, size in spans), "none lies in two regions"
    assert all(a + size < b or b % REGION == 0 for (a, size), (b, _) in pairwise(places.free)), "neighbours are one"
    assert places.used == sum(size for _, size in taken)


@given(steps)
def test_places(steps):
    places, taken, most, regions, starts = play(steps)
    assert places.peak == most
    assert play(steps)[-1] == starts, "the same calls give the same places"
    for start, _ in taken:
        places.give_back(start)
    assert places.free == tuple((REGION * i, REGION) for i in range(regions))
    assert (places.used, places.peak) == (0, most)


def test_the_lowest_that_is_large_enough():
    places = Places()
    assert places.take(1) is None
    places.add_region(1000, 50)
    places.add_region(0, 10)
    assert [places.take(size) for size in (4, 20, 6, 31)] == [0, 1000, 4, None]
    places.give_back(0)
    assert places.free == ((0, 4), (1020, 30))
    assert [places.take(5), places.take(4)] == [1020, 0]


def test_what_is_not_taken_cannot_be_given_back():
    places = Places()
    places.add_region(0, 10)
    places.take(4)
    with pytest.raises(KeyError):
        places.give_back(1)
    places.give_back(0)
    with pytest.raises(KeyError):
        places.give_back(0)
    places.clear()
    assert (places.free, places.used, places.peak) == ((), 0, 4)
    with pytest.raises(AssertionError, match="at least 1"):
        places.take(0)


@pytest.mark.parametrize("order", [(0, 10), (10, 0)])
def test_regions_that_touch_stay_apart(order):
    """Both are taken whole and given back in either order: no place lies in two regions."""
    places = Places()
    for start in (0, 10):
        places.add_region(start, 10)
        assert places.take(10) == start
    for start in order:
        places.give_back(start)
    assert places.free == ((0, 10), (10, 10))
    assert places.take(11) is None
