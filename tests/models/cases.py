"""What all models are tested with, and what holds for every network of images."""

import networks
import numpy as np

from refdiff import models
from refdiff.engines import reference as engine
from refdiff.models import flatten, layout, tree_map
from refdiff.testing.derivatives import check_backward, complex_step
from refdiff.testing.measures import relative_error


def case(drawn, config, seed, n=2, dtype=np.float64):
    """Weights p, n samples x and their times t, of a model of this configuration."""
    rng = np.random.default_rng(seed)
    p = drawn(layout(config), seed, dtype)
    return p, rng.standard_normal((n, *config.shape)).astype(dtype), rng.integers(1, 1001, n)


def check_whole_backward(drawn, config, seed, key):
    """With respect to x and to each parameter, one at a time and all together."""
    p, x, t = case(drawn, config, seed)
    check_backward(
        lambda x, p: networks.forward(engine, config, p, x, t, key),
        lambda dy, saved: networks.backward(engine, config, dy, saved),
        (x, p),
        np.random.default_rng(seed),
        1e-12,
    )


def check_along_one_direction(drawn, config, seed, key):
    """<dx, v> = <dy, J v>, v in all parameters and x together."""
    p, x, t = case(drawn, config, seed)
    rng = np.random.default_rng(seed)
    y, saved = networks.forward(engine, config, p, x, t, key)
    dy, vx, vp = rng.standard_normal(y.shape), rng.standard_normal(x.shape), tree_map(lambda a: a * rng.normal(), p)
    dx, g = networks.backward(engine, config, dy, saved)
    jv = complex_step(lambda z: networks.forward(engine, config, z[1], z[0], t, key)[0], (x, p), (vx, vp))
    parts = [np.vdot(dx, vx), *flatten(tree_map(np.vdot, g, vp)).values()]
    assert abs(sum(parts) - np.vdot(dy, jv)) <= 1e-12 * sum(map(abs, parts))


def check_keys_and_shapes(drawn, config, key):
    """Gradients, parameters, layout and first values have the same; dx has those of x.   -> y, what was saved"""
    p, x, t = case(drawn, config, 1)
    y, saved = networks.forward(engine, config, p, x, t, key)
    dx, g = networks.backward(engine, config, y, saved)
    assert dx.shape == x.shape
    assert tree_map(np.shape, g) == tree_map(np.shape, p) == tree_map(lambda spec: spec.shape, layout(config))
    assert tree_map(np.shape, models.initialise(layout(config), 0)) == tree_map(np.shape, g)
    return y, saved


def float32_error(drawn, config, key):
    """How far value and gradients in float32 are from those in float64, of the same weights."""
    results = []
    for dtype in (np.float32, np.float64):
        p, x, t = case(drawn, config, 2, dtype=np.float32)
        p, x = tree_map(lambda a, dtype=dtype: a.astype(dtype), p), x.astype(dtype)
        y, saved = networks.forward(engine, config, p, x, t, key)
        dx, g = networks.backward(engine, config, (y / y.size).astype(dtype), saved)
        assert all(a.dtype == dtype for a in (y, dx, *flatten(g).values()))
        results.append((y, dx, np.concatenate([a.ravel() for a in flatten(g).values()])))
    return relative_error(*results)
