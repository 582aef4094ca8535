"""The operations of the engine on shapes that take each of their algorithms."""

import numpy as np

from refdiff.engines import cpu

CONVOLUTION = {"weight": (3, 3, 16, 24), "bias": (24,)}
CASES = {
    "winograd 4x4": ("conv2d", [(9, 16, 16, 16)], CONVOLUTION, {}),
    "winograd 2x2": ("conv2d", [(5, 9, 10, 16)], CONVOLUTION, {}),
    "winograd of two variants": ("conv2d", [(7, 8, 8, 16)], CONVOLUTION, {}),
    "winograd or taps": ("conv2d", [(3, 8, 8, 16)], CONVOLUTION, {}),
    "taps": ("conv2d", [(3, 4, 4, 16)], CONVOLUTION, {}),
    "taps, stride 2": ("conv2d", [(5, 8, 8, 16)], CONVOLUTION, {"stride": 2, "padding": (0, 1)}),
    "wide taps": ("conv2d", [(4, 4, 4, 256)], {"weight": (3, 3, 256, 128), "bias": (128,)}, {}),
    "columns, stride 2": ("conv2d", [(5, 20, 20, 16)], CONVOLUTION, {"stride": 2, "padding": (0, 1)}),
    "columns in bands": ("conv2d", [(3, 64, 64, 32)], {"weight": (3, 3, 32, 24), "bias": (24,)},
                         {"stride": 2, "padding": (0, 1)}),
    "few channels in": ("conv2d", [(5, 8, 8, 3)], {"weight": (3, 3, 3, 16), "bias": (16,)}, {}),
    "few channels out": ("conv2d", [(5, 8, 8, 16)], {"weight": (3, 3, 16, 3), "bias": (3,)}, {}),
    "linear": ("linear", [(5, 7, 40)], {"weight": (40, 33), "bias": (33,)}, {}),
    "large linear": ("linear", [(3, 400, 256)], {"weight": (256, 256), "bias": (256,)}, {}),
    "group norm": ("group_norm", [(5, 6, 6, 12)], {"weight": (12,), "bias": (12,)}, {"groups": 4}),
    "group norm and silu": ("group_norm_silu", [(5, 16, 16, 64)], {"weight": (64,), "bias": (64,)}, {"groups": 8}),
    "group norm in bands": ("group_norm_silu", [(3, 48, 48, 64)], {"weight": (64,), "bias": (64,)}, {"groups": 8}),
    "layer norm": ("layer_norm", [(5, 30, 257)], {"weight": (257,), "bias": (257,)}, {}),
    "adaptive": ("adaptive_group_norm_silu", [(5, 4, 4, 12), (5, 12), (5, 12)], {"weight": (12,), "bias": (12,)},
                 {"groups": 4}),
    "silu": ("silu", [(5, 40, 1000)], {}, {}),
    "relu": ("relu", [(5, 40, 1000)], {}, {}),
    "gelu": ("gelu_tanh", [(5, 40)], {}, {}),
    "softmax": ("softmax", [(5, 3, 257)], {}, {}),
    "attention": ("attention", [(5, 9, 8), (5, 9, 8), (5, 9, 8)], {}, {"heads": 2}),
    "add": ("add", [(5, 6, 8), (5, 6, 8)], {}, {}),
    "broadcast_add": ("broadcast_add", [(5, 6, 6, 8), (5, 8)], {}, {}),
    "positions": ("add_positions", [(5, 6, 6, 8)], {"weight": (6, 6, 8)}, {}),
    "scale": ("scale", [(5, 6, 8)], {}, {"factor": 2**-0.5}),
    "concat": ("concat", [(5, 6, 8), (5, 6, 4)], {}, {}),
    "reshape": ("reshape", [(5, 6, 8)], {}, {"shape": (-1, 48)}),
    "upsample": ("upsample_nearest", [(5, 6, 6, 8)], {}, {}),
    "pool": ("average_pool", [(5, 6, 6, 8)], {}, {}),
    "mean of all positions": ("global_average_pool", [(5, 6, 6, 8)], {}, {}),
    "bilinear, larger": ("resize_bilinear", [(5, 6, 4, 8)], {}, {"size": (12, 9)}),
    "bilinear, smaller": ("resize_bilinear", [(5, 16, 16, 3)], {}, {"size": (5, 8)}),
    "loss a sample": ("squared_error", [(7, 5, 3), (7, 5, 3), (7,)], {}, {}),
    "softplus": ("softplus", [(5, 40, 1000)], {}, {}),
    "expm1": ("expm1", [(5, 40)], {}, {}),
    "multiply": ("multiply", [(5, 6, 8), (5, 6, 8)], {}, {}),
    "multiply, a number a sample": ("multiply", [(5, 6, 8), (5,)], {}, {}),
    "sum of a sample": ("sample_sum", [(5, 6, 8)], {}, {}),
    "repeat": ("repeat", [(5, 6, 8)], {}, {"times": 3}),
    "Gaussian": ("gaussian_log_likelihood", [(5, 90, 100)] * 3, {}, {}),
    "Gaussian, a variance a sample": ("gaussian_log_likelihood", [(5, 6, 8), (5, 6, 8), (5,)], {}, {}),
    "divergence": ("gaussian_kl", [(5, 6, 8), (5, 6, 8), (5, 6, 8), (5,)], {}, {}),
    "a draw": ("reparameterise", [(5, 90, 100)] * 3, {}, {}),
    "bits": ("bernoulli_log_likelihood", [(5, 6, 8), (5, 6, 8)], {}, {}),
    "importance weights": ("log_mean_exp", [(5, 9)], {}, {}),
    "diffuse": ("diffuse", [(5, 90, 100), (5, 90, 100), (5,)], {}, {}),
    "prior": ("prior_kl", [(5, 6, 8), (5,)], {}, {}),
    "levels": ("levels_log_likelihood", [(5, 60, 80), (5, 60, 80), (5,)], {}, {"bins": 17}),
    "Fourier": ("fourier_features", [(5, 70, 80, 3)], {}, {"exponents": (0, 7)}),
}  # fmt: skip


def draw(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def both(name, inputs, parameters, dy=None):
    """y, the gradients of the inputs and of the parameters, of the case of this name.   dy: drawn if it is not given"""
    operation, _, _, options = CASES[name]
    y, saved = getattr(cpu, operation)(*inputs, **parameters, **options)
    if y.ndim == 0:
        dy = 1.0
    elif dy is None:
        dy = draw((24, *y.shape[1:]), 9)[: len(y)]
    actual = getattr(cpu, f"{operation}_backward")(dy, saved)
    *dx, g = actual if isinstance(actual, tuple) else (actual,)
    return y, dx if isinstance(g, dict) else [*dx, g], g if isinstance(g, dict) else {}
