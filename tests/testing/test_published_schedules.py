"""The published schedules, written a second time: they agree with the library's, and each has a property of its own."""

import numpy as np
import pytest

from refdiff.process import SCHEDULES, rescale_zero_terminal_snr
from refdiff.testing.published_schedules import PUBLISHED, published


@pytest.mark.parametrize("T", [1, 2, 3, 10, 300])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_librarys_schedules_are_the_published_ones(name, T):
    a, s = published(name, T=T)
    schedule = SCHEDULES[name](T)
    assert np.abs(a / np.sqrt(schedule.alpha_bar) - 1).max() < 1e-14
    assert np.abs(s[1:] / np.sqrt(schedule.one_minus_alpha_bar[1:]) - 1).max() < 1e-14
    assert s[0] == 0


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_zero_terminal_snr_is_the_librarys(name):
    a, _ = published(name, zero_terminal_snr=True, T=100)
    expected = np.sqrt(rescale_zero_terminal_snr(SCHEDULES[name](100)).alpha_bar)
    assert np.abs(a[:-1] / expected[:-1] - 1).max() < 1e-13
    assert a[-1] == expected[-1] == 0


@pytest.mark.parametrize(("mu", "b"), [(0.0, 0.5), (1.0, 0.3), (-2.0, 2.0)])
def test_the_log_snr_of_laplace_is_distributed_as_its_name_says(mu, b):
    """u uniform: P(lambda > x) = exp(-(x - mu) / b) / 2 above mu, and 1 less that of the other side below."""
    a, s = published("laplace", T=64, mu=mu, b=b, beta_max=1.0)
    u = np.arange(1, 64) / 64
    x = 2 * np.log(a[1:-1] / s[1:-1])
    tail = np.exp(-np.abs(x - mu) / b) / 2
    assert np.abs(np.where(x > mu, tail, 1 - tail) - u).max() < 1e-14
    assert a[32] ** 2 == pytest.approx(1 / (1 + np.exp(-mu)), rel=1e-14)
    assert a[-1] == 0


def test_exp_and_sigmoid_beta():
    a, _ = published("exp", T=50)
    assert np.abs(a[1:] / a[:-1] - np.exp(-6 / 50)).max() < 1e-15
    beta = 1 - np.exp(2 * np.diff(np.log(published("sigmoid_beta", T=50)[0])))
    assert np.abs(beta + beta[::-1] - (1e-4 + 0.02)).max() < 1e-14
    assert np.all(np.diff(beta) > 0)


def test_an_unknown_name_is_told_so():
    with pytest.raises(ValueError, match=rf"name: expected one of {', '.join(PUBLISHED)}, with T, got 'linaer'"):
        published("linaer", T=10)
    with pytest.raises(ValueError, match="with T, got 'linear'"):
        published("linear")
