"""A schedule by its name, as configurations hold it."""

import numpy as np
import pytest

from refdiff import process
from refdiff.objectives import ScheduleConfig, lost_in_noise, signal_left_at_end


def test_it_builds_the_schedule_of_its_name_with_its_options():
    assert np.array_equal(ScheduleConfig().build().beta, process.linear(1000).beta)
    config = ScheduleConfig("constant", 7, {"beta": 0.25})
    assert np.array_equal(config.build().beta, process.constant(7, beta=0.25).beta)
    both = ScheduleConfig("linear", 5, {"beta_end": 0.5, "beta_start": 0.1})
    assert np.array_equal(both.build().beta, process.linear(5, 0.1, 0.5).beta)


def test_equal_configurations_build_one_object():
    one = ScheduleConfig("linear", 5, {"beta_end": 0.5, "beta_start": 0.1})
    same = ScheduleConfig("linear", 5, {"beta_start": 0.1, "beta_end": 0.5})
    assert one == same
    assert hash(one) == hash(same)
    assert one.build() is same.build()
    others = [ScheduleConfig("linear", 5), ScheduleConfig("linear", 6), ScheduleConfig("cosine", 5)]
    assert len({hash(c) for c in [one, *others]}) == 4
    assert len({id(c.build()) for c in [one, *others]}) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("linaer", 10), r"schedule.kind: .*'linaer'"),
        (("linear", 10, {"beta": 0.1}), r"schedule.options: .*'beta'"),
        (("linear", 10, {"T": 3}), r"schedule.options: .*'T'"),
        (("linear", 0), "T: "),
        (("constant", 3, {"beta": 2.0}), "beta"),
    ],
)
def test_what_is_no_schedule_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        ScheduleConfig(*arguments)


def test_the_signal_left_is_that_of_the_last_step():
    assert signal_left_at_end(ScheduleConfig("constant", 4, {"beta": 0.75})) == pytest.approx(0.5**4, rel=1e-14)
    assert type(signal_left_at_end(ScheduleConfig("linear", 4))) is float


def test_a_signal_below_float32_is_told_of_eps_alone():
    digit = float(np.finfo(np.float32).eps)  # 2^-23
    below, above = (ScheduleConfig("constant", T, {"beta": 0.75}) for T in (24, 22))
    assert signal_left_at_end(below) == pytest.approx(digit / 2, rel=1e-12)
    assert signal_left_at_end(above) == pytest.approx(digit * 2, rel=1e-12)
    said = lost_in_noise(below, "eps")
    assert said == (
        "expected a schedule that leaves more of the data than float32 resolves (1.2e-07) for eps to tell, got "
        "sqrt(alpha_bar_T) = 6.0e-08; take objective.prediction=v"
    )
    assert not lost_in_noise(below, "v")
    assert not lost_in_noise(above, "eps")
