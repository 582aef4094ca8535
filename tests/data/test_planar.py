"""The sets in the plane: functions of seed and index, about unit variance, and the shapes they are named for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.data import (
    MIXTURE_COVARIANCES,
    MIXTURE_MEANS,
    MIXTURE_WEIGHTS,
    load,
    mixture,
    moons,
    rings,
    swissroll,
)

SETS = (swissroll, moons, rings, mixture)
points = pytest.mark.parametrize("points", SETS, ids=lambda f: f.__name__)


@points
@given(n=st.integers(1, 40), start=st.integers(0, 40), seed=st.integers(0, 2**64 - 1))
def test_a_point_depends_on_seed_and_index_alone(points, n, start, seed):
    x = points(n, seed, start)
    assert x.shape == (n, 2)
    assert x.dtype == np.float32
    assert np.array_equal(x, points(start + n, seed)[start:])
    assert not np.array_equal(x, points(n, (seed + 1) % 2**64, start))


@points
def test_load_gives_disjoint_parts(points):
    data = load(points.__name__)
    assert (data.x.shape, data.held_out.shape, data.labels) == ((8192, 2), (2048, 2), None)
    assert np.array_equal(np.concatenate([data.x, data.held_out]), points(10240))
    assert len(np.unique(points(10240), axis=0)) == 10240


@points
def test_mean_zero_and_about_unit_variance(points):
    x = points(20_000).astype(np.float64)
    assert np.abs(x.mean(axis=0)).max() < 0.03
    assert 0.9 < x.var(axis=0).mean() < 1.1


@points
@pytest.mark.parametrize("n", [0, -1, 2.5])
def test_no_points(points, n):
    with pytest.raises(ValueError, match="n: expected a positive integer"):
        points(n)


def test_swissroll_is_a_spiral():
    """Each point lies within five noise deviations of t (cos t, t sin t), and all t occur."""
    t = np.linspace(1.5, 4.5, 2000) * np.pi
    curve = (t[:, None] * np.stack([np.cos(t), np.sin(t)], 1) - [2, 2 / (3 * np.pi)]) / 7
    distance = np.linalg.norm(swissroll(1000)[:, None] - curve, axis=2)
    assert distance.min(axis=1).max() < 0.25
    assert np.histogram(distance.argmin(axis=1), 10, (0, 2000))[0].min() > 60


def test_moons_are_two_and_mirror_each_other():
    x = moons(4000).astype(np.float64)
    upper = np.linalg.norm(x / np.sqrt(2) + [0.5, 0.25], axis=1)
    lower = np.linalg.norm(-x / np.sqrt(2) + [0.5, 0.25], axis=1)
    first = np.abs(upper - 1) < np.abs(lower - 1)
    assert np.minimum(np.abs(upper - 1), np.abs(lower - 1)).max() < 0.25
    assert 0.45 < first.mean() < 0.55


def test_rings_are_three():
    radius = np.linalg.norm(rings(4000), axis=1)
    ring = np.rint(radius / 0.65)
    assert np.abs(radius - 0.65 * ring).max() < 0.25
    assert set(ring) == {1, 2, 3}
    assert np.bincount(ring.astype(int))[1:].min() > 1200


def test_mixture_parameters_have_mean_zero_and_covariance_one():
    assert MIXTURE_WEIGHTS.shape == (8,)
    assert MIXTURE_WEIGHTS.sum() == pytest.approx(1, abs=1e-15)
    assert np.allclose(MIXTURE_WEIGHTS @ MIXTURE_MEANS, 0, atol=1e-15)
    second = MIXTURE_COVARIANCES + MIXTURE_MEANS[:, :, None] * MIXTURE_MEANS[:, None, :]
    assert np.allclose(np.tensordot(MIXTURE_WEIGHTS, second, 1), np.eye(2), atol=1e-15)
    assert np.array_equal(MIXTURE_COVARIANCES, MIXTURE_COVARIANCES.transpose(0, 2, 1))
    ratio = [values[1] / values[0] for values in np.linalg.eigvalsh(MIXTURE_COVARIANCES)]
    assert max(ratio) > 20  # some are stretched
    for array in (MIXTURE_WEIGHTS, MIXTURE_MEANS, MIXTURE_COVARIANCES):
        assert not array.flags.writeable


def test_mixture_points_have_the_parameters_of_their_component():
    x = mixture(40_000).astype(np.float64)
    d = x[:, None] - MIXTURE_MEANS
    square = np.einsum("nki,kij,nkj->nk", d, np.linalg.inv(MIXTURE_COVARIANCES), d)
    # The likeliest component of each point; the components overlap little enough for this to be its own.
    k = (np.log(MIXTURE_WEIGHTS) - (square + np.linalg.slogdet(MIXTURE_COVARIANCES)[1]) / 2).argmax(axis=1)
    for j in range(8):
        own = k == j
        assert own.mean() == pytest.approx(MIXTURE_WEIGHTS[j], abs=0.01)
        assert np.allclose(d[own, j].mean(axis=0), 0, atol=0.02)
        assert np.allclose(np.cov(d[own, j].T), MIXTURE_COVARIANCES[j], atol=0.005)
        assert square[own, j].mean() == pytest.approx(2, abs=0.15)
