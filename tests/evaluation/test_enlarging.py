"""What enlarged images are off by, against what is known of them."""

import math

import numpy as np
import pytest
from helpers import images, line
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import reference
from refdiff.evaluation import enlarging_errors, frechet_distance


def means(x):
    """Of blocks of 2x2."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


def test_the_images_themselves_are_off_by_nothing():
    x = images(6, 4, 6, 3)
    found = enlarging_errors(x, means(x), x)
    assert found["rms_error"] == 0
    assert found["low_res_error"] < 1e-7
    assert found["low_res_error_chance"] > 0.1


def test_pixels_that_are_repeated_agree_with_what_they_were_told_and_are_not_the_images():
    x = images(6, 4, 6)
    low = means(x)
    found = enlarging_errors(low.repeat(2, axis=1).repeat(2, axis=2), low, x)
    assert found["low_res_error"] < 1e-7
    assert found["rms_error"] == pytest.approx(math.sqrt(((low.repeat(2, 1).repeat(2, 2) - x) ** 2).mean()))


@given(st.floats(-0.5, 0.5))
def test_a_shift_is_what_both_are_off_by(shift):
    x = images(6, 4, 6)
    found = enlarging_errors(x + np.float32(shift), means(x), x)
    assert found["rms_error"] == pytest.approx(abs(shift), abs=1e-6)
    assert found["low_res_error"] == pytest.approx(abs(shift), abs=1e-6)


def test_interpolation_is_that_of_the_network_and_its_distance_is_to_what_is_held_out():
    x, held_out = images(9, 4, 2), images(8, 4, 2, seed=1)
    low = means(x)
    bilinear, _ = reference.resize_bilinear(low, (4, 2))
    found = enlarging_errors(x, low, x, held_out)
    assert found["rms_error_bilinear"] == pytest.approx(math.sqrt(((bilinear - x) ** 2).mean()), rel=1e-6)
    assert found["frechet_bilinear"] == pytest.approx(frechet_distance(bilinear, held_out), rel=1e-5)
    assert enlarging_errors(x, low, x)["frechet_bilinear"] != found["frechet_bilinear"]


def test_draws_from_what_is_left_open_are_off_by_a_root_of_two_more_than_their_mean():
    """x and a draw are low + noise of one distribution, independent of each other: the mean is low itself."""
    rng = np.random.default_rng(0)
    low = rng.standard_normal((400, 2, 2, 1))
    x, draw = (low.repeat(2, 1).repeat(2, 2) + rng.standard_normal((400, 4, 4, 1)) for _ in range(2))
    mean = enlarging_errors(low.repeat(2, 1).repeat(2, 2), low, x)["rms_error"]
    assert enlarging_errors(draw, low, x)["rms_error"] / mean == pytest.approx(math.sqrt(2), rel=0.03)


def test_sides_that_do_not_divide_have_no_means_over_blocks():
    found = enlarging_errors(images(5, 4, 4), images(5, 3, 3), images(5, 4, 4, seed=1))
    assert "low_res_error" not in found
    assert found["rms_error"] > 0


def test_arrays_that_do_not_fit_together_are_refused():
    x = images(5, 4, 4)
    for samples, low in ((x[:4], means(x)), (x, means(x)[:4]), (x[..., 0], means(x)), (x, means(x)[..., 0])):
        with pytest.raises(ValueError, match=line("samples: expected", "with a small image and an original each")):
            enlarging_errors(samples, low, x)
