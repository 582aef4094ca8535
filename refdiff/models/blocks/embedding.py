"""What conditions every block: the timestep's sinusoids through two linear layers with SiLU, and the label's row."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from ..network import Batch, Input, Saved
from ..parameters import Parameter, linear_layout
from ..trees import Tree

__all__ = [
    "EMBEDDING_SILUS", "TIMES", "conditioning", "conditioning_backward", "conditioning_inputs", "conditioning_layout",
]  # fmt: skip

TIMES = ("ddpm", "adm")  # conventions of the sinusoids
EMBEDDING_SILUS = ("sum", "time")  # where the last SiLU stands: behind the sum, or before the label is added


def conditioning_layout(channels: int, width: int, classes: int = 0, null_label: bool = True) -> Tree:
    """classes: how many labels there are; null_label: one more row stands for no label."""
    p: Tree = {"time": {"linear1": linear_layout(channels, width), "linear2": linear_layout(width, width)}}
    if classes:
        p["label"] = {"weight": Parameter((classes + null_label, width), fan=width)}
    return p


def conditioning_inputs(classes: int = 0) -> dict[str, Input]:
    return {"t": Input((), "int")} | ({"label": Input((), "int")} if classes else {})


def conditioning(
    engine: ModuleType, p: Tree, inputs: Batch, convention: str, embedding_silu: str = "sum"
) -> tuple[Any, Saved]:
    """emb = silu(W2 silu(W1 sinusoids(t)) + the label's row).   t, label (N,) -> (N, E)   [ADM] section 3.1

    The last SiLU is the one each residual block begins with; embedding_silu "time": silu(W2 ...) + the label's row instead.
    p: of the whole network.
    """
    saved: Saved = {}
    time = p["time"]
    weight = time["linear1"]["weight"]
    h, saved["sinusoids"] = engine.time_embedding(inputs["t"], weight.shape[0], convention, weight.dtype)
    h, saved["linear1"] = engine.linear(h, **time["linear1"])
    h, saved["silu1"] = engine.silu(h)
    h, saved["linear2"] = engine.linear(h, **time["linear2"])
    if embedding_silu == "time":
        h, saved["silu_time"] = engine.silu(h)
    if "label" in p:
        e, saved["label"] = engine.embedding(inputs["label"], p["label"]["weight"])
        h, saved["add_label"] = engine.add(h, e)
    if embedding_silu == "sum":
        h, saved["silu_sum"] = engine.silu(h)
    return h, saved


def conditioning_backward(engine: ModuleType, demb: Any, saved: Saved, needs_dt: bool = False) -> tuple[Any, Tree]:
    """-> dt (N,) of a t that is no integer, None unless needs_dt; the gradients of "time" and, if there is one, "label"."""
    g: Tree = {"time": {}}
    dh = demb
    if "silu_sum" in saved:
        dh = engine.silu_backward(dh, saved["silu_sum"])
    if "label" in saved:
        dh, de = engine.add_backward(dh, saved["add_label"])
        g["label"] = engine.embedding_backward(de, saved["label"])
    if "silu_time" in saved:
        dh = engine.silu_backward(dh, saved["silu_time"])
    dh, g["time"]["linear2"] = engine.linear_backward(dh, saved["linear2"])
    dh = engine.silu_backward(dh, saved["silu1"])
    dh, g["time"]["linear1"] = engine.linear_backward(dh, saved["linear1"], needs_dx=needs_dt)
    return engine.time_embedding_backward(dh, saved["sinusoids"]) if needs_dt else None, g
