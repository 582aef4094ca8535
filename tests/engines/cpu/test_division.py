"""Every operation does a batch in two halves: what it gives has the bits of what both halves give alone."""

import numpy as np
import pytest
from engines.cpu.operation_cases import CASES, both, draw

from refdiff.engines import cpu
from refdiff.engines.cpu import linear_ops, winograd
from refdiff.engines.cpu.division import halves, rows, undivided
from refdiff.random import Sequence


@pytest.mark.parametrize(("block", "together"), [(8 << 20, 4 << 20), (1 << 14, 0)], ids=["as it is", "in many blocks"])
@pytest.mark.parametrize("name", CASES)
def test_the_whole_is_its_two_halves_to_the_bit(name, block, together, monkeypatch):
    monkeypatch.setattr(winograd, "BLOCK", block)
    monkeypatch.setattr(winograd, "TOGETHER", together)
    operation, shapes, sizes, options = CASES[name]
    forward, backward = getattr(cpu, operation), getattr(cpu, f"{operation}_backward")
    inputs = [draw(shape, i) for i, shape in enumerate(shapes)]
    parameters = {key: draw(size, 5 + i) for i, (key, size) in enumerate(sizes.items())}
    y, dx, g = both(name, inputs, parameters)
    if operation == "mean_squared_error":
        assert_halves_of_the_loss(y, dx, inputs)
        return
    n, dy = len(y), draw((9, *y.shape[1:]), 9)
    parts = []
    for half in halves(n):
        with undivided():
            y_half, saved = forward(*(x[half] for x in inputs), **parameters, **options)
            came = backward(dy[half], saved)
        *dx_half, g_half = came if isinstance(came, tuple) else (came,)
        if not isinstance(g_half, dict):
            dx_half, g_half = [*dx_half, g_half], {}
        parts.append((y_half, dx_half, g_half))
    first, second = parts
    assert np.array_equal(y, np.concatenate([first[0], second[0]]))
    for whole, a, b in zip(dx, first[1], second[1], strict=True):
        assert np.array_equal(whole, np.concatenate([a, b]))
    assert g.keys() == parameters.keys()
    for key in g:
        assert np.array_equal(g[key], first[2][key] + second[2][key])


def assert_halves_of_the_loss(loss, dx, inputs):
    total, pieces = 0.0, []
    for half in halves(len(inputs[0])):
        share = len(inputs[0][half]) / len(inputs[0])
        with undivided():
            part, saved = cpu.mean_squared_error(*(x[half] for x in inputs))
            pieces.append(cpu.mean_squared_error_backward(share, saved))
        total += share * float(part)
    assert total == loss
    assert np.array_equal(dx[0], np.concatenate(pieces))


@pytest.mark.parametrize("block", [8 << 20, 1 << 14], ids=["as it is", "in many blocks"])
@pytest.mark.parametrize("name", CASES)
def test_halves_that_are_done_at_once_have_the_same_bits(use_threads, name, block, monkeypatch):
    monkeypatch.setattr(winograd, "BLOCK", block)
    monkeypatch.setattr(winograd, "LARGE", 0)
    monkeypatch.setattr(linear_ops, "WORK", 0)
    _, shapes, sizes, _ = CASES[name]
    inputs = [draw(shape, i) for i, shape in enumerate(shapes)]
    parameters = {key: draw(size, 5 + i) for i, (key, size) in enumerate(sizes.items())}
    results = []
    for count in (1, 2, 3, 8):
        use_threads(count)
        y, dx, g = both(name, inputs, parameters)
        results.append([a.tobytes() for a in (y, *dx, *g.values())])
    assert all(result == results[0] for result in results[1:])


def test_dropout_of_a_half_knows_its_first_sample():
    x, key = draw((5, 300)), Sequence(1, 2, 3)
    whole = cpu.dropout(x, 0.3, key)[0]
    for half in halves(5):
        assert np.array_equal(cpu.dropout(x[half], 0.3, key._replace(first=half.start))[0], whole[half])


def test_the_first_half_is_never_the_smaller_one():
    assert [halves(n) for n in (1, 2, 5)] == [[slice(0, 1)], [slice(0, 1), slice(1, 2)], [slice(0, 3), slice(3, 5)]]
    assert rows((5, 2, 3, 7)) == [slice(0, 18), slice(18, 30)]
    assert rows((7,)) == [slice(0, 1)]


def test_division_is_restored():
    with undivided():
        assert halves(4) == [slice(0, 4)]
    assert len(halves(4)) == 2
