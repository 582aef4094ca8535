"""The optimiser in place against the functions of refdiff.training."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines.cpu import optimiser
from refdiff.models import flatten, tree_map
from refdiff.training import optimiser as wanted


def trees(seed, sizes):
    rng = np.random.default_rng(seed)
    p, g, m, v = ({f"a{i}": rng.standard_normal(s).astype(np.float32) for i, s in enumerate(sizes)} for _ in range(4))
    return p, dict(reversed(g.items())), m, tree_map(np.square, v)


@given(st.lists(st.sampled_from([1, 7, 40_000, (30, 1001)]), min_size=1, max_size=4), st.integers(1, 50), st.booleans(),
       st.integers(0, 2**32 - 1))  # fmt: skip
def test_one_step(sizes, step, decayed, seed):
    p, g, m, v = trees(seed, sizes)
    norm, options = wanted.global_norm(g), {"weight_decay": 0.1 if decayed else 0.0}
    p1, m1, v1 = wanted.adamw(p, wanted.clip(g, norm, 1.0), m, v, step, 1e-2, **options)
    average1 = wanted.moving_average(p, p1, step, 0.9)
    average = {name: leaf.copy() for name, leaf in p.items()}
    assert optimiser.global_norm(g) == pytest.approx(norm, rel=1e-6)
    optimiser.update(p, g, m, v, average, step, 1e-2, scale=min(1, 1 / norm), decay=0.9, **options)
    for came, right in ((p, p1), (m, m1), (v, v1), (average, average1)):
        for name, leaf in flatten(came).items():
            np.testing.assert_allclose(leaf, flatten(right)[name], rtol=2e-6, atol=1e-6)


def test_bits_do_not_depend_on_threads(use_threads):
    results = []
    for count in (1, 8):
        use_threads(count)
        p, g, m, v = trees(0, [(300, 1001), 5, (1000, 70)])
        average = {name: leaf.copy() for name, leaf in p.items()}
        norm = optimiser.global_norm(g)
        optimiser.update(p, g, m, v, average, 3, 1e-2, scale=1 / norm, decay=0.9)
        results.append((norm, *(leaf.tobytes() for tree in (p, m, v, average) for leaf in tree.values())))
    assert results[0] == results[1]
