"""What scikit-learn and scipy have too: the bundled digits, and the root in Frechet's distance."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn.datasets import load_digits

from refdiff.data import load
from refdiff.evaluation.metrics import frechet_distance


def test_the_digits_are_scikit_learns_split_as_their_licence_says():
    theirs, ours = load_digits(), load("digits")
    held_out = np.zeros(len(theirs.target), bool)
    for label in range(10):
        held_out[np.flatnonzero(theirs.target == label)[4::5]] = True
    x = (theirs.images / 8 - 1)[..., None]
    for chosen, images, labels in ((~held_out, ours.x, ours.labels), (held_out, ours.held_out, ours.held_out_labels)):
        order, other = (np.lexsort(a.reshape(len(a), -1).T) for a in (images, x[chosen]))
        assert np.array_equal(images[order], x[chosen][other])
        assert np.array_equal(labels[order], theirs.target[chosen][other])


@pytest.mark.parametrize("dimensions", [1, 5, 40])
def test_frechets_distance_is_that_of_scipys_root(dimensions):
    rng = np.random.default_rng(dimensions)
    a, b = (rng.standard_normal((60, dimensions)) @ rng.standard_normal((dimensions, dimensions)) for _ in range(2))
    a += 0.3
    cov_a, cov_b = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    root = np.atleast_2d(sqrtm(cov_a @ cov_b)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert abs(frechet_distance(a, b) - expected) <= 1e-8 * np.trace(cov_a + cov_b)
