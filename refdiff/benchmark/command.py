"""`refdiff bench`: the host's engines side by side, where a training step's time goes, and a user's kernel beside ours."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..engines.cuda.runtime.device import DeviceError
from ..errors import one_of
from .cases import conditions, config_of, draw, network, operations
from .harness import Budget, measure
from .host import trainer_of
from .kernel import check_and_time, compile_alone, no_gpu, parse
from .machine import result
from .process import PeerProcess
from .tables import markdown

__all__ = ["engines", "kernel", "measured", "profiled", "run"]

SHOWN = ("conv2d", "group_norm_silu", "attention", "linear", "silu")


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """What the options ask for, as a dictionary and as text.   ValueError for options that do not go together."""
    if options.kernel:
        one_of("--dtype", options.dtype or "float32", ("float32", "bfloat16"))
        if options.profile:
            raise ValueError("--profile: expected without --kernel: it says where the time of a cpu training step goes")
        return kernel(options.kernel, options.operation, options.dtype or "float32")
    if options.operation:
        raise ValueError(f"--as: expected with --kernel FILE.cu:NAME, got --as {options.operation} alone")
    if options.dtype not in (None, "float32"):
        raise ValueError(f"--dtype: expected with --kernel, got {options.dtype} alone; the host's engines are float32")
    network(options.model)
    if options.batch < 1:
        raise ValueError(f"--batch: expected at least 1, got {options.batch}")
    if options.profile:
        return profiled(options.model, options.batch)
    if options.seconds < 1:
        raise ValueError(f"--seconds: expected at least 1, got {options.seconds}")
    return engines(options.model, options.batch, options.seconds)


def engines(model: str, batch: int, seconds: float) -> tuple[dict[str, Any], str]:
    """The cpu engine beside the reference: a training step, a forward pass, and one shape of the main operations."""
    common = {"model": model, "batch": batch, "dtype": "float32", "seed": 0}
    cases = [{"kind": kind, **common} for kind in ("train", "forward")]
    every = operations(model, batch)
    largest = {(c["operation"], c["direction"]): c for c in sorted(every, key=lambda c: c["count"])}
    cases += [largest[name, way] for name in SHOWN for way in ("forward", "backward") if (name, way) in largest]
    budget, records = Budget(seconds), []
    one = {"OPENBLAS_NUM_THREADS": "1"}
    peers = {
        name: PeerProcess([sys.executable, "-m", "refdiff.benchmark.host", name], one) for name in ("reference", "cpu")
    }
    try:
        for each in peers.values():
            each.start()
        for i, case in enumerate(cases):
            own = budget.part(max(0.25, 1 / (len(cases) - i)) if i < 2 else 1 / (len(cases) - i))
            how: dict[str, Any] = {"rounds": 5} if case["kind"] != "operation" else {"rounds": 7, "repeats": 3}
            records.append(measure(case, peers, subject="cpu", tolerance=1e-4, budget=own, **how))
    finally:
        for each in peers.values():
            each.close()
    found = result("refdiff bench", records)
    return found, markdown(found)


def measured(found: dict[str, Any]) -> bool:
    """Whether every case asked for has a time of its subject, to the end, and of a right result."""
    entries = [record["peers"][record["subject"]] for record in found.get("records", [])]
    return all("seconds" in entry and not {"error", "wrong"} & entry.keys() for entry in entries)


def profiled(model: str, batch: int) -> tuple[dict[str, Any], str]:
    """Where the time of one training step of the cpu engine goes, by operation, shape and algorithm."""
    from ..engines.cpu.runtime.profiler import profile

    case = {"kind": "train", "model": model, "batch": batch, "dtype": "float32", "seed": 0}
    worker = trainer_of(case, "cpu")
    config = config_of(case, "cpu").model
    data = {"x": draw((batch, *config.shape), 0, 0.5)} | conditions(config, batch, 0)
    for _ in range(2):  # the second is captured
        worker.step(data)
    with profile() as record:
        worker.step(data)
    lines = [line._asdict() for line in record.lines()]
    text = record.table()
    processes = worker.parallel.processes(batch)
    if processes > 1:
        text += f"\nThis is one process of {processes}: each computes its part of the batch at the same time."
    return {"model": model, "batch": batch, "operations": lines}, text


def kernel(text: str, operation: str | None, dtype: str) -> tuple[dict[str, Any], str]:
    """Compile, check against the reference, time beside ours. DeviceError where there is no GPU, after it was compiled."""
    path, name, operation = parse(text, operation)
    compiled = compile_alone(path, name, dtype)
    try:
        from ..engines.cuda.runtime.cupy_device import CupyDevice

        device = CupyDevice()
    except DeviceError as error:
        raise no_gpu(compiled, error) from error
    found = {**check_and_time(Path(path), name, operation, dtype, device), "compiled": compiled}
    return found, kernel_text(found)


def kernel_text(found: dict[str, Any]) -> str:
    """For people."""
    lines = [f"{found['kernel']} as {found['operation']}, {found['dtype']}, on {found['device']}", ""]
    for architecture, figures in found.get("compiled", {}).items():
        lines.append(f"{architecture:7} {figures}")
    for c in found["checked"]:
        sizes = " ".join(f"{k}={v}" for k, v in c["sizes"].items())
        lines.append(f"right   error {c['error']:.1e}, bound {c['bound']:.1e}, at {sizes}")
    if "ratio" in found:
        low, high = found["ratio"]["quartiles"]
        lines += [f"theirs  {1e6 * found['theirs']['median']:.1f} µs", f"ours    {1e6 * found['ours']['median']:.1f} µs",
                  f"ratio   {found['ratio']['median']:.3f} [{low:.3f}, {high:.3f}], theirs over ours"]  # fmt: skip
    return "\n".join(lines)
