"""Which tile a product is given, by a table or a guess; how a weight gradient is cut; no bit depends on the tile."""

import heapq
import json
import re
from types import SimpleNamespace

import networks
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff import FormatError, models
from refdiff.benchmark.cases import operations
from refdiff.config import PRESETS
from refdiff.engines import cuda
from refdiff.engines.cuda import host, product, tile_table
from refdiff.engines.cuda.product import MULTIPROCESSORS, PART, TILES, choose_tile, chosen_by, guess, rates, split
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import Context
from refdiff.engines.cuda.runtime.dry_run import DryRunDevice
from refdiff.engines.cuda.tile_table import Problem
from refdiff.models import MODELS, layout

BIG, WIDE, SMALL = TILES["bfloat16"]
PLACES = 2 * MULTIPROCESSORS


# ---- the split of a weight gradient


@pytest.mark.parametrize(("tiles", "steps", "parts"), [(9, 4096, 29), (36, 1024, 22), (72, 1024, 11)])
def test_parts_fill_whole_waves(tiles, steps, parts):
    """3x3 convolutions of `cifar10`, batch 128: 128 to 128 channels at 32x32, 256 to 256 and 512 to 256 at 16x16. 261 of 264
    places; 792, which are three waves of 264."""
    assert split(tiles, steps, PLACES)[1] == parts


def finished(tiles, steps, each, places=PLACES):
    """When the last block is done, in steps: each takes the first place that is free, a part its steps and PART more."""
    free = [0] * places
    for first in range(0, steps, each):
        for _ in range(tiles):
            heapq.heappushpop(free, free[0] + min(each, steps - first) + PART)
    return max(free)


def weight_gradients(name, dtype):
    """The tiles, steps and places of each in a training step, as the engine cuts it, and how often it occurs."""
    found = {}
    for case in operations(name, PRESETS[name].train.batch, dtype):
        if case["operation"] in ("conv2d", "linear") and case["direction"] == "forward":
            *_, m, n = [1, *case["parameters"]["weight"]]
            m = int(np.prod(case["parameters"]["weight"][:-1]))
            k = int(np.prod(case["inputs"][0][:-1])) // case["options"].get("stride", 1) ** 2
            cut = product.usual_split(f"{case['operation']}_dweight", dtype, Problem(m, n, k))
            found[cut] = found.get(cut, 0) + case["count"]
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10"])
def test_the_cost_is_when_blocks_that_take_free_places_are_done(name, dtype):
    """No other number of parts, down to STAGES steps in each, would be done more than 5 % and a step earlier; long sums are
    done within 12 % of what they would take if no place were ever free."""
    for tiles, steps, places in weight_gradients(name, dtype):
        each, parts = split(tiles, steps, places)
        assert parts == -(-steps // each)
        assert each >= min(steps, product.STAGES) - 1
        done = finished(tiles, steps, each, places)
        assert done <= -(-tiles * parts // places) * (each + PART), (
            "the cost is of equal parts; the last may be shorter"
        )
        others = {
            -(-steps // p) for p in range(1, min(-(-steps // product.STAGES), product.WAVES * places // tiles) + 1)
        }
        assert done <= 1 + 1.05 * min(finished(tiles, steps, e, places) for e in sorted(others)[:60])
        if tiles * steps > 120 * places:
            assert done <= 1.12 * tiles * steps / places


def test_twice_as_many_blocks_as_multiprocessors_would_take_more_than_half_as_long_again():
    """What the split was: 264 blocks in all, rounded up, so that a few of them were a wave of their own."""
    now = before = 0
    for (tiles, steps, places), count in weight_gradients("cifar10", "bfloat16").items():
        if places == PLACES and tiles * steps > 60 * places:
            now += count * finished(tiles, steps, split(tiles, steps, places)[0])
            before += count * finished(tiles, steps, -(-steps // -(-PLACES // tiles)))
    assert before > 1.5 * now > 0


@given(st.integers(1, 3000), st.integers(0, 10**6), st.sampled_from([132, 264, 528]))
def test_every_step_is_in_one_part(tiles, steps, places):
    each, parts = split(tiles, steps, places)
    assert (parts - 1) * each < max(steps, 1) <= parts * each
    assert 1 <= parts <= max(1, -(-steps // product.STAGES))
    assert tiles * parts <= product.WAVES * places + tiles


def test_the_engine_cuts_so():
    """The blocks that a training step of `cifar10` launches: (tiles, parts)."""
    device = DryRunDevice()
    with cuda.use(Context(device, Arena(device, 1 << 40))) as context:
        p = models.tree_map(
            lambda spec: context.empty(spec.shape, "bfloat16" if len(spec.shape) > 1 else "float32"),
            layout(MODELS["cifar10"]),
        )
        x, t = context.empty((128, 32, 32, 3), "bfloat16"), context.empty((128,), "int32")
        y, saved = networks.forward(cuda, MODELS["cifar10"], p, x, t)
        networks.backward(cuda, MODELS["cifar10"], y, saved, needs_dx=False)
    grids = {grid for kernel, grid, _ in device.launches if kernel.name == "conv2d_dweight"}
    assert {(9, 29), (36, 22), (72, 11)} <= grids


# ---- the choice


def device(architecture):
    return SimpleNamespace(device=SimpleNamespace(architecture=architecture))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where tables are looked for, and what writes one."""
    monkeypatch.setattr(tile_table, "FOLDER", tmp_path)
    tile_table.table_of.cache_clear()
    yield lambda table, name="sm_90a": (tmp_path / f"{name}.json").write_text(
        tile_table.text(table, {"device": "made up"})
    )
    tile_table.table_of.cache_clear()


def test_the_fastest_of_the_table(folder):
    """Made up: the guess would be another tile, another product, another architecture."""
    m = Problem(1 << 17, 128, 1152)
    assert guess("conv2d", "bfloat16", m) == BIG
    table = {("conv2d", "bfloat16"): {m: {(128, 128): 3e-4, (128, 64): 1e-4, (64, 64): 2e-4}}}
    folder(table)
    assert tile_table.table_of("sm_90a") == table
    assert choose_tile(device("sm_90a"), "conv2d", "bfloat16", m) == WIDE
    for other in (("sm_80", "conv2d", "bfloat16", m), ("sm_90a", "linear", "bfloat16", m),
                  ("sm_90a", "conv2d", "float32", m)):  # fmt: skip
        assert choose_tile(device(other[0]), *other[1:]) == guess(*other[1:])


def test_a_tile_that_is_no_more_or_did_not_run_is_not_chosen(folder):
    m = Problem(1 << 17, 128, 1152)
    folder({("conv2d", "bfloat16"): {m: {(256, 128): 1e-5, (128, 128): 3e-4, (64, 64): 2e-4}}})
    assert choose_tile(device("sm_90a"), "conv2d", "bfloat16", m) == SMALL
    assert choose_tile(device("sm_90a"), "conv2d", "bfloat16", m._replace(n=512)) != WIDE


def test_a_product_that_is_not_in_the_table_goes_by_the_rates_of_the_others(folder):
    """Made up so that small tiles are as fast as large ones, which then win where they leave less of a product over."""
    seconds = {Problem(132 * 128 * i, 128, 512): {(t.m, t.n): i * 1e-4 for t in TILES["bfloat16"]} for i in (4, 8, 12)}
    found = rates("conv2d", "bfloat16", seconds)
    assert found == pytest.approx(dict.fromkeys(TILES["bfloat16"], 1.0))
    folder({("conv2d", "bfloat16"): seconds})
    odd = Problem(64 * 133, 128, 512)  # 67 tiles of 128x128, one each on half of the GPU; 266 of 64x64, two each
    assert guess("conv2d", "bfloat16", odd) == BIG
    assert choose_tile(device("sm_90a"), "conv2d", "bfloat16", odd) != BIG


def test_without_a_table_it_is_the_guess(folder):
    """Its numbers were worked out by hand: waves of 132 blocks, times a tile's sums over its rate."""
    for problem, tile in [
        (Problem(131072, 128, 1152), BIG),  # 1024: 8 waves of 16384, against 16 of 8192 / .85 and 32 of 4096 / .7
        (Problem(4096, 256, 2304), WIDE),  # 64: 16384; 128: 9638; 256: 2 waves of 5851
        (Problem(2048, 256, 2304), SMALL),  # 32: 16384; 64: 9638; 128: 1 wave of 5851
    ]:
        assert choose_tile(device("sm_90a"), "conv2d", "bfloat16", problem) == guess("conv2d", "bfloat16", problem)
        assert guess("conv2d", "bfloat16", problem) == tile


GOOD = {
    "format": 1,
    "seconds": [{"kernel": "conv2d", "dtype": "float32", "problem": [1, 2, 3, 4], "tiles": {"64x64": 1e-5}}],
}
ROW = GOOD["seconds"][0]


@pytest.mark.parametrize(
    "broken",
    ["", "[]", "{", json.dumps(GOOD | {"format": 2}), json.dumps({"seconds": []}), json.dumps({"format": 1}),
     *(json.dumps(GOOD | {"seconds": [ROW | change]}) for change in
       ({"tiles": {"64x64": 0}}, {"tiles": {"64x64": float("nan")}}, {"tiles": {"64": 1}}, {"tiles": {}}, {"tiles": []},
        {"problem": [1, 2]}, {"problem": None}))],
)  # fmt: skip
def test_a_broken_table_is_named(tmp_path, broken):
    path = tmp_path / "sm_90a.json"
    path.write_text(broken)
    with pytest.raises(
        FormatError, match=rf"{re.escape(str(path))}: expected a table of tiles, format 1, got .*delete it"
    ):
        tile_table.read(path)
    path.write_text(json.dumps(GOOD))
    assert tile_table.read(path) == {("conv2d", "float32"): {Problem(1, 2, 3, 4): {(64, 64): 1e-5}}}


def test_what_is_committed_was_measured_on_a_gpu():
    for path in sorted(tile_table.FOLDER.glob("*")):
        about = json.loads(path.read_text())
        assert path.name == f"{about['architecture']}.json"
        assert re.fullmatch(r"sm_\d+a?", about["architecture"])
        assert about["dry"] is False
        for (kernel, dtype), problems in tile_table.read(path).items():
            assert kernel.removesuffix("_dx").removesuffix("_dweight") in ("conv2d", "linear")
            known = {tile[:2] for tile in TILES[dtype]}
            assert all(set(seconds) <= known for seconds in problems.values())


# ---- the bits


@pytest.mark.parametrize("name", ["linear", "conv2d"])
def test_no_bit_depends_on_the_tile(context, dtype, name, monkeypatch):
    """Several tiles of each kind along both axes, cut at the ends; the weight gradient in several parts, as many as fill a
    GPU so small that each kind of tile would fill it with another number of them."""
    monkeypatch.setattr(product, "MULTIPROCESSORS", 5)
    rng = np.random.default_rng(0)
    x = context.array(rng.standard_normal((4, 9, 11, 24)), dtype)
    weight = context.array(rng.standard_normal((3, 3, 24, 136) if name == "conv2d" else (24, 136)), dtype)
    bias, first = context.array(rng.standard_normal(136)), None
    for tile in TILES[dtype]:
        context.device.launches.clear()
        with chosen_by(lambda *_, tile=tile: tile):
            y, saved = getattr(cuda, name)(x, weight, bias)
            dy = context.array(np.random.default_rng(1).standard_normal(y.shape), dtype)
            dx, g = getattr(cuda, f"{name}_backward")(dy, saved)
        defines = [dict(kernel.defines) for kernel in context.device.launches if kernel.source == f"{name}.cu"]
        assert all((d["TILE_M"], d["TILE_N"]) == tile[:2] for d in defines)
        assert len(defines) == 4, "forward, dx, dW in parts, and their sum"
        bits = [host(a).tobytes() for a in (y, dx, *g.values())]
        first = first or bits
        assert bits == first
