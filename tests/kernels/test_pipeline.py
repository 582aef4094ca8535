"""The ring of product.cuh: one barrier a step is enough, in any order of the threads, and nothing that holds it together can
be left out. On the emulator, whose shared memory begins as NaN and whose copies arrive when they are waited for."""

import re

import emulator.device
import numpy as np
import pytest
from emulator import Emulator
from emulator.agreement import check_agreement
from helpers import emulated

from refdiff.engines import cuda
from refdiff.engines.cuda.product import TILES, chosen_by
from refdiff.engines.cuda.runtime import nvrtc
from refdiff.engines.cuda.runtime.context import Context
from refdiff.engines.cuda.runtime.device import DeviceError
from refdiff.engines.cuda.runtime.memory import PerArrayAllocator
from refdiff.engines.cuda.runtime.sources import KERNELS

RING = (KERNELS / "product.cuh").read_text()
LOOP = re.search(r"(?<=step < steps; step\+\+\) \{\n).*?(?=\n    \}\n    return sums;)", RING, re.DOTALL)[0]
WAIT, BARRIER, STAGE, ADD = LOOP.splitlines()[:4]
FILL = LOOP.splitlines()[-1]
BROKEN = {
    "no barrier": (BARRIER, ""),
    "a step is used before it has arrived": ("STAGES - 2>();  // of", "STAGES - 1>();  // of"),
    "a stage is filled while others read it": (WAIT, f"{FILL}\n{WAIT}"),
    "a stage too few": (FILL, FILL.replace("STAGES - 1", "STAGES")),
}


def product(dtype, tile, *seeds):
    """A linear layer forwards and backwards: several tiles along both axes, steps by the dozen, sums in parts."""
    for seed in seeds:
        rng, device = np.random.default_rng(seed), Emulator(seed)
        x, weight, bias = (rng.standard_normal(shape) for shape in ((200, 328), (328, 136), 136))
        with cuda.use(Context(device, PerArrayAllocator(device))) as context, chosen_by(lambda *_: tile):
            check_agreement(context, "linear", (x,), {"weight": weight, "bias": bias}, dtype=dtype, terms=328)


@emulated
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 8))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_in_any_order_of_the_threads(seed, dtype):
    for tile in TILES[dtype]:
        product(dtype, tile, seed)


@emulated
@pytest.mark.slow
@pytest.mark.parametrize("what", BROKEN)
def test_nothing_of_it_can_be_left_out(tmp_path, monkeypatch, what):
    old, new = BROKEN[what]
    assert RING.count(old) == 1
    for path in KERNELS.glob("*.cu*"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "product.cuh").unlink()
    (tmp_path / "product.cuh").write_text(RING.replace(old, new))
    monkeypatch.setattr(emulator.device, "KERNELS", tmp_path)
    with pytest.raises((AssertionError, DeviceError)):
        product("bfloat16", TILES["bfloat16"][-1], 0, 1)


@pytest.mark.parametrize("source", ["linear.cu", "conv2d.cu"])
def test_a_steps_products_come_before_the_next_copies(source):
    """In the PTX of each kernel, whose loop is one block of instructions: barrier, loads, products, copies."""
    try:
        compiler = nvrtc.find()
    except DeviceError as error:
        pytest.skip(str(error))
    tile = TILES["bfloat16"][0]
    defines = sorted({"BF16": 1, **tile.defines, "IN_PACKS": 1, "OUT_PACKS": 1}.items())
    bodies = re.split(r"\.entry (\w+)", compiler.ptx(KERNELS / source, defines, "sm_80"))[1:]
    for name, body in zip(bodies[::2], bodies[1::2], strict=True):
        if name == "add_partials":
            continue
        words = re.findall(r"bar\.sync|ldmatrix|mma\.sync|cp\.async\.cg", body)
        loop = words[words.index("bar.sync") :]
        loop = loop[: loop.index("bar.sync", 1)]
        order = [word for i, word in enumerate(loop) if i == 0 or word != loop[i - 1]]
        assert order[:2] == ["bar.sync", "ldmatrix"], name
        assert order[-1] == "cp.async.cg", name
        assert "cp.async.cg" not in order[:-1], name
