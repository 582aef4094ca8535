"""refdiff's cpu engine beside PyTorch and the reference engine: python -m benchmarks.cpu (`make bench`).

--quick: under two minutes. --parts: some parts alone, over the results at --out. Without PyTorch the rest is measured and
the table says what is missing.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.earlier import read
from benchmarks.suite import Suite, close, counted, peer, start
from refdiff.benchmark import Budget, PeerError, PeerProcess
from refdiff.benchmark.cases import operations
from refdiff.benchmark.counting import operations_of

SUBJECT = "cpu"
TORCH = "benchmarks.peers.torch_peer"
TOLERANCE = 1e-4  # in norm, against the first that answers
STEPS = [("digits", 64), ("cifar10", 4), ("cifar10", 16)]
ADM = [("digits-adm", 64)]  # adaptive group norm, resampling inside residual blocks, a label
BATCHES, SIZES = (1, 2, 4, 8, 16, 32, 64), (8, 16, 32, 64)


def peers_of(threads: int, python: str) -> dict[str, PeerProcess]:
    """PyTorch first: it judges."""
    found = {f"torch {variant}": peer(TORCH, "--variant", variant, threads=threads, python=python)
             for variant in ("eager", "channels-last")}  # fmt: skip
    for name in ("reference", SUBJECT):
        found[name] = peer("refdiff.benchmark.host", name, threads=threads)
    return found


def networks(
    suite: Suite, budget: Budget, threads: Sequence[int], python: str, quick: bool, models: Sequence[tuple[str, int]]
) -> str:
    """Training step, forward pass and sampling step of whole networks."""
    kinds = [(kind, model, batch) for model, batch in models for kind in ("train", "forward", "sample")]
    kinds.sort(key=lambda kind: kind == ("train", *STEPS[2]))  # the longest gets all the time that the others left
    if quick:
        kinds = [("train", *STEPS[0]), ("train", *STEPS[1]), ("forward", *STEPS[1])]
    asked = left = len(kinds) * len(threads)
    records = []
    for n in threads:
        peers = peers_of(n, python)
        if quick:
            del peers["reference"]
        try:
            suite.more[f"peers at {n} threads"] = start(suite, peers, SUBJECT, budget)
            for kind in kinds:
                chosen = peers
                if kind == ("train", *STEPS[2]):  # where the reference would take the time of all the others
                    chosen = {name: each for name, each in peers.items() if name != "reference"}
                records.append(suite.case(case_of(*kind), chosen, subject=SUBJECT, tolerance=TOLERANCE,
                                          budget=budget.part(1 / left), rounds=5 if quick else 15,
                                          extra={"threads": n}))  # fmt: skip
                left -= 1
        finally:
            close(peers)
    return f"{counted(records, asked)} at {' and '.join(map(str, threads))} threads"


def compiled(suite: Suite, budget: Budget, threads: int, python: str) -> str:
    """Training steps beside torch.compile, which takes minutes before its first step: apart, so that nobody waits for it."""
    peers = {"torch compile": peer(TORCH, "--variant", "compile", threads=threads, python=python),
             SUBJECT: peer("refdiff.benchmark.host", SUBJECT, threads=threads)}  # fmt: skip
    records = []
    try:
        start(suite, peers, SUBJECT, budget)
        for i, (model, batch) in enumerate(STEPS[:2]):
            title = f"training steps beside torch.compile, {threads} threads"
            records.append(suite.case(case_of("train", model, batch), peers, subject=SUBJECT, tolerance=TOLERANCE,
                                      budget=budget.part((0.6, 1)[i]), rounds=11, extra={"title": title}))  # fmt: skip
    finally:
        close(peers)
    return counted(records, 2)


def case_of(kind: str, model: str | dict[str, Any], batch: int) -> dict[str, Any]:
    return {"kind": kind, "model": model, "batch": batch, "dtype": "float32", "seed": 0, "steps": 1}


def memory(suite: Suite, budget: Budget, threads: int, python: str, quick: bool) -> str:
    """The most that a program has had that made two training steps and nothing else."""
    chosen = STEPS[1:2] if quick else STEPS
    peers = peers_of(threads, python)
    if quick:
        del peers["reference"], peers["torch eager"]
    rest, records = len(chosen) * len(peers), []
    for model, batch in chosen:
        case = case_of("train", model, batch) | {"alone": True}  # no copy of the weights to compare
        entries: dict[str, Any] = {}
        for name, each in peers.items():
            own, entries[name] = budget.part(1 / rest), {}
            rest -= 1
            with each:
                try:
                    each.prepare(case, own.patience)
                    each.time(1, own.patience)
                    entries[name]["memory"] = each.memory()
                except PeerError as error:
                    entries[name]["error"] = str(error)
        title = "peak memory of two training steps, all processes together"
        record = {"case": case, "subject": SUBJECT, "peers": entries, "ratios": {}, "title": title}
        records.append(suite.keep(record))
    return counted(records, len(chosen), "memory")


def each_operation(suite: Suite, budget: Budget, threads: Sequence[int], python: str, quick: bool) -> str:
    """Every shape of the cifar10 U-Net's training step at batch 4, those with the most work first."""
    cases = sorted(operations("cifar10", 4), key=work, reverse=True)[: 5 if quick else None]
    asked = left = len(cases) * len(threads)
    records = []
    for n in threads:
        peers = peers_of(n, python)
        try:
            start(suite, peers, SUBJECT, budget)
            for case in cases:
                own, left = budget.part(1 / left), left - 1
                if budget.left < 1:
                    break
                records.append(suite.case(case, peers, subject=SUBJECT, tolerance=TOLERANCE, budget=own, rounds=7,
                                          repeats=3, extra={"threads": n}))  # fmt: skip
        finally:
            close(peers)
    return counted(records, asked)


def work(case: dict[str, Any]) -> float:
    """Roughly how long all of its kind take: products at 1, numbers moved at 50."""
    shapes = case["inputs"]
    numbers = sum(_size(s) for s in shapes)
    if case["operation"] == "conv2d":
        stride = case["options"].get("stride", 1)
        n, h, w, _ = shapes[0]
        output = (n, h // stride, w // stride, case["parameters"]["weight"][-1])
    elif case["operation"] == "linear":
        output = (*shapes[0][:-1], case["parameters"]["weight"][-1])
    else:
        output = tuple(shapes[0])
    return case["count"] * (operations_of(case, output) + 50 * numbers)


def _size(shape: Sequence[int]) -> int:
    n = 1
    for k in shape:
        n *= k
    return n


def growth(suite: Suite, budget: Budget, threads: int, python: str, quick: bool) -> str:
    """A training step as the batch and as the images grow, as a plot."""
    peers = peers_of(threads, python)
    del peers["torch eager"], peers["reference"]
    batches, sizes = (BATCHES[::3], SIZES[:2]) if quick else (BATCHES, SIZES)
    small = {"channels": 3, "width": 32, "multipliers": [1, 2, 2], "blocks": 1, "groups": 8}
    cases = [("batch", n, {"model": "digits", "batch": n}) for n in batches]
    cases += [("size", s, {"model": {**small, "size": s, "attention": [s // 4]}, "batch": 4}) for s in sizes]
    points: dict[str, dict[str, list[tuple[int, float]]]] = {"batch": {}, "size": {}}
    records = []
    try:
        start(suite, peers, SUBJECT, budget)
        for i, (axis, value, case) in enumerate(cases):
            record = suite.case(case_of("train", **case), peers, subject=SUBJECT,
                                tolerance=TOLERANCE, budget=budget.part(1 / (len(cases) - i)), rounds=5,
                                extra={"title": f"how a training step grows with the {axis}"})  # fmt: skip
            records.append(record)
            for name, entry in record["peers"].items():
                if "seconds" in entry:
                    points[axis].setdefault(name, []).append((value, entry["seconds"]))
    finally:
        close(peers)
    drawn = plot(suite, points)
    return f"{counted(records, len(cases))}, {drawn}"


def plot(suite: Suite, points: dict[str, dict[str, list[tuple[int, float]]]]) -> str:
    from matplotlib.ticker import LogLocator

    from refdiff.plotting import new_figure

    figure = new_figure(9, 3.6)
    words = {"batch": "images in a batch (digits)", "size": "height and width of an image (width 32, batch 4)"}
    for axes, (axis, lines) in zip(figure.subplots(1, 2), points.items(), strict=True):
        for name, line in lines.items():
            axes.loglog([x for x, _ in line], [1e3 * y for _, y in line], "o-", label=name)
        ticks = sorted({x for line in lines.values() for x, _ in line})
        axes.set_xticks(ticks, map(str, ticks))
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set(xlabel=words[axis], ylabel="milliseconds a training step")
        axes.grid(alpha=0.3)
        if lines:
            axes.legend(frameon=False)
    path = suite.out.with_suffix(".png")
    figure.savefig(path, dpi=150)
    return f"drawn in {path.name}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description=__doc__)
    parser.add_argument(
        "--out", default="benchmarks/results/cpu.json", help="NAME.json; NAME.md and NAME.png beside it"
    )
    parser.add_argument("--parts", help="some alone, by commas: networks, adm, compiled, memory, operations, growth")
    parser.add_argument("--quick", action="store_true", help="fewer cases, under two minutes")
    parser.add_argument("--seconds", type=float, help="the budget (default: 1500, with --quick 100)")
    parser.add_argument(
        "--torch-python", default=sys.executable, help="the Python that has PyTorch (default: this one)"
    )
    options = parser.parse_args(arguments)
    quick, python = options.quick, options.torch_python
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = min(2, cores)
    threads = [most] if quick else sorted({1, most}, reverse=True)

    parts: dict[str, tuple[str, float, Callable[[Budget], str]]] = {
        "networks": ("whole networks", 0.4, lambda b: networks(suite, b, threads, python, quick, STEPS)),
        "adm": ("a network of ADM's kind", 0.2, lambda b: networks(suite, b, threads, python, False, ADM)),
        "compiled": ("torch.compile", 0.4, lambda b: compiled(suite, b, most, python)),
        "memory": ("peak memory", 0.2, lambda b: memory(suite, b, most, python, quick)),
        "operations": ("each operation", 0.55, lambda b: each_operation(suite, b, threads, python, quick)),
        "growth": ("how the cost grows", 0.9, lambda b: growth(suite, b, most, python, quick)),
    }
    if quick:
        parts.pop("adm"), parts.pop("compiled")
    chosen = list(parts) if options.parts is None else options.parts.split(",")
    try:
        if unknown := set(chosen) - set(parts):
            raise ValueError(f"--parts: expected some of {', '.join(parts)}, got {', '.join(sorted(unknown))}")
        earlier = [read(options.out, "cpu")] if options.parts and Path(options.out).exists() else []
    except (ValueError, OSError) as error:
        parser.error(str(error))
    suite = Suite("cpu", options.out, options.seconds or (100 if quick else 1500), earlier)
    for key in chosen:
        title, share, run = parts[key]
        suite.part(key, title, share if options.parts is None else 1 / (len(chosen) - chosen.index(key)), run)
    return suite.finish()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: peers that rest are not left behind
    sys.exit(main())
