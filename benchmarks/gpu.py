"""refdiff's CUDA engine on the GPU of this machine, checked and measured: python -m benchmarks.gpu (`make gpu`).

It needs Python, NumPy and CuPy; with PyTorch it has peers, with pytest the whole test suite of the engine, with
compute-sanitizer its four tools. What is missing is said, and the rest goes on. It ends within --seconds (520).

--dry: the same orchestration on the emulator of tests/, with tiny shapes: what it times means nothing.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from benchmarks import gpu_checks
from benchmarks.cpu import work
from benchmarks.suite import Suite, close, peer, start
from refdiff.benchmark import Budget, PeerError, PeerProcess
from refdiff.benchmark.cases import operations
from refdiff.benchmark.counting import floor
from refdiff.benchmark.machine import machine

SUBJECT = "refdiff"
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}  # in norm, between libraries: the checks compare with the reference
TINY = {"size": 8, "channels": 1, "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "groups": 4}


PARTS = ("ceilings", "checks", "agreement", "networks", "kernels", "sanitizer")


class Plan:
    """What is run: on a GPU, or dry."""

    def __init__(self, dry: bool) -> None:
        self.dry, self.device, self.torch = dry, "emulator" if dry else "gpu", "cpu" if dry else "cuda"
        self.ceilings = {"kind": "ceilings", "size": 64 if dry else 8192, "bytes": 1 << (16 if dry else 30)}
        if dry:
            self.steps = [("train", TINY, 2, "float32", 1), ("forward", TINY, 2, "float32", 1)]
            self.operations = [c for c in operations(TINY, 2, "float32") if c["operation"] == "silu"]
            self.rounds, self.repeats, self.variants = 2, 2, ["eager"]
        else:
            # kind, network, batch, dtype, steps of one repeat: those that matter most first
            self.steps = [
                ("train", "cifar10", 128, "bfloat16", 3), ("train", "digits", 64, "bfloat16", 20),
                ("train", "adm64", 32, "bfloat16", 3), ("train", "cifar10", 128, "float32", 2),
                ("train", "digits", 64, "float32", 20), ("sample", "cifar10", 128, "bfloat16", 1),
                ("sample", "digits", 64, "bfloat16", 2), ("sample", "adm64", 32, "bfloat16", 1),
                ("forward", "cifar10", 128, "bfloat16", 5),
            ]  # fmt: skip
            self.operations = sorted(operations("cifar10", 128, "bfloat16"), key=work, reverse=True)
            self.rounds, self.repeats, self.variants = 7, 20, ["eager", "channels-last", "compile"]

    def cases(self) -> list[dict[str, Any]]:
        names = ("kind", "model", "batch", "dtype", "inner")
        return [
            {**dict(zip(names, step, strict=True)), "seed": 0, "steps": 2 if self.dry else 5} for step in self.steps
        ]

    def refdiff(self) -> PeerProcess:
        return peer("benchmarks.peers.refdiff_cuda", self.device)

    def pytorch(self, variant: str) -> PeerProcess:
        return peer("benchmarks.peers.torch_peer", "--device", self.torch, "--variant", variant)


class Warming:
    """torch.compile takes a minute a network: begun while the checks run, which need no quiet, into its cache on disk."""

    def __init__(self, plan: Plan) -> None:
        self.peer, self.cases = plan.pytorch("compile"), [c for c in plan.cases() if c["kind"] == "train"]
        self.thread = threading.Thread(target=self._run, daemon=True)
        if "compile" in plan.variants:
            self.thread.start()

    def _run(self) -> None:
        try:
            for case in self.cases:
                self.peer.prepare(case, 300)
        except Exception as error:  # the part that needs it will say so
            print(f"  torch.compile ahead of time: {error}", flush=True)

    def end(self) -> None:
        process = self.peer._process
        if process is not None and process.poll() is None:
            process.kill()
        if self.thread.is_alive():
            self.thread.join(10)
        self.peer.close()


def ceilings(suite: Suite, budget: Budget, plan: Plan) -> str:
    """Copy bandwidth and the rates of matrix products, of the fastest library at hand."""
    errors = []
    for name, each in (("PyTorch", plan.pytorch("eager")), ("NumPy" if plan.dry else "CuPy", plan.refdiff())):
        with each:
            try:
                each.prepare(plan.ceilings, budget.patience)
            except PeerError as error:
                errors.append(f"{name}: {error}")
                continue
        found = suite.more["ceilings"] = {"through": name, **each.extra}
        return (f"copy {found['copy_bytes_per_second'] / 1e12:.2f} TB/s, products bfloat16 "
                f"{found['bfloat16_per_second'] / 1e12:.0f} and float32 {found['float32_per_second'] / 1e12:.1f} TFLOP/s, "
                f"through {name}")  # fmt: skip
    raise RuntimeError("; ".join(errors))


def networks(suite: Suite, budget: Budget, plan: Plan) -> str:
    """Training steps, sampling and forward beside PyTorch."""
    peers = {f"torch {variant}": plan.pytorch(variant) for variant in plan.variants} | {SUBJECT: plan.refdiff()}
    cases, measured = plan.cases(), 0
    try:
        suite.more["peers"] = start(suite, peers, SUBJECT, budget)
        for i, case in enumerate(cases):
            if budget.left < 2:
                break
            # Half of what is left for the first: its networks are compiled for the first time.
            record = suite.case(case, peers, subject=SUBJECT, tolerance=TOLERANCE[case["dtype"]],
                                budget=budget.part(max(0.35, 1 / (len(cases) - i))), rounds=plan.rounds)  # fmt: skip
            measured += "seconds" in record["peers"][SUBJECT]
    finally:
        close(peers)
    return f"{measured} of {len(cases)} cases were measured"


def kernels(suite: Suite, budget: Budget, plan: Plan) -> str:
    """Each operation beside its floor and cuDNN, cuBLAS and scaled_dot_product_attention, through PyTorch."""
    variant = plan.variants[min(1, len(plan.variants) - 1)]
    peers = {f"torch {variant}": plan.pytorch(variant), SUBJECT: plan.refdiff()}
    measured, found = 0, suite.more.get("ceilings", {})
    try:
        start(suite, peers, SUBJECT, budget)
        for i, case in enumerate(plan.operations):
            if budget.left < 1:
                break
            record = suite.case(case, peers, subject=SUBJECT, tolerance=TOLERANCE[case["dtype"]], rounds=plan.rounds,
                                repeats=plan.repeats, budget=budget.part(4 / (len(plan.operations) - i)))  # fmt: skip
            ours = record["peers"][SUBJECT]
            if "bytes" in ours:
                record["floor"] = floor(ours["bytes"], ours["operations"], found, case["dtype"])
            measured += "seconds" in ours
    finally:
        close(peers)
    return f"{measured} of {len(plan.operations)} cases were measured"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", default="benchmarks/results/gpu.json", help="NAME.json; NAME.md beside it")
    parser.add_argument("--seconds", type=float, default=520, help="the budget (default: 520)")
    parser.add_argument("--dry", action="store_true", help="on the emulator, with tiny shapes")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, by commas")
    options = parser.parse_args(arguments)
    chosen = options.parts.split(",")
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"--parts: expected some of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    plan = Plan(options.dry)
    suite = Suite(
        "gpu, dry: nothing here was measured on a GPU" if options.dry else "gpu", options.out, options.seconds
    )
    suite.more["dry"] = options.dry
    parts = {
        "ceilings": ("the machine's ceilings", 0.1, lambda b: ceilings(suite, b, plan)),
        "checks": ("every kernel against the reference", 0.25, lambda b: gpu_checks.kernels(suite, b, plan)),
        "agreement": ("whole trainings against the reference", 0.2, lambda b: gpu_checks.agreement(suite, b, plan)),
        "networks": ("whole networks", 0.5, lambda b: networks(suite, b, plan)),
        "kernels": ("each operation", 0.62, lambda b: kernels(suite, b, plan)),
        "sanitizer": ("compute-sanitizer", 0.9, lambda b: gpu_checks.sanitizer(suite, b, plan)),
    }
    warming: Warming | None = None
    for key in (key for key in PARTS if key in chosen):
        if key == "checks" and "networks" in chosen:
            warming = Warming(plan)
        if key == "networks" and warming:
            warming.end()
        name, share, run = parts[key]
        suite.part(key, name, share, run)
    suite.more["machine_after"] = machine()
    return suite.finish()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: peers that rest are not left behind
    sys.exit(main())
