"""A weight's gradient is made at the weight's own place of the buffer of gradients, inside the block and only there."""

import threading
from contextlib import nullcontext
from math import prod

import networks
import numpy as np
import pytest

from refdiff import models
from refdiff.engines import cpu, reference
from refdiff.engines.cpu import Captured, graph_input
from refdiff.engines.cpu.runtime.context import using
from refdiff.engines.cpu.runtime.gradient_buffer import GradientBuffer, address
from refdiff.engines.cpu.runtime.memory import empty, gradient_out
from refdiff.models import MLPConfig, UNetConfig, flatten, tree_map, unflatten

SHAPE = (3, 3, 12, 20)
SIZE = int(np.prod(SHAPE))


@pytest.fixture
def flat():
    """Buffers of parameters and gradients, each with room before and after SIZE numbers at 64."""
    rng = np.random.default_rng(0)
    return rng.standard_normal(SIZE + 128).astype(np.float32), np.full(SIZE + 128, np.nan, np.float32)


def placed(flat, shape=SHAPE):
    """The weight, and where its gradient belongs."""
    count = int(np.prod(shape))
    return tuple(buffer[64 : 64 + count].reshape(shape) for buffer in flat)


def test_an_address_is_that_of_the_first_element(flat):
    assert address(flat[0][10:]) == address(flat[0]) + 40


def test_inside_a_gradient_lies_at_its_weights_place(flat):
    weight, place = placed(flat)
    with using(gradients=GradientBuffer(*flat)):
        came = gradient_out(weight)
    assert came.shape == SHAPE
    assert address(came) == address(place)


@pytest.mark.parametrize("part", [slice(0, 5), slice(-5, None)], ids=["first", "last"])
def test_the_ends_of_the_buffer_belong_to_it(flat, part):
    with using(gradients=GradientBuffer(*flat)):
        assert address(gradient_out(flat[0][part])) == address(flat[1][part])


def test_outside_a_gradient_is_fresh(flat):
    with using(gradients=GradientBuffer(*flat)):
        pass
    assert not np.shares_memory(gradient_out(placed(flat)[0]), flat[1])


def test_an_error_inside_ends_the_block(flat):
    with pytest.raises(KeyError), using(gradients=GradientBuffer(*flat)):
        raise KeyError
    assert not np.shares_memory(gradient_out(placed(flat)[0]), flat[1])


def test_an_inner_block_gives_way_to_the_outer_one(flat):
    weight, place = placed(flat)
    other = np.zeros_like(flat[1])
    with using(gradients=GradientBuffer(*flat)):
        with using(gradients=GradientBuffer(flat[0], other)):
            assert np.shares_memory(gradient_out(weight), other)
        assert address(gradient_out(weight)) == address(place)


def test_a_weight_of_another_buffer_has_a_fresh_gradient(flat):
    wide = np.zeros(flat[0].size + 20, np.float32)
    with using(gradients=GradientBuffer(wide[10:-10], flat[1])):
        for weight in (np.zeros(SHAPE, np.float32), wide[9:15], wide[-15:-9], wide):
            came = gradient_out(weight)
            assert came.shape == weight.shape
            assert not np.shares_memory(came, flat[1])


def test_a_weight_that_is_not_contiguous_has_a_fresh_gradient(flat):
    with using(gradients=GradientBuffer(*flat)):
        for weight in (placed(flat)[0][..., ::2], placed(flat)[0].T):
            came = gradient_out(weight)
            assert came.shape == weight.shape
            assert not np.shares_memory(came, flat[1])


def test_other_threads_are_not_affected(flat):
    came = []
    with using(gradients=GradientBuffer(*flat)):
        thread = threading.Thread(target=lambda: came.append(gradient_out(placed(flat)[0])))
        thread.start()
        thread.join()
    assert not np.shares_memory(came[0], flat[1])


# Winograd of 2x2 and 4x4, columns of few and of many pixels.
CONVOLUTIONS = [((2, 12, 12), 12, 20), ((4, 16, 16), 12, 20), ((1, 4, 4), 12, 20), ((60, 32, 32), 3, 20)]


@pytest.mark.parametrize(("image", "c", "k"), CONVOLUTIONS)
def test_a_convolution_writes_its_gradient_there(flat, image, c, k):
    weight, place = placed(flat, (3, 3, c, k))
    _writes(cpu.conv2d, cpu.conv2d_backward, image, weight, place, flat)


def test_a_linear_layer_writes_its_gradient_there(flat):
    weight, place = placed(flat, (30, 50))
    _writes(cpu.linear, cpu.linear_backward, (5, 7), weight, place, flat)


def _writes(f, f_backward, rest, weight, place, flat):
    x = np.random.default_rng(1).standard_normal((*rest, weight.shape[-2])).astype(np.float32)
    y, saved = f(x, weight, np.zeros(weight.shape[-1], np.float32))
    dx, g = f_backward(y, saved)
    with using(gradients=GradientBuffer(*flat)):
        dx_placed, g_placed = f_backward(y, saved)
    assert address(g_placed["weight"]) == address(place)
    np.testing.assert_array_equal(place, g["weight"])
    np.testing.assert_array_equal(dx_placed, dx)
    np.testing.assert_array_equal(g_placed["bias"], g["bias"])
    assert np.isnan(flat[1][:64]).all()
    assert np.isnan(flat[1][64 + weight.size :]).all()


def test_a_convolution_to_few_channels_returns_the_same_gradient(flat):
    weight, _ = placed(flat, (3, 3, 12, 3))
    x = np.random.default_rng(1).standard_normal((2, 8, 8, 12)).astype(np.float32)
    y, saved = cpu.conv2d(x, weight, np.zeros(3, np.float32))
    _, g = cpu.conv2d_backward(y, saved)
    with using(gradients=GradientBuffer(*flat)):
        np.testing.assert_array_equal(cpu.conv2d_backward(y, saved)[1]["weight"], g["weight"])


# A network that is used twice in a step: each backward gives the gradient of its own use.

NETWORKS = {
    "mlp": MLPConfig(),
    "unet": UNetConfig(size=8, channels=3, width=16, multipliers=(1, 2), blocks=1, attention=(4,), heads=2),
}


def used_twice(engine, config, p, x, t, dy):
    """The gradients of two uses, each on its own half of x, t and dy; and their sum."""
    gradients = []
    saved = [networks.forward(engine, config, p, *half)[1] for half in zip(x, t, strict=True)]
    for each_dy, each_saved in zip(dy, saved, strict=True):
        gradients.append(networks.backward(engine, config, each_dy, each_saved)[1])
    return *gradients, tree_map(lambda a, b: engine.add(a, b)[0], *gradients)


def joined(trees):
    """All numbers of some trees, in order."""
    leaves = [leaf for tree in trees for leaf in flatten(tree).values()]
    y, end = empty((sum(leaf.size for leaf in leaves),)), 0
    for leaf in leaves:
        y[end : end + leaf.size].reshape(leaf.shape)[...] = leaf
        end += leaf.size
    return y


@pytest.mark.parametrize("how", ["plain", "in place", "captured", "captured in place"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_used_twice_has_the_gradient_of_each_use(use_threads, name, how):
    use_threads(1)
    config, rng = NETWORKS[name], np.random.default_rng(3)
    shapes = {path: spec.shape for path, spec in flatten(models.layout(config)).items()}
    noise = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes.values()]
    flat_p = np.concatenate([a.ravel() / max(1.0, prod(a.shape[:-1])) ** 0.5 for a in noise])
    flat_g = np.full_like(flat_p, np.nan)
    in_place = []  # of each call of f, of each tree: how many of its leaves lie in flat_g

    def inside(leaf, buffer):
        return 0 <= address(leaf) - address(buffer) < buffer.nbytes

    def unpacked(p):
        ends = np.cumsum([prod(shape) for shape in shapes.values()]).tolist()
        leaves = zip(shapes.items(), ends, strict=True)
        return unflatten({path: p[end - prod(shape) : end].reshape(shape) for (path, shape), end in leaves})

    def f(*arrays):
        p, g = graph_input(flat_p), graph_input(flat_g)
        with using(gradients=GradientBuffer(p, g)) if "in place" in how else nullcontext():
            trees = used_twice(cpu, config, unpacked(p), *(arrays[i : i + 2] for i in (0, 2, 4)))
        in_place.append([sum(inside(leaf, flat_g) for leaf in flatten(tree).values()) for tree in trees])
        return joined(trees)

    run = Captured(f) if "captured" in how else f
    for _ in range(4):
        flat_p += rng.standard_normal(flat_p.size, dtype=np.float32) / 100
        cpu.forget_weights()
        x, dy = rng.standard_normal((2, 2, 3, *config.shape), dtype=np.float32)
        t = rng.integers(1, 1000, (2, 3))
        actual = run(*x, *t, *dy)
        p64 = tree_map(lambda a: a.astype(np.float64), unpacked(flat_p))
        expected = used_twice(reference, config, p64, x.astype(np.float64), t, dy.astype(np.float64))
        end = 0
        for tree in expected:
            for path, leaf in flatten(tree).items():
                part, end = actual[end : end + leaf.size], end + leaf.size
                error = np.linalg.norm(part - leaf.ravel()) / np.linalg.norm(leaf)
                assert error <= 1e-5, f"{path}: {error}"
    assert all(uses[0] > 0 if "in place" in how else uses[0] == 0 for uses in in_place)
    assert all(uses[1:] == [0, 0] for uses in in_place)
    assert len(in_place) == (2 if "captured" in how else 4)


def test_a_place_is_taken_once(flat):
    buffer = GradientBuffer(*flat)
    assert address(buffer.take(flat[0][40:80])) == address(flat[1][40:80])
    for start, end in ((40, 80), (30, 41), (79, 90), (50, 60), (30, 90)):
        assert buffer.take(flat[0][start:end]) is None
    for start, end in ((80, 90), (30, 40), (0, 30)):
        assert address(buffer.take(flat[0][start:end])) == address(flat[1][start:end])
    assert buffer.take(flat[0][20:100]) is None


def test_a_new_block_takes_the_places_again(flat):
    weight, place = placed(flat)
    for _ in range(2):
        with using(gradients=GradientBuffer(*flat)):
            assert address(gradient_out(weight)) == address(place)
            second = gradient_out(weight)
            assert second.shape == SHAPE
            assert not np.shares_memory(second, flat[1])


@pytest.mark.parametrize("after", [1, 2])
def test_what_is_captured_says_itself_where_its_gradients_go(use_threads, flat, after):
    """A buffer around a capture would be written to by each replay, whatever else had taken the place."""
    use_threads(1)
    weight, place = placed(flat, (30, 50))

    def f(x):
        y, saved = cpu.linear(x, weight, np.zeros(50, np.float32))
        return cpu.linear_backward(y, saved)[1]["weight"]

    x, captured = np.ones((5, 30), np.float32), Captured(f, after)
    with using(gradients=GradientBuffer(*flat)):
        for _ in range(4):
            captured(x)
        assert np.isnan(flat[1]).all()
        assert address(f(x)) == address(place)
