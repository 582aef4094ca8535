"""How many bytes an operation must move and how many additions and multiplications it must do, from its real tensors.

The floor of its time is the larger of bytes over the copy bandwidth and operations over the rate of matrix products. Each
tensor counts once: what an operation reads twice, or keeps for its backward, is its own affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

__all__ = ["floor", "operations_of"]


def operations_of(case: Mapping[str, Any], output: tuple[int, ...]) -> int:
    """Floating-point operations of the matrix products; 0 where there are none.   output: the shape of y."""
    name, weight = case["operation"], case["parameters"].get("weight")
    backward = case["direction"] == "backward"
    if name in ("conv2d", "linear"):
        forward = 2 * prod(output) * prod(weight[:-1])
        return 2 * forward if backward else forward
    if name == "attention":
        (n, s, c), length = case["inputs"][0], case["inputs"][1][1]
        # Two products forward; backward one of them again and four more.
        return (5 if backward else 2) * 2 * n * s * length * c
    return 0


def floor(nbytes: int, operations: int, ceilings: Mapping[str, Any], dtype: str) -> float | None:
    """Seconds.   ceilings: copy_bytes_per_second, and float32_per_second or bfloat16_per_second, as measured in this run."""
    copy, rate = ceilings.get("copy_bytes_per_second"), ceilings.get(f"{dtype}_per_second")
    if not copy or (operations and not rate):
        return None
    return max(nbytes / copy, operations / rate if rate else 0.0)
