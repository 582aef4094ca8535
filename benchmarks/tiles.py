"""The part `tiles` of the GPU suite: every tile of the matrix products in every product of the presets' training steps.

What it writes beside the suite's result, tiles/ARCHITECTURE.json, is the table by which the engine chooses (see
refdiff/engines/cuda/tile_table.py): copied to refdiff/engines/cuda/tiles/ and committed, it takes the place of a guess.

Each tile of each product is a case of its own in the peer's process, so that one that crashes costs no other. Its operands
are drawn on the device, and its result must have the bits of the other tiles', or the product is left out. The table is
written after every product, those of the first presets and the most work first: a run that was stopped leaves what it had,
and the next one on the same machine and commit goes on with it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.suite import Suite
from refdiff.benchmark import Budget, PeerError, PeerProcess
from refdiff.benchmark.cases import operations
from refdiff.benchmark.device import captured
from refdiff.config import PRESETS
from refdiff.engines import cuda
from refdiff.engines.cuda import tile_table
from refdiff.engines.cuda.convolution import conv2d_dx
from refdiff.engines.cuda.linear_ops import linear_dx
from refdiff.engines.cuda.product import TILES, Tile, chosen_by, guess, split, usual_split
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import Array, Context, use
from refdiff.engines.cuda.runtime.dry_run import DryRunDevice
from refdiff.engines.cuda.runtime.sources import KERNELS
from refdiff.engines.cuda.tile_table import Problem, Table
from refdiff.random import Sequence
from refdiff.storage.atomic import replace_file

DX = {"conv2d": conv2d_dx, "linear": linear_dx}
NETWORKS = ("cifar10", "digits", "mnist", "celebahq256")
DTYPES = ("bfloat16", "float32")
TINY = {"size": 8, "channels": 1, "width": 8, "multipliers": [1], "blocks": 1, "attention": [], "groups": 4}
SECONDS, LEAST, MOST = 0.1, 3, 11  # of one tile in one product; runs that are timed
WAVES = (1, 2, 3)  # of the parts of a weight gradient that are timed beside what `split` chooses
COPIES, ENOUGH = 10, 1 << 30  # operands of one graph: sets at most, bytes of all of them
SHOWN = 1 << 20  # numbers of a result that are compared, of its beginning and of its end

Case = dict[str, Any]


def cases(dry: bool = False) -> Iterator[Case]:
    """Each product once, by (kernel, dtype, problem), with how often a step of the first network that has it does it.

    dry: three in each type, of a tiny network.
    """
    seen = set()
    for dtype in DTYPES:
        for network in (TINY,) if dry else NETWORKS:
            batch = 2 if dry else PRESETS[network].train.batch
            own = [c for c in operations(network, batch, dtype) if c["operation"] in DX and c["direction"] == "forward"]
            own = [{**c, "kind": "tile", "copies": 2 if dry else COPIES} for c in own]
            each = [{**c, "kernel": c["operation"] + end} for c in own for end in ("", "_dx", "_dweight")]
            for case in sorted(each, key=lambda case: -work(case))[: 3 if dry else None]:
                name = case["kernel"], dtype, problem_of(case)
                if name not in seen:
                    seen.add(name)
                    yield case


def work(case: Case) -> int:
    """Multiplications of a training step, up to the stride's share."""
    return case["count"] * prod(case["inputs"][0][:-1]) * prod(case["parameters"]["weight"])


def launcher(context: Context, case: Mapping[str, Any], copy: int = 0) -> Callable[[], Array]:
    """What launches a case's kernel and no other product, on operands that are drawn on the device, each copy's its own."""
    operation, dtype = case["operation"], case["dtype"]

    def draw(stream: int, shape: tuple[int, ...], dtype: str) -> Array:
        return cuda.cast(cuda.normal(Sequence(case["seed"] + copy, stream), shape[0], shape[1:]), dtype)

    with use(context):
        x = draw(1, tuple(case["inputs"][0]), dtype)
        weight = draw(2, tuple(case["parameters"]["weight"]), dtype)
        bias = draw(3, tuple(case["parameters"]["bias"]), "float32")
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in case["options"].items()}
        if case["kernel"] == operation:
            return lambda: getattr(cuda, operation)(x, weight, bias, **options)[0]
        y, saved = getattr(cuda, operation)(x, weight, bias, **options)
        dy = draw(4, y.shape, dtype)
    if case["kernel"].endswith("_dx"):
        return lambda: DX[operation](dy, saved)
    return lambda: getattr(cuda, f"{operation}_backward")(dy, saved, needs_dx=False)[1]["weight"]


def timed(context: Context, case: Mapping[str, Any]) -> tuple[np.ndarray, Callable[[], None], int]:
    """A case on a device.   -> its result, what replays it, how often that does it.

    One graph does it on several sets of operands, so that little of them is in the level-2 cache, and the start of a graph
    is no part of a short product; fewer where they are large.
    """
    memory = context.memory
    assert isinstance(memory, Arena)
    first = launcher(context, case)
    y = shown(first())
    copies = max(1, min(case["copies"], ENOUGH // memory.peak))
    runs = [first, *(launcher(context, case, copy) for copy in range(1, copies))]
    replay, _ = captured(context, runs)
    return y, replay, copies


def problem_of(case: Mapping[str, Any]) -> Problem:
    """As the engine asks for its tile, found out on a device that runs nothing."""
    asked = []

    def choice(kernel: str, dtype: str, problem: Problem) -> Tile:
        asked.append((kernel, problem))
        return guess(kernel, dtype, problem)

    device = DryRunDevice()
    with use(Context(device, Arena(device, 1 << 50))) as context, chosen_by(choice):
        launcher(context, case)()
    return dict(asked)[case["kernel"]]


def shown(y: Array) -> np.ndarray:
    """The beginning and the end of a result."""
    some = min(y.size, SHOWN)
    ends = [Array(y.buffer, (some,), y.dtype, y.offset + first) for first in (0, y.size - some)]
    return np.concatenate([cuda.host(part) for part in ends])


def measure(
    peer: PeerProcess, case: Case, tile: Tile, budget: Budget, parts: int | None = None
) -> tuple[np.ndarray, float]:
    """The case's result with this tile, and its seconds.   PeerError if it fails."""
    y = peer.prepare({**case, "tile": [tile.m, tile.n], "parts": parts}, budget.patience)["y"]
    (once,) = peer.time(1, budget.patience)
    repeats = max(LEAST, min(MOST, int(SECONDS / once)))
    return y, median(peer.time(1 + repeats, budget.patience)[1:])


def one_product(peer: PeerProcess, case: Case, budget: Budget) -> tuple[dict[tuple[int, int], float], list[str]]:
    """Seconds by tile, of those that ran, and what was wrong with the others.

    None where two gave different bits: one of them is wrong, and which is for the suite's checks to say.
    """
    seconds: dict[tuple[int, int], float] = {}
    wrong, first, same = [], None, True
    for tile in TILES[case["dtype"]]:
        try:
            y, found = measure(peer, case, tile, budget)
        except PeerError as error:
            wrong.append(f"{tile.m}x{tile.n}: {error}")
            continue
        if not np.all(np.isfinite(y)):
            wrong.append(f"{tile.m}x{tile.n}: not finite")
            continue
        first = y if first is None else first
        same = same and np.array_equal(y, first)
        seconds[tile.m, tile.n] = found
    if not same:
        wrong.append(f"{', '.join(f'{m}x{n}' for m, n in seconds)}: their bits differ")
        seconds = {}
    return seconds, wrong


def one_split(peer: PeerProcess, case: Case, budget: Budget) -> dict[int, float]:
    """Seconds of a weight gradient with its usual tile, by the number of parts: what `split` chose first, then what fills
    one wave of blocks, two, and three, as far as they ran. What PART of product.py should be can be read off."""
    asked = case["kernel"], case["dtype"], problem_of(case)
    covered, steps, places = usual_split(*asked)
    _, chosen = split(covered, steps, places)
    seconds: dict[int, float] = {}
    for parts in (chosen, *(max(1, waves * places // covered) for waves in WAVES)):
        _, parts = split(covered, steps, places, parts)
        if parts not in seconds:
            with suppress(PeerError):
                seconds[parts] = measure(peer, case, guess(*asked), budget, parts)[1]
    return seconds


def digest() -> str:
    """Of what is compiled: a commit does not tell what was changed since."""
    texts = [path.read_bytes() for path in sorted(KERNELS.glob("*.cu*"))]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]


def earlier(path: Path, about: Mapping[str, Any]) -> Table:
    """What a run of the same machine, versions, commit and kernels has measured."""
    try:
        before = json.loads(path.read_text())
        same = all(before.get(key) == value for key, value in about.items())
        return tile_table.read(path) if same else {}
    except (OSError, ValueError, AttributeError):
        return {}


def tiles(suite: Suite, budget: Budget, plan: Any) -> str:
    """Time every tile in every product and write the table.   AssertionError, with what was measured written, if a tile
    failed or the time did not suffice for all."""
    all_cases = list(cases(plan.dry))
    found: dict[str, Any] = {
        "products": len(all_cases),
        "measured": 0,
        "earlier": 0,
        "errors": [],
        "splits": {},
        "file": "",
    }
    suite.more["tiles"] = found
    gains = []
    with plan.refdiff() as peer:
        about = peer.about(budget.patience)
        path = suite.out.parent / "tiles" / f"{about['architecture']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        about |= {"dry": plan.dry, "kernels": digest()}
        found["file"] = str(path.relative_to(suite.out.parent))
        table = earlier(path, about)
        about["written"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for case in all_cases:
            if budget.left < 1:
                break
            kernel, dtype, problem = case["kernel"], case["dtype"], problem_of(case)
            if problem in table.get((kernel, dtype), {}):
                found |= {"measured": found["measured"] + 1, "earlier": found["earlier"] + 1}
                continue
            seconds, wrong = one_product(peer, case, budget)
            what = f"{kernel} {dtype} {'x'.join(map(str, problem))}"
            found["errors"] += [f"{what}, {error}" for error in wrong]
            if seconds:
                table.setdefault((kernel, dtype), {})[problem] = seconds
                text = tile_table.text(table, about)
                replace_file(path, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
                found["measured"] += 1
                guessed = seconds.get(guess(kernel, dtype, problem)[:2])
                gains += [guessed / min(seconds.values())] if guessed else []
                if kernel.endswith("_dweight"):
                    found["splits"][what] = one_split(peer, case, budget)
            shares = ", ".join(f"{m}x{n} {1e6 * s:.1f} us" for (m, n), s in seconds.items())
            print(f"  {what}: {'; '.join([shares, *wrong])}", flush=True)
    text = f"{found['measured']} of {len(all_cases)} products were measured"
    if found["earlier"]:
        text += f", {found['earlier']} of them by an earlier run"
    if gains:
        worse = sum(gain > 1.02 for gain in gains)
        text += f"; the guess was slower than the best by over 2 % in {worse}, by at most {max(gains) - 1:.0%}"
        text += f"; {found['file']} belongs in refdiff/engines/cuda/tiles/"
    if found["errors"] or found["measured"] < len(all_cases):
        raise AssertionError(f"{text}; {len(found['errors'])} failures: {'; '.join(found['errors'][:3])}")
    return text
