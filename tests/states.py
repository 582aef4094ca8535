"""What the tests of training compare: the states of two runs, number by number and bit by bit."""

import numpy as np

from refdiff.data import load
from refdiff.models import flatten
from refdiff.training import TREES

DIGITS, LABELS = load("digits").x, load("digits").labels


def batches(sizes):
    """Batches of digits of these sizes, one after another."""
    ends = np.cumsum(sizes)
    return [{"x": DIGITS[end - n : end]} for n, end in zip(sizes, ends, strict=True)]


def bits(state):
    """Everything that a state holds; arrays as their bytes."""
    trees = {f"{tree}/{name}": leaf for tree in TREES for name, leaf in flatten(state.trees[tree]).items()}
    trees |= {f"memory/{name}": leaf for name, leaf in flatten(state.memory).items()}
    arrays = {name: (str(leaf.dtype), leaf.shape, leaf.tobytes()) for name, leaf in trees.items()}
    return {"step": state.step, "samples_seen": state.samples_seen, "updates": state.updates, **arrays}


def difference(actual, expected):
    """The largest relative difference, in norm, of an array of two trees; those that are zero are left out."""
    actual, expected = flatten(actual), flatten(expected)
    assert actual.keys() == expected.keys()
    pairs = [(actual[name], leaf) for name, leaf in expected.items() if np.abs(leaf).max() > 1e-9]
    assert pairs or not expected
    return max((np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs), default=0.0)


def assert_goes_on(worker, first, batch):
    """Two steps, and two more from the state that they led to, lead to the bit where four steps lead.

    worker(state, *order) -> a trainer, on a device of another order of threads where one is given; batch(i): of step i."""
    full, half = worker(first), worker(first)
    for i in range(4):
        full.step(batch(i))
    for i in range(2):
        half.step(batch(i))
    rest = worker(half.state(), 3)
    for i in range(2, 4):
        rest.step(batch(i))
    assert bits(full.state()) == bits(rest.state())
