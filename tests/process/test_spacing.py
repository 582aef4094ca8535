"""The steps a sampler takes: the published rules on numbers, and what is no number of steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.process import (
    SPACINGS,
    from_beta,
    karras_steps,
    leading_steps,
    linear,
    quadratic_steps,
    trailing_steps,
    uniform_steps,
)
from refdiff.testing.strategies import schedules


@pytest.mark.parametrize(
    ("select", "T", "n", "expected"),
    [
        (uniform_steps, 1000, 4, [1, 334, 667, 1000]),
        (uniform_steps, 2, 2, [1, 2]),
        (uniform_steps, 6, 3, [1, 3, 6]),  # 2.5 is half way from 2 to 3, which are t - 1: to the even one
        (uniform_steps, 8, 3, [1, 5, 8]),  # and so is 3.5
        (leading_steps, 1000, 4, [1, 251, 501, 751]),
        (leading_steps, 10, 3, [1, 4, 7]),
        (leading_steps, 10, 6, [1, 2, 3, 4, 5, 6]),
        (trailing_steps, 1000, 4, [250, 500, 750, 1000]),
        (trailing_steps, 10, 3, [3, 7, 10]),
        (trailing_steps, 10, 4, [2, 5, 8, 10]),  # 2.5 and 7.5 go to the even neighbour
        (quadratic_steps, 1000, 4, [1, 112, 445, 1000]),
        (quadratic_steps, 9, 3, [1, 3, 9]),
        (quadratic_steps, 10, 8, [1, 2, 3, 4, 5, 6, 8, 10]),  # 1, 1.2, 1.7, 2.7, 3.9, 5.6, 7.6, 10 moved apart
    ],
)
def test_the_published_rules_on_numbers(select, T, n, expected):
    steps = select(T, n)
    assert steps.tolist() == expected
    assert steps.dtype.kind == "i"


def test_karras_steps_are_the_nearest_to_the_published_sigmas():
    schedule = linear(50, 0.001, 0.2)
    sigma = np.sqrt(schedule.one_minus_alpha_bar[1:] / schedule.alpha_bar[1:])
    for rho in (3.0, 7.0):
        ends = sigma[0] ** (1 / rho), sigma[-1] ** (1 / rho)
        expected = np.linspace(*ends, 6) ** rho  # [EDM] eq. 5
        nearest = [1 + int(np.abs(np.log(sigma) - np.log(w)).argmin()) for w in expected]
        assert len(set(nearest)) == 6
        assert karras_steps(schedule, 6, rho).tolist() == nearest
    assert karras_steps(linear(1), 1).tolist() == [1]
    assert karras_steps(linear(2), 2).tolist() == [1, 2]


def test_the_halves_of_uniform_steps_fall_where_other_codes_have_them():
    published = {  # of guided-diffusion and of "linspace" in diffusers, which count from 0
        25: [0, 42, 83, 125, 166, 208, 250, 291, 333, 375, 416, 458, 500,
             541, 583, 624, 666, 708, 749, 791, 832, 874, 916, 957, 999],
        5: [0, 250, 500, 749, 999],
    }  # fmt: skip
    for n, steps in published.items():
        assert (uniform_steps(1000, n) - 1).tolist() == steps


def test_leading_steps_leave_data_at_the_first_step_of_sampling():
    # [Lin24] section 3.3: sampling begins with noise alone, at a step of which the network has seen something else.
    schedule = linear()
    assert leading_steps(1000, 50)[-1] == 981
    assert schedule.alpha_bar[981] / schedule.alpha_bar[1000] > 1.4
    assert leading_steps(1000, 5)[-1] == 801
    assert schedule.alpha_bar[801] ** 0.5 > 0.03
    assert leading_steps(1000, 1).tolist() == [1]


@given(schedules(max_T=60), st.data())
def test_every_selection_has_n_rising_steps_that_end_at_T(schedule, data):
    n = data.draw(st.integers(1, schedule.T))
    for name, select in SPACINGS.items():
        chosen = select(schedule, n)
        assert chosen.shape == (n,)
        assert np.all(np.diff(chosen, prepend=0) >= 1)
        assert chosen[-1] == (1 + (n - 1) * (schedule.T // n) if name == "leading" else schedule.T)
        assert n == 1 or name == "trailing" or chosen[0] == 1
        assert select(schedule, schedule.T).tolist() == list(range(1, schedule.T + 1))


@given(st.integers(1, 1000), st.data())
def test_trailing_gaps_are_even_to_one_step_down_to_zero(T, data):
    n = data.draw(st.integers(1, T))
    assert np.ptp(np.diff(trailing_steps(T, n), prepend=0)) <= 1


def test_karras_steps_crowd_where_there_is_little_noise_and_more_so_for_larger_rho():
    schedule = linear()
    medians = [np.median(karras_steps(schedule, 21, rho)) for rho in (1.0, 3.0, 7.0)]
    assert medians[0] > medians[1] > medians[2]
    assert np.array_equal(karras_steps(schedule, 21), karras_steps(schedule, 21, 7.0))
    sigma = np.sqrt(1 / schedule.alpha_bar[1:] - 1)
    even = np.diff(sigma[karras_steps(schedule, 21, 1.0) - 1])
    assert np.ptp(even) <= 2 * np.diff(sigma).max()  # rho = 1: evenly spread in sigma, to the nearest steps


def test_a_schedule_of_one_step():
    for select in SPACINGS.values():
        assert select(from_beta([0.3]), 1).tolist() == [1]


@pytest.mark.parametrize("select", [uniform_steps, leading_steps, trailing_steps, quadratic_steps])
@pytest.mark.parametrize("n", [0, -1, 11, 2.0, None])
def test_what_is_no_number_of_steps_is_refused_by_name(select, n):
    with pytest.raises(ValueError, match=rf"n: expected a number of steps from 1 to T = 10, got {n}"):
        select(10, n)
    with pytest.raises(ValueError, match=rf"n: expected a number of steps from 1 to T = 10, got {n}"):
        karras_steps(linear(10), n)


@pytest.mark.parametrize("select", [uniform_steps, leading_steps, trailing_steps, quadratic_steps])
@pytest.mark.parametrize("T", [10.5, 10.0, np.float64(10), 0, -3, "10", None, np.ones(3, int)])
def test_what_is_no_number_of_steps_of_the_process_is_refused_by_name(select, T):
    with pytest.raises(ValueError, match=r"^T: expected a number of steps, an integer of at least 1, got"):
        select(T, 3)


@pytest.mark.parametrize("rho", [0, -7.0, np.nan])
def test_karras_refuses_a_rho_that_is_not_positive(rho):
    with pytest.raises(ValueError, match="rho: expected a number above 0, got"):
        karras_steps(linear(10), 5, rho)


def test_karras_refuses_infinite_sigma():
    with pytest.raises(
        ValueError,
        match=r"^schedule: expected alpha_bar_T > 0, got 0, where sigma is infinite; "
        r"use trailing_steps, uniform_steps, quadratic_steps or leading_steps$",
    ):
        karras_steps(from_beta([0.1, 1.0]), 2)
