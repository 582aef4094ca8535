"""A dry run tells what a capture takes, to the byte, for every operation; and it touches no memory."""

import numpy as np
import pytest
from engines.cpu.operation_cases import CASES, both, draw

from refdiff import models
from refdiff.engines import cpu
from refdiff.engines.cpu.runtime.arena import Arena
from refdiff.engines.cpu.runtime.blocks import Workspace
from refdiff.engines.cpu.runtime.capture import Capture
from refdiff.engines.cpu.runtime.context import using
from refdiff.engines.cpu.runtime.dry_run import DryArray, dry_run
from refdiff.engines.cpu.runtime.traced_array import CaptureError, TracedArray
from refdiff.random import Key


def captured(f, *arrays):
    """What a capture of f(*arrays) takes: results of float32, working space."""
    arena, sizes = Arena(), {}
    with using(
        threads=1, allocator=arena, kind=TracedArray, workspace=Workspace(sizes), capture=Capture(), gradients=None
    ):
        f(*(a.view(TracedArray) for a in arrays))
    return arena.bytes, sum(sizes.values())


def operation(name):
    _, shapes, sizes, _ = CASES[name]
    arrays = [draw(shape) for shape in (*shapes, *sizes.values())]
    y, *_ = both(name, arrays[: len(shapes)], dict(zip(sizes, arrays[len(shapes) :], strict=True)))

    def f(*arrays):
        both(name, arrays[: len(shapes)], dict(zip(sizes, arrays[len(shapes) : -1], strict=True)), arrays[-1])

    return f, [*arrays, draw(y.shape)]


@pytest.mark.parametrize("name", CASES)
def test_of_every_operation(use_threads, name):
    use_threads(1)
    f, arrays = operation(name)
    assert dry_run(f, *arrays) == captured(f, *arrays)


def test_of_a_network(use_threads):
    use_threads(1)
    config = models.UNetConfig(size=16, channels=3, width=32, multipliers=(1, 2), blocks=1, groups=8, dropout=0.1)
    p = models.initialise(models.layout(config), 0)
    x, t = draw((5, *config.shape)), np.arange(5) + 1

    def f(x, t):
        net = models.Network(config, models.tree_map(lambda a: a.view(type(x)), p))
        y, saved = models.forward(cpu, net, {"x": x, "t": t}, Key(0, 1, 0, 5))
        models.backward(cpu, net, y, models.consume(saved), wrt=("x",))

    dry, actual = dry_run(f, x, t), captured(f, x, t)
    assert dry.workspace == actual[1]
    assert actual[0] <= dry.results <= actual[0] + 4096  # beside the arena: the angles, in float64
    assert actual[0] > 20 * x.nbytes


def test_no_number_is_computed(use_threads):
    use_threads(1)
    seen = []

    def f(x, weight):
        y, _ = cpu.linear(x, weight, np.zeros(weight.shape[1], np.float32))
        y[0] = np.float32(np.nan)
        np.copyto(y, np.float32(1))
        seen.append((type(y), y.shape))
        with pytest.raises(CaptureError, match="a number cannot be read"):
            float(y[:1, :1])

    x = draw((1 << 10, 1 << 10))
    before = x.tobytes()
    memory = dry_run(f, x, x)
    assert memory.results == 4 << 20
    assert x.tobytes() == before
    assert seen == [(DryArray, (1 << 10, 1 << 10))]


def test_more_than_this_machine_has(use_threads):
    use_threads(1)
    x = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1 << 18, 1 << 20), (0, 0))
    assert dry_run(lambda x: np.multiply(x, x), x).results == 1 << 40


@pytest.mark.parametrize(
    "f", [np.median, lambda x: np.add.accumulate(x), lambda x: np.einsum("ij->i", x)], ids=["median", "sum", "einsum"]
)
def test_what_no_capture_knows_is_an_error(f):
    with pytest.raises(TypeError, match="is not known"):
        dry_run(f, draw((4, 5)))


REDUCTIONS = {
    "all": lambda x: np.add.reduce(x, axis=None),
    "first": lambda x: x.sum(axis=0),
    "kept": lambda x: x.max(axis=(1, -1), keepdims=True),
    "product": lambda x: x[0] @ x.swapaxes(1, 2),
    "rows": lambda x: np.concatenate([x, x * 2], axis=1),
    "choice": lambda x: np.where(x > 0, x, np.float32(0)),
    "broadcast": lambda x: x[:, :1] + x,
    "integers": lambda x: np.multiply(np.arange(3)[:, None, None], (x > 0)),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_shapes_and_types_are_those_of_numpy(name):
    f, seen = REDUCTIONS[name], []
    x = draw((3, 40, 50))
    dry_run(lambda x: seen.append(f(x)), x)
    expected = f(x)
    assert (seen[0].shape, seen[0].dtype) == (np.shape(expected), expected.dtype)
