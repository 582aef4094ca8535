"""What the operations of likelihoods, of divergences and of noise levels are tested with, on every engine: one table."""

import numpy as np

LEVELS = 9


def levels(rng, shape):
    """Data on the levels."""
    return 2 * rng.integers(0, LEVELS, shape) / (LEVELS - 1) - 1


def normals(names):
    """Inputs alone, all normal: "mean" of the shape of a sample, "mean:" one number a sample."""

    def draw(rng, shape):
        return tuple(rng.standard_normal(shape[:1] if name.endswith(":") else shape) for name in names.split()), {}, {}

    return draw


def monotone(units):
    def draw(rng, shape):
        parameters = {"slope": rng.standard_normal(1) + 2 if units else np.full(1, -2.0)}  # a t / a = t to the bit
        parameters |= {name: rng.standard_normal(units) for name in ("rate", "shift", "weight")}
        return (), parameters, {"t": rng.uniform(0, 1, shape[0])}

    return draw


def of_level(*data):
    """The level has a gradient, `data` have none."""

    def draw(rng, shape):
        options = {name: levels(rng, shape) if name == "x" else rng.standard_normal(shape) for name in data}
        return (3 * rng.standard_normal(shape[0]),), {}, options

    return draw


def with_bins(rng, shape):
    inputs, parameters, options = of_level("x", "eps")(rng, shape)
    return inputs, parameters, options | {"bins": LEVELS}


def step(rng, shape):
    return (-rng.uniform(0.05, 5, shape[0]), rng.standard_normal(shape[0]) - 2), {}, {}


# name: operation, and (rng, shape) -> what gets a gradient, parameters, what gets none
CASES = {
    "Gaussian": ("gaussian_log_likelihood", normals("x mean log_variance")),
    "Gaussian, a variance a sample": ("gaussian_log_likelihood", normals("x mean log_variance:")),
    "divergence": ("gaussian_kl", normals("mean log_variance mean_p log_variance_p")),
    "divergence, variances a sample": ("gaussian_kl", normals("mean log_variance: mean_p log_variance_p:")),
    "divergence, a variance a sample": ("gaussian_kl", normals("mean log_variance mean_p log_variance_p:")),
    "divergence from N(0, 1)": ("gaussian_kl", normals("mean log_variance")),
    "divergence from N(0, 1), a variance a sample": ("gaussian_kl", normals("mean log_variance:")),
    "a draw": ("reparameterise", lambda rng, shape: (
        tuple(rng.standard_normal((2, *shape))), {}, {"eps": rng.standard_normal(shape)})),
    "a draw, a variance a sample": ("reparameterise", lambda rng, shape: (
        (rng.standard_normal(shape), rng.standard_normal(shape[0])), {}, {"eps": rng.standard_normal(shape)})),
    "bits": ("bernoulli_log_likelihood", lambda rng, shape: (
        (2 * rng.standard_normal(shape),), {}, {"x": rng.integers(0, 2, shape).astype(np.float64)})),
    "importance weights": ("log_mean_exp", lambda rng, shape: ((rng.standard_normal((shape[0], 7)),), {}, {})),
    "diffuse": ("diffuse", of_level("x", "eps")),
    "prior": ("prior_kl", of_level("x")),
    "levels": ("levels_log_likelihood", with_bins),
    "monotone": ("monotone", monotone(20)),
    "straight line": ("monotone", monotone(0)),
    "Fourier": ("fourier_features", lambda rng, shape: (
        (rng.uniform(-1, 1, (*shape, 3)),), {}, {"exponents": (0, 3, 7)})),
    "step": ("posterior_step", step),
}  # fmt: skip


def drawn(name, shape, seed, dtype=np.float64):
    """operation, inputs, parameters, options of a case, for N = shape[0] samples."""
    operation, draw = CASES[name]
    inputs, parameters, options = draw(np.random.default_rng(seed), shape)

    def cast(a):
        return a.astype(dtype) if isinstance(a, np.ndarray) else a

    return (
        operation,
        tuple(map(cast, inputs)),
        {key: cast(a) for key, a in parameters.items()},
        {key: cast(a) for key, a in options.items()},
    )
