"""What each file of kernels/ is compiled as: the -D that the engine passes (refdiff/engines/cuda), BF16 among them.

A file that stands nowhere here is compiled for float32 and for bfloat16.
"""

from __future__ import annotations

from refdiff.engines.cuda.product import TILES

Defines = dict[str, int]

DTYPES: list[Defines] = [{}, {"BF16": 1}]


def _product(packs: list[tuple[int, int]]) -> list[Defines]:
    return [
        {**({"BF16": 1} if dtype == "bfloat16" else {}), **tile.defines, "IN_PACKS": i, "OUT_PACKS": o}
        for dtype, tiles in TILES.items()
        for tile in tiles
        for i, o in packs
    ]


def _each(*options: Defines) -> list[Defines]:
    """Every option in both types."""
    return [{**dtype, **option} for dtype in DTYPES for option in options]


_NORMS: list[Defines] = [{"SILU": 0, "ADAPTIVE": 0}, {"SILU": 1, "ADAPTIVE": 0}, {"SILU": 1, "ADAPTIVE": 1}]

# What stands in the catalogue.
COMMON: dict[str, list[Defines]] = {
    "linear.cu": _product([(1, 1)]),
    "conv2d.cu": _product([(1, 1)]),
    "attention.cu": [{"BF16": 1, "HEAD": head} for head in (32, 64, 128, 256)],
    "attention_float.cu": [{"HEAD": head} for head in (32, 64, 128, 256)],
    "group_norm.cu": _each(*({"PACKED": 1, **norm} for norm in _NORMS)),
    "layer_norm.cu": _each({"PACKED": 1}),
    "softmax.cu": _each({"PACKED": 1}),
    "random.cu": [{}],
    "likelihood.cu": [{}],
    "noise_level.cu": [{}],
}

# Odd sizes: compiled by the slow tests alone.
RARE: dict[str, list[Defines]] = {
    "linear.cu": _product([(0, 0), (0, 1), (1, 0)]),
    "conv2d.cu": _product([(0, 0), (0, 1), (1, 0)]),
    "attention.cu": [{"BF16": 1, "HEAD": head} for head in (16, 48, 80, 96, 112, 160, 192, 224, 320, 384, 448, 512)],
    "attention_float.cu": [{"HEAD": head} for head in (96, 192, 384, 512)],
    "group_norm.cu": _each(*({"PACKED": 0, **norm} for norm in _NORMS)),
    "layer_norm.cu": _each({"PACKED": 0}),
    "softmax.cu": _each({"PACKED": 0}),
}

# Kernels whose products must run on the tensor cores in bfloat16.
TENSOR_CORES: dict[str, tuple[str, ...]] = {
    "linear.cu": ("linear", "linear_dx", "linear_dweight"),
    "conv2d.cu": ("conv2d", "conv2d_dx", "conv2d_dweight"),
    "attention.cu": ("attention", "attention_backward_queries", "attention_backward_keys"),
}

# What has been seen of a file beyond the emulator and the compiler.
STATE: dict[str, str] = {}
NOT_RUN = "emulated and compiled, not yet run on a GPU"
