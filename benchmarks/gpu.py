"""refdiff's CUDA engine on the GPU of this machine, checked and measured: python -m benchmarks.gpu (`make gpu`).

It needs Python, NumPy and CuPy; with PyTorch it has peers, with pytest the whole test suite of the engine, with
compute-sanitizer its four tools. What is missing is said, and the rest goes on. It ends within --seconds (1500).

--parts: some of it, so that a short time on a GPU can be used in pieces: what --out holds already stays, each part with the
commit and the machine it was measured with, and what is measured again takes the place of what was. --add: files of other
runs, to be taken in as well. The exit status is 1 if a part failed: a check, or fewer cases measured than asked for.

--dry: the same orchestration on the emulator of tests/, with tiny shapes: what it times means nothing.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import gpu_checks
from benchmarks.cpu import work
from benchmarks.earlier import read
from benchmarks.suite import ROOT, Suite, close, counted, peer, start
from refdiff.benchmark import Budget, PeerError, PeerProcess
from refdiff.benchmark.cases import operations
from refdiff.benchmark.counting import floor
from refdiff.benchmark.device import COPIES

SUBJECT = "refdiff"
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}  # in norm, between libraries: the checks compare with the reference
MOST = 0.5  # of the time that is left, for one operation that is not the last: one that hangs costs no more
TINY = {"size": 8, "channels": 1, "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "groups": 4}


# In the order in which they are run, with their shares of the time: what counts most, first.
PARTS = {
    "ceilings": 30,
    "checks": 200,
    "agreement": 60,
    "networks": 320,
    "operations": 360,
    "tiles": 330,
    "sanitizers": 200,
}


class Plan:
    """What is run: on a GPU, or dry. asked: the parts that were asked for by name."""

    def __init__(self, dry: bool, asked: Sequence[str] = ()) -> None:
        self.asked, self.tests, self.chosen = tuple(asked), sorted((ROOT / "tests/engines/cuda").glob("test_*.py")), ""
        self.patience = 20.0 if dry else 120.0  # seconds that one test may take
        self.dry, self.device, self.torch = dry, "emulator" if dry else "gpu", "cpu" if dry else "cuda"
        self.ceilings = {"kind": "ceilings", "size": 64 if dry else 8192, "bytes": 1 << (16 if dry else 30)}
        if dry:
            self.steps = [("train", TINY, 2, "float32", 1), ("forward", TINY, 2, "float32", 1)]
            self.operations = [c for c in operations(TINY, 2, "float32") if c["operation"] == "silu"]
            self.tests, self.chosen = [ROOT / "tests/engines/cuda/test_activation.py"], "silu and shape1"
            self.rounds, self.repeats, self.variants = 2, 2, ["eager"]
        else:
            # kind, network, batch, dtype, steps of one repeat: those that matter most first
            self.steps = [
                ("train", "cifar10", 128, "bfloat16", 3), ("train", "digits", 64, "bfloat16", 20),
                ("train", "unet64", 32, "bfloat16", 3), ("train", "cifar10", 128, "float32", 2),
                ("train", "digits", 64, "float32", 20), ("sample", "cifar10", 128, "bfloat16", 1),
                ("sample", "digits", 64, "bfloat16", 2), ("sample", "unet64", 32, "bfloat16", 1),
                ("forward", "cifar10", 128, "bfloat16", 5),
            ]  # fmt: skip
            self.operations = sorted(operations("cifar10", 128, "bfloat16"), key=work, reverse=True)
            self.rounds, self.repeats, self.variants = 7, 5, ["eager", "channels-last", "compile"]
        self.operations = [{**case, "copies": 2 if dry else COPIES} for case in self.operations]

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
        found = {"through": name, **each.extra}
        suite.more.update(found)
        return (f"copy {found['copy_bytes_per_second'] / 1e12:.2f} TB/s, products bfloat16 "
                f"{found['bfloat16_per_second'] / 1e12:.0f} and float32 {found['float32_per_second'] / 1e12:.1f} TFLOP/s, "
                f"through {name}")  # fmt: skip
    raise RuntimeError("; ".join(errors))


def networks(suite: Suite, budget: Budget, plan: Plan) -> str:
    """Training steps, sampling and forward beside PyTorch."""
    peers = {f"torch {variant}": plan.pytorch(variant) for variant in plan.variants} | {SUBJECT: plan.refdiff()}
    cases, records = plan.cases(), []
    try:
        suite.more["peers"] = start(suite, peers, SUBJECT, budget)
        for i, case in enumerate(cases):
            if budget.left < 2:
                break
            # Half of what is left for the first: its networks are compiled for the first time.
            own = budget.part(max(0.35, 1 / (len(cases) - i)))
            records.append(suite.case(case, peers, subject=SUBJECT, tolerance=TOLERANCE[case["dtype"]], budget=own,
                                      rounds=plan.rounds))  # fmt: skip
    finally:
        close(peers)
    return counted(records, len(cases))


def each_operation(suite: Suite, budget: Budget, plan: Plan) -> str:
    """Each operation beside its floor and cuDNN, cuBLAS and scaled_dot_product_attention, through PyTorch."""
    variant = plan.variants[min(1, len(plan.variants) - 1)]
    peers = {f"torch {variant}": plan.pytorch(variant), SUBJECT: plan.refdiff()}
    records, found = [], suite.parts["ceilings"]["found"]  # of this run: they are measured before
    try:
        suite.more["peers"] = start(suite, peers, SUBJECT, budget)
        for i, case in enumerate(plan.operations):
            rest = len(plan.operations) - i
            if budget.left < 1:
                break
            record = suite.case(case, peers, subject=SUBJECT, tolerance=TOLERANCE[case["dtype"]], rounds=plan.rounds,
                                repeats=plan.repeats, budget=budget.part(max(1 / rest, min(MOST, 4 / rest))))  # fmt: skip
            ours = record["peers"][SUBJECT]
            if "bytes" in ours:
                record["floor"] = floor(ours["bytes"], ours["operations"], found, case["dtype"])
            records.append(record)
    finally:
        close(peers)
    return counted(records, len(plan.operations))


def tiles(suite: Suite, budget: Budget, plan: Plan) -> str:
    """Every tile shape for every product of the presets, and the table that the engine chooses from."""
    from benchmarks.tiles import tiles  # type: ignore[import-not-found]

    return tiles(suite, budget, plan)


STEPS: dict[str, tuple[str, Callable[[Suite, Budget, Plan], str]]] = {
    "ceilings": ("the machine's ceilings", ceilings),
    "checks": ("every kernel against the reference", gpu_checks.checks),
    "agreement": ("whole trainings against the reference", gpu_checks.agreement),
    "networks": ("whole networks", networks),
    "operations": ("each operation", each_operation),
    "tiles": ("tile shapes", tiles),
    "sanitizers": ("compute-sanitizer", gpu_checks.sanitizers),
}


def chosen_of(text: str) -> list[str]:
    """Of --parts, in order. ValueError for a part that there is not. Floors need the ceilings of the same run."""
    asked = [] if text == "none" else text.split(",")
    if unknown := set(asked) - set(PARTS):
        raise ValueError(f"--parts: expected some of {', '.join(PARTS)}, or none, got {', '.join(sorted(unknown))}")
    return [key for key in PARTS if key in asked or (key == "ceilings" and "operations" in asked)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--out",
        default="benchmarks/results/gpu.json",
        help="FOLDER/NAME.json, which a run goes on with; NAME.md beside it",
    )
    parser.add_argument("--seconds", type=float, default=1500, help="the budget (default: 1500)")
    parser.add_argument("--dry", action="store_true", help="on the emulator, with tiny shapes")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"which, by commas, of {', '.join(PARTS)}; or none")
    parser.add_argument("--add", nargs="+", default=[], metavar="FILE", help="results of other runs, to be taken in")
    options = parser.parse_args(arguments)
    name = "gpu, dry: nothing here was measured on a GPU" if options.dry else "gpu"
    try:
        chosen = chosen_of(options.parts)
        add = [read(path, name) for path in [*[options.out] * Path(options.out).exists(), *options.add]]
    except (ValueError, OSError) as error:
        parser.error(str(error))
    plan = Plan(options.dry, chosen if options.parts != parser.get_default("parts") else ())
    suite = Suite(name, options.out, options.seconds, add)
    warming: Warming | None = None
    for i, key in enumerate(chosen):
        if key == "checks" and "networks" in chosen:
            warming = Warming(plan)
        if key == "networks" and warming:
            warming.end()
        title, run = STEPS[key]
        share = PARTS[key] / sum(PARTS[other] for other in chosen[i:])
        suite.part(key, title, share, lambda budget, run=run: run(suite, budget, plan))  # type: ignore[misc]
    return suite.finish()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: peers that rest are not left behind
    sys.exit(main())
