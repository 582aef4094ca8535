"""The part `tiles` of the GPU suite: what it asks, what it writes, and what one failing case costs. On the emulator and on
peers that are made up."""

import json
import shutil
import sys
from collections import Counter

import networks
import numpy as np
import pytest

from benchmarks import gpu, tiles
from benchmarks.suite import Suite
from refdiff import models
from refdiff.benchmark import Budget, PeerProcess
from refdiff.benchmark.cases import NETWORKS
from refdiff.config import PRESETS
from refdiff.engines import cuda
from refdiff.engines.cuda import tile_table
from refdiff.engines.cuda.product import TILES, chosen_by, guess
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import Context
from refdiff.engines.cuda.runtime.dry_run import DryRunDevice
from refdiff.engines.cuda.tile_table import Problem
from refdiff.objectives import Denoising

FAKE = """
import os, sys
import numpy as np
from refdiff.benchmark import serve

class Fake:
    def about(self):
        return {"device": "made up", "architecture": "sm_00"}
    def prepare(self, case):
        self.case, y = case, np.arange(4.0)
        m, n = case["tile"]
        if sys.argv[1] == "crash" and m > n:
            os._exit(3)
        if sys.argv[1] == "raises" and m > n:
            raise ValueError("an illegal address")
        if sys.argv[1] == "differs" and m > n:
            y[1] += 1
        if sys.argv[1] == "nan":
            y[1] = np.nan
        return {"y": y}
    def time(self, repeats):
        m, n = self.case["tile"]
        return [100.0] + [m * n * 1e-6 + i * 1e-9 for i in range(repeats - 1)] if repeats > 1 else [1e-3]

serve(Fake())
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(how) -> what the part says, its suite and its table, through a peer that does so."""
    (tmp_path / "fake.py").write_text(FAKE)
    everything = list(tiles.cases(dry=True))

    class Plan:
        dry = True

        def __init__(self, how):
            self.how = how

        def refdiff(self):
            return PeerProcess([sys.executable, str(tmp_path / "fake.py"), self.how])

    def run(how, products=6, seconds=60):
        monkeypatch.setattr(tiles, "cases", lambda dry: everything[:products])
        suite = Suite("try", tmp_path / "gpu.json", 100)
        suite.part("tiles", "every tile", 1, lambda _: tiles.tiles(suite, Budget(seconds), Plan(how)))
        path = tmp_path / "tiles" / "sm_00.json"
        return suite, tile_table.read(path) if path.exists() else {}

    return run


def test_all_tiles_of_all_products_are_in_the_table(run, tmp_path):
    """The median of the runs but the first, which here takes 100 s."""
    suite, table = run("well")
    assert suite.parts["tiles"]["ok"]
    assert suite.parts["tiles"]["text"].startswith("6 of 6 products were measured; the guess was slower")
    assert Counter(dtype for _, dtype in table) == {"bfloat16": 3, "float32": 3}
    for (_, dtype), problems in table.items():
        for seconds in problems.values():
            assert seconds == {t[:2]: pytest.approx(t.m * t.n * 1e-6, rel=1e-4) for t in TILES[dtype]}
    found = suite.more["tiles"]
    assert (found["measured"], found["errors"], found["file"]) == (6, [], "tiles/sm_00.json")
    assert all(parts and all(s > 0 for s in parts.values()) for parts in found["splits"].values())
    assert Counter(what.split()[0] for what in found["splits"]) == {"conv2d_dweight": 2}
    about = json.loads((tmp_path / "tiles" / "sm_00.json").read_text())
    assert (about["device"], about["dry"]) == ("made up", True)
    suite.write()  # as JSON


@pytest.mark.parametrize(
    ("how", "words"), [("crash", "ended with status 3"), ("raises", "ValueError: an illegal address")]
)
def test_a_tile_that_fails_costs_no_other(run, how, words):
    suite, table = run(how, 1)
    assert suite.parts["tiles"]["text"].startswith("failed: AssertionError: 1 of 1 products were measured")
    assert list(table[("conv2d", "bfloat16")].values()) == [{(128, 128): pytest.approx(0.0164, rel=0.01),
                                                             (64, 64): pytest.approx(0.0041, rel=0.01)}]  # fmt: skip
    (error,) = suite.more["tiles"]["errors"]
    assert error.startswith("conv2d bfloat16 128x8x72x1, 128x64: ")
    assert words in error


@pytest.mark.parametrize(("how", "words"), [("differs", "their bits differ"), ("nan", "64x64: not finite")])
def test_what_may_be_wrong_is_in_no_table(run, how, words):
    suite, table = run(how)
    assert suite.parts["tiles"]["text"].startswith("failed: AssertionError: 0 of 6 products were measured")
    assert table == {}
    assert sum(words in error for error in suite.more["tiles"]["errors"]) == 6


def test_fewer_than_asked_is_a_failure_and_what_there_is_stays(run, monkeypatch):
    clock = iter([10.0, 10.0, *[0.0] * 100])
    monkeypatch.setattr(Budget, "left", property(lambda self: next(clock)))
    monkeypatch.setattr(Budget, "patience", 30.0)
    suite = run("well")[0]
    assert suite.parts["tiles"]["text"].startswith("failed: AssertionError: ")
    assert 0 < suite.more["tiles"]["measured"] < 6


def test_a_run_goes_on_with_what_another_of_the_same_commit_measured(run, tmp_path):
    _, first = run("well", 2)
    path = tmp_path / "tiles" / "sm_00.json"
    text = path.read_text()
    suite, table = run("well", 3)
    assert suite.parts["tiles"]["text"].startswith("3 of 3 products were measured, 2 of them by an earlier run; ")
    assert sum(map(len, table.values())) == 3
    assert all(table[name].items() >= problems.items() for name, problems in first.items())
    for other in (text.replace(tiles.digest(), "0"), text[:-5]):
        path.write_text(other)
        suite, table = run("well", 1)
        assert suite.parts["tiles"]["text"].startswith("1 of 1 products were measured; ")
        assert sum(map(len, table.values())) == 1


def test_every_product_of_a_training_step_is_asked_for_once(monkeypatch):
    """Each (kernel, dtype, problem) that forward and backward of the presets ask a tile for is a case, and no other is. In
    bfloat16; float32 has the same."""
    asked = set()
    monkeypatch.setattr(tiles, "DTYPES", ("bfloat16",))

    def choice(*what):
        asked.add(what)
        return guess(*what)

    for dtype in tiles.DTYPES:
        for name in tiles.NETWORKS:
            device, config = DryRunDevice(), NETWORKS[name]
            with cuda.use(Context(device, Arena(device, 1 << 50))) as context, chosen_by(choice):
                p = models.tree_map(
                    lambda spec, dtype=dtype, context=context: context.empty(
                        spec.shape, dtype if len(spec.shape) > 1 else "float32"
                    ),
                    models.layout(config),
                )
                batch = PRESETS[name].train.batch
                x, t = context.empty((batch, *config.shape), dtype), context.empty((batch,), "int32")
                y, saved = networks.forward(cuda, config, p, x, t)
                networks.backward(cuda, config, y, saved)
    cases = [(c["kernel"], c["dtype"], tiles.problem_of(c)) for c in tiles.cases()]
    assert len(cases) == len(set(cases))
    assert asked <= set(cases)
    # The one product more: dx of the sinusoids of the time, which no step computes.
    assert all(kernel == "linear_dx" and problem.k == 4 * problem.n for kernel, _, problem in set(cases) - asked)
    ddpm = {
        name for name, preset in PRESETS.items()
        if isinstance(preset.objective, Denoising) and getattr(preset.model, "conditioning", "") == "add"
    }  # fmt: skip
    assert set(tiles.NETWORKS) == ddpm - {"digits-classes"}  # whose products are those of digits
    json.dumps(list(tiles.cases()))


def test_the_case_of_a_kernel_launches_it_and_no_other_product():
    device = DryRunDevice()
    context = Context(device, Arena(device, 1 << 40))
    case = {"operation": "conv2d", "inputs": [[2, 8, 8, 16]], "parameters": {"weight": [3, 3, 16, 24], "bias": [24]},
            "options": {"stride": 2, "padding": [0, 1]}, "dtype": "bfloat16", "seed": 0}  # fmt: skip
    for kernel, problem in [("conv2d", Problem(32, 24, 144)), ("conv2d_dx", Problem(32, 16, 216, 4)),
                            ("conv2d_dweight", Problem(144, 24, 32))]:  # fmt: skip
        launch = tiles.launcher(context, case | {"kernel": kernel})
        device.launches.clear()
        with cuda.use(context):
            launch()
        assert {k.name for k, _, _ in device.launches} - {"add_partials"} == {kernel}
        assert tiles.problem_of(case | {"kernel": kernel}) == problem


@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
def test_dry_on_the_emulator(tmp_path, monkeypatch):
    """What is timed is the emulator: the table is real, its numbers mean nothing, and no engine looks where it lies."""
    few = [case for case in tiles.cases(dry=True) if case["dtype"] == "float32"][::2]
    monkeypatch.setattr(tiles, "cases", lambda dry: few)
    monkeypatch.setattr(tiles, "SECONDS", 0)
    suite = Suite("try", tmp_path / "gpu.json", 100)
    suite.part("tiles", "every tile", 1, lambda budget: tiles.tiles(suite, budget, gpu.Plan(True)))
    assert suite.parts["tiles"]["text"].startswith("2 of 2 products were measured")
    table = tile_table.read(tmp_path / "tiles" / "emulated.json")
    assert [kernel for kernel, _ in table] == ["conv2d", "conv2d_dweight"]
    assert all(0 < s < 60 for problems in table.values() for seconds in problems.values() for s in seconds.values())
    assert np.all([len(seconds) == 2 for problems in table.values() for seconds in problems.values()])
