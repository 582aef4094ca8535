"""Every operation once, forward and backward, on awkward shapes and in both types, against the reference; then two steps of
a small network, launched and captured: python -m benchmarks.odd_shapes gpu|emulator. What compute-sanitizer watches.

Each array has memory of its own, so that a tool sees an access past its end. One line a check; exit status 1 if one is
wrong, 70 where the GPU does nothing more for this process: a new one goes on with --from and the number of checks done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.peers.refdiff_cuda import open_device
from refdiff.benchmark.protocol import FATAL
from refdiff.engines.cuda.runtime.context import Context, use
from refdiff.engines.cuda.runtime.device import is_lost
from refdiff.engines.cuda.runtime.memory import PerArrayAllocator

Check = tuple[str, list[tuple[int, ...]], dict[str, tuple[int, ...]], dict[str, Any], int]


def norm(c: int) -> dict[str, tuple[int, ...]]:
    return {"weight": (c,), "bias": (c,)}


# name, inputs, parameters, options, terms of the longest sum
CHECKS: list[Check] = [
    ("silu", [(3, 37)], {}, {}, 1),
    ("gelu", [(3, 37)], {}, {}, 1),
    ("softmax", [(5, 33)], {}, {}, 33),
    ("relu", [(3, 37)], {}, {}, 1),
    ("add", [(3, 5, 7)] * 2, {}, {}, 1),
    ("broadcast_add", [(2, 3, 5, 7), (2, 7)], {}, {}, 15),
    ("add_positions", [(3, 5, 7)], {"weight": (5, 7)}, {}, 3),
    ("scale", [(3, 5, 7)], {}, {"factor": 0.3}, 1),
    ("global_average_pool", [(2, 3, 5, 7)], {}, {}, 15),
    ("resize_bilinear", [(2, 3, 5, 7)], {}, {"size": (5, 11)}, 16),
    ("resize_bilinear", [(2, 7, 5, 8)], {}, {"size": (3, 2)}, 4),
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


def check(device: Any, dtype: str, one: Check) -> None:
    """AssertionError where it is wrong."""
    from emulator.agreement import check_agreement  # type: ignore[import-not-found]

    name, shapes, parameters, options, terms = one
    rng = np.random.default_rng(CHECKS.index(one))
    x = tuple(rng.standard_normal(shape) for shape in shapes)
    p = {k: rng.standard_normal(s) / (np.prod(s[:-1]) ** 0.5 if len(s) > 1 else 1) for k, s in parameters.items()}
    with use(Context(device, PerArrayAllocator(device))) as context:
        check_agreement(context, name, x, p, dtype=dtype, terms=terms, **options)


def steps(device: Any, dtype: str) -> None:
    """Two training steps of a small network, the second captured."""
    from refdiff.config import Config
    from refdiff.data import load
    from refdiff.training import State
    from refdiff.training.trainers.cuda import CUDATrainer

    config = Config.resolve("digits", changes=["model.width=8", "model.groups=4", "train.batch=2", "engine=cuda",
                                               "train.steps=20", "train.warmup=2", f"dtype={dtype}"])  # fmt: skip
    worker = CUDATrainer(config, State.first(config), device)
    for _ in range(2):
        worker.step({"x": load("digits").x[:2]})


def everything(few: bool) -> list[tuple[str, Callable[[Any], None]]]:
    """What is checked, with its name, in order."""
    found: list[tuple[str, Callable[[Any], None]]] = []
    for dtype in ("float32", "bfloat16"):
        for one in CHECKS[:1] if few else CHECKS:
            found.append((f"{one[0]} {one[1]} {dtype}", partial(check, dtype=dtype, one=one)))
        if not few:
            found.append((f"two training steps {dtype}", partial(steps, dtype=dtype)))
    return found


def main(arguments: list[str]) -> int:
    first = int(arguments[arguments.index("--from") + 1]) if "--from" in arguments else 0
    device, wrong = open_device(arguments[0]), 0
    for name, run in everything("--few" in arguments)[first:]:
        try:
            run(device)
        except Exception as error:
            wrong += 1
            print(f"FAILED {name}: {type(error).__name__}: {' '.join(str(error).split())}", flush=True)
            if is_lost(error):
                return FATAL
        else:
            print(f"PASSED {name}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
