"""The steps of the 3x3 convolution (kernels/progress): right on the emulator, nothing spilled, and on tensor cores from the
third on."""

import re

import numpy as np
import pytest

import emulator.device
from emulator import COMPILER, Emulator
from kernels.catalogue import CACHE
from refdiff.engines import reference
from refdiff.engines.cuda import nvrtc
from refdiff.engines.cuda.context import Context, blocks, host
from refdiff.engines.cuda.device import DeviceError
from refdiff.engines.cuda.memory import Separate
from refdiff.engines.cuda.sources import KERNELS
from refdiff.testing.derivatives import relative_error

STEPS = sorted(path.name for path in (KERNELS / "progress").glob("*.cu"))
SHARED = {"4_pipeline.cu": 4 * (128 * 40 + 32 * 136) * 2}  # bytes of the ring
VARIANTS = [(name, dtype) for name in STEPS for dtype in ("float32", "bfloat16") if name < "3" or dtype == "bfloat16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The steps beside the headers, as if they were kernels in use."""
    folder = tmp_path_factory.mktemp("progress")
    for path in [*KERNELS.glob("*.cuh"), *(KERNELS / "progress").iterdir()]:
        (folder / path.name).symlink_to(path)
    return folder


def convolve(context, step, dtype, x, weight, bias):
    """How each step is launched."""
    n, h, w, c_in = x.shape
    pixels, out = n * h * w, bias.size
    y = context.empty((n, h, w, out), dtype)
    grid = blocks(pixels * out, 256) if step == "1_direct.cu" else (blocks(pixels, 128), blocks(out, 128))
    sizes = (n, h, w, c_in, out)
    context.launch(step, "conv2d", grid, 256, x, weight, bias, y, *sizes, dtype=dtype, shared=SHARED.get(step, 0))
    return y


@pytest.mark.skipif(COMPILER is None, reason="the emulator needs g++")
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("step", "dtype"), VARIANTS)
def test_each_step_is_the_convolution(folder, monkeypatch, step, dtype, seed):
    """One tile, cut at every end; several tiles along both axes; a sum shorter than a stage; one pixel."""
    monkeypatch.setattr(emulator.device, "KERNELS", folder)
    device = Emulator(seed)
    context, rng = Context(device, Separate(device)), np.random.default_rng(seed)
    for shape, out in [((1, 9, 7, 16), 24), ((2, 11, 10, 40), 136), ((1, 2, 3, 8), 8), ((1, 1, 1, 24), 16)]:
        x = context.array(rng.standard_normal(shape), dtype)
        weight = context.array(rng.standard_normal((3, 3, shape[3], out)) / shape[3] ** 0.5, dtype)
        bias = context.array(rng.standard_normal(out))
        wanted, _ = reference.conv2d(*(host(a).astype(np.float64) for a in (x, weight, bias)))
        error = relative_error(host(convolve(context, step, dtype, x, weight, bias)).astype(np.float64), wanted)
        assert error <= (1.6e-2 if dtype == "bfloat16" else 4 * (9 * shape[3]) ** 0.5 * 2.0**-24), (shape, out)


def compiler():
    try:
        return nvrtc.find()
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_90a"])
@pytest.mark.parametrize(("step", "dtype"), VARIANTS)
def test_nothing_is_spilled(folder, step, dtype, architecture):
    defines = [("BF16", 1)] if dtype == "bfloat16" else []
    log = compiler().compile(folder / step, defines, architecture, CACHE).log
    assert re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log) == [("0",) * 3]
    if "launch_bounds__(256, 2)" in (folder / step).read_text():
        assert int(re.search(r"Used (\d+) registers", log)[1]) <= 128, "two blocks a multiprocessor"


@pytest.mark.parametrize("step", STEPS)
def test_products_run_on_the_tensor_cores_from_the_third_step_on(folder, step):
    ptx = compiler().ptx(folder / step, [("BF16", 1)], "sm_80")
    assert ("mma.sync" in ptx) == (step > "3")
    assert ("cp.async" in ptx) == (step > "4")
