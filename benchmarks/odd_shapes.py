"""Every operation once, forward and backward, on awkward shapes and in both types, against the reference; then two steps of
a small network, launched and captured: python -m benchmarks.odd_shapes gpu|emulator. What compute-sanitizer watches.

Each array has memory of its own, so that a tool sees an access past its end. One line an operation; exit status 1 if one
is wrong.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from benchmarks.peers.refdiff_cuda import open_device
from refdiff.engines.cuda.context import Context, use
from refdiff.engines.cuda.memory import Separate

Check = tuple[str, list[tuple[int, ...]], dict[str, tuple[int, ...]], dict[str, Any], int]


def norm(c: int) -> dict[str, tuple[int, ...]]:
    return {"weight": (c,), "bias": (c,)}


# name, inputs, parameters, options, terms of the longest sum
CHECKS: list[Check] = [
    ("silu", [(3, 37)], {}, {}, 1),
    ("gelu", [(3, 37)], {}, {}, 1),
    ("softmax", [(5, 33)], {}, {}, 33),
    ("add", [(3, 5, 7)] * 2, {}, {}, 1),
    ("broadcast_add", [(2, 3, 5, 7), (2, 7)], {}, {}, 15),
    ("concat", [(2, 3, 5), (2, 3, 9)], {}, {}, 1),
    ("upsample_nearest", [(2, 3, 5, 7)], {}, {}, 4),
    ("average_pool", [(2, 4, 6, 5)], {}, {}, 4),
    ("group_norm", [(2, 5, 3, 6)], norm(6), {"groups": 3}, 60),
    ("group_norm_silu", [(3, 7, 5, 24)], norm(24), {"groups": 8}, 105),
    ("layer_norm", [(7, 37)], norm(37), {}, 37),
    ("linear", [(5, 7)], {"weight": (7, 3), "bias": (3,)}, {}, 16),
    ("linear", [(3, 11, 40)], {"weight": (40, 72), "bias": (72,)}, {}, 72),
    ("conv2d", [(2, 5, 7, 3)], {"weight": (3, 3, 3, 5), "bias": (5,)}, {}, 90),
    ("conv2d", [(1, 9, 6, 16)], {"weight": (3, 3, 16, 24), "bias": (24,)}, {}, 216),
    ("conv2d", [(2, 6, 8, 8)], {"weight": (3, 3, 8, 16), "bias": (16,)}, {"stride": 2, "padding": (0, 1)}, 144),
    ("attention", [(2, 17, 24)] * 3, {}, {"heads": 3}, 32),
    ("attention", [(1, 65, 64)] * 3, {}, {"heads": 1}, 80),
]


def check(context: Context, dtype: str, checks: list[Check]) -> int:
    """How many are wrong."""
    from emulator.agreement import check_agreement  # type: ignore[import-not-found]

    rng, wrong = np.random.default_rng(0), 0
    for name, shapes, parameters, options, terms in checks:
        x = tuple(rng.standard_normal(shape) for shape in shapes)
        p = {k: rng.standard_normal(s) / (np.prod(s[:-1]) ** 0.5 if len(s) > 1 else 1) for k, s in parameters.items()}
        try:
            check_agreement(context, name, x, p, dtype=dtype, terms=terms, **options)
        except Exception as error:
            wrong += 1
            print(f"FAILED {name} {shapes} {dtype}: {type(error).__name__}: {error}", flush=True)
        else:
            print(f"PASSED {name} {shapes} {dtype}", flush=True)
    return wrong


def steps(device: Any, dtype: str) -> int:
    """Two training steps of a small network, the second captured. 1 if they fail."""
    from refdiff.training import Config, State
    from refdiff.training.data import load
    from refdiff.training.graphed import Graphed

    config = Config.resolve("digits", changes=["model.width=8", "model.groups=4", "train.batch=2", "engine=cuda",
                                               "train.steps=20", "train.warmup=2", f"dtype={dtype}"])  # fmt: skip
    try:
        worker = Graphed(config, config.schedule.build(), State.first(config), device)
        for _ in range(2):
            worker.step(load("digits").x[:2])
    except Exception as error:
        print(f"FAILED two training steps {dtype}: {type(error).__name__}: {error}", flush=True)
        return 1
    print(f"PASSED two training steps {dtype}", flush=True)
    return 0


def main(arguments: list[str]) -> int:
    device = open_device(arguments[0])
    few = "--few" in arguments
    wrong = 0
    for dtype in ("float32", "bfloat16"):
        with use(Context(device, Separate(device))) as context:
            wrong += check(context, dtype, CHECKS[:1] if few else CHECKS)
        wrong += 0 if few else steps(device, dtype)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
