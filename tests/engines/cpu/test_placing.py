"""A weight's gradient is made at the weight's own place of the buffer of gradients, inside the block and only there."""

import threading

import numpy as np
import pytest

from refdiff.engines import cpu
from refdiff.engines.cpu.placing import address, gradient, gradients_at

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
    with gradients_at(*flat):
        came = gradient(weight)
    assert came.shape == SHAPE
    assert address(came) == address(place)


@pytest.mark.parametrize("part", [slice(0, 5), slice(-5, None)], ids=["first", "last"])
def test_the_ends_of_the_buffer_belong_to_it(flat, part):
    with gradients_at(*flat):
        assert address(gradient(flat[0][part])) == address(flat[1][part])


def test_outside_a_gradient_is_fresh(flat):
    with gradients_at(*flat):
        pass
    assert not np.shares_memory(gradient(placed(flat)[0]), flat[1])


def test_an_error_inside_ends_the_block(flat):
    with pytest.raises(KeyError), gradients_at(*flat):
        raise KeyError
    assert not np.shares_memory(gradient(placed(flat)[0]), flat[1])


def test_an_inner_block_gives_way_to_the_outer_one(flat):
    weight, place = placed(flat)
    other = np.zeros_like(flat[1])
    with gradients_at(*flat):
        with gradients_at(flat[0], other):
            assert np.shares_memory(gradient(weight), other)
        assert address(gradient(weight)) == address(place)


def test_a_weight_of_another_buffer_has_a_fresh_gradient(flat):
    wide = np.zeros(flat[0].size + 20, np.float32)
    with gradients_at(wide[10:-10], flat[1]):
        for weight in (np.zeros(SHAPE, np.float32), wide[9:15], wide[-15:-9], wide):
            came = gradient(weight)
            assert came.shape == weight.shape
            assert not np.shares_memory(came, flat[1])


def test_a_weight_that_is_not_contiguous_has_a_fresh_gradient(flat):
    with gradients_at(*flat):
        for weight in (placed(flat)[0][..., ::2], placed(flat)[0].T):
            came = gradient(weight)
            assert came.shape == weight.shape
            assert not np.shares_memory(came, flat[1])


def test_other_threads_are_not_affected(flat):
    came = []
    with gradients_at(*flat):
        thread = threading.Thread(target=lambda: came.append(gradient(placed(flat)[0])))
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
    with gradients_at(*flat):
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
    with gradients_at(*flat):
        np.testing.assert_array_equal(cpu.conv2d_backward(y, saved)[1]["weight"], g["weight"])
