"""The steps of the 3x3 convolution (kernels/progress): right on the emulator, nothing spilled, and on tensor cores from the
third on. And what docs/kernels.md says: its example runs, its mistakes are caught, its counts are the counts."""

import re
import sys
from pathlib import Path

import emulator.device
import numpy as np
import pytest
from emulator import COMPILER, Emulator
from emulator.agreement import check_agreement

from kernels.catalogue import CACHE
from refdiff.benchmark.conventions import launch_of
from refdiff.config import Config
from refdiff.engines import cuda, reference
from refdiff.engines.cuda import host
from refdiff.engines.cuda.runtime import nvrtc
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import Array, Context
from refdiff.engines.cuda.runtime.device import DeviceError
from refdiff.engines.cuda.runtime.dry_run import DryRunDevice
from refdiff.engines.cuda.runtime.memory import PerArrayAllocator
from refdiff.engines.cuda.runtime.sources import KERNELS
from refdiff.testing.derivatives import check_backward
from refdiff.testing.measures import relative_error
from refdiff.training.trainers.cuda import CUDATrainer

STEPS = sorted(path.name for path in (KERNELS / "progress").glob("*.cu"))
VARIANTS = [(name, dtype) for name in STEPS for dtype in ("float32", "bfloat16") if name < "3" or dtype == "bfloat16"]
GUIDE = (Path(__file__).parents[2] / "docs" / "kernels.md").read_text()
MISTAKES = re.findall(r"^\| `(.+;)` \| `(.+)` \|$", GUIDE, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The steps beside the headers, as if they were kernels in use."""
    folder = tmp_path_factory.mktemp("progress")
    for path in [*KERNELS.glob("*.cuh"), *(KERNELS / "progress").iterdir()]:
        (folder / path.name).symlink_to(path)
    return folder


def convolve(context, source, dtype, x, weight, bias):
    """y, by the kernel of a file that says how it is launched."""
    y = context.empty((*x.shape[:3], bias.size), dtype)
    sizes = dict(zip(("N", "H", "W", "C_in", "C_out"), (*x.shape, bias.size), strict=True))
    launch, arguments = launch_of(source, "conv2d", sizes), (x, weight, bias, y, *sizes.values())
    context.launch(source.name, "conv2d", launch.grid, launch.block, *arguments, dtype=dtype, shared=launch.shared)
    return y


@pytest.mark.skipif(COMPILER is None, reason="the emulator needs g++")
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("step", "dtype"), VARIANTS)
def test_each_step_is_the_convolution(folder, monkeypatch, step, dtype, seed):
    """One tile, cut at every end; several tiles along both axes; a sum shorter than a stage; one pixel."""
    monkeypatch.setattr(emulator.device, "KERNELS", folder)
    device = Emulator(seed)
    context, rng = Context(device, PerArrayAllocator(device)), np.random.default_rng(seed)
    for shape, out in [((1, 9, 7, 16), 24), ((2, 11, 10, 40), 136), ((1, 2, 3, 8), 8), ((1, 1, 1, 24), 16)]:
        x = context.array(rng.standard_normal(shape), dtype)
        weight = context.array(rng.standard_normal((3, 3, shape[3], out)) / shape[3] ** 0.5, dtype)
        bias = context.array(rng.standard_normal(out))
        expected, _ = reference.conv2d(*(host(a).astype(np.float64) for a in (x, weight, bias)))
        error = relative_error(
            host(convolve(context, folder / step, dtype, x, weight, bias)).astype(np.float64), expected
        )
        assert error <= (1.6e-2 if dtype == "bfloat16" else 4 * (9 * shape[3]) ** 0.5 * 2.0**-24), (shape, out)


def compiler():
    try:
        return nvrtc.find()
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("architecture", ["sm_80", pytest.param("sm_90", marks=pytest.mark.slow), "sm_90a"])
@pytest.mark.parametrize(("step", "dtype"), VARIANTS)
def test_nothing_is_spilled(folder, step, dtype, architecture):
    defines = [("BF16", 1)] if dtype == "bfloat16" else []
    log = compiler().compile(folder / step, defines, architecture, CACHE).log
    assert re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log) == [
        ("0",) * 3
    ]
    if "launch_bounds__(256, 2)" in (folder / step).read_text():
        assert int(re.search(r"Used (\d+) registers", log)[1]) <= 128, "two blocks a multiprocessor"


@pytest.mark.parametrize("step", STEPS)
def test_products_run_on_the_tensor_cores_from_the_third_step_on(folder, step):
    ptx = compiler().ptx(folder / step, [("BF16", 1)], "sm_80")
    assert ("mma.sync" in ptx) == (step > "3")
    assert ("cp.async" in ptx) == (step > "4")


def code(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    """The kernels of docs/kernels.md: its example, and the mistakes that the emulator is said to stop."""
    folder = tmp_path_factory.mktemp("guide")
    for path in KERNELS.glob("*.cuh"):
        (folder / path.name).symlink_to(path)
    (folder / "scale_add.cu").write_text(code("cuda")[0])
    kernel = '#line 1 "k.cu"\nextern "C" __global__ void __launch_bounds__(64) '
    texts = [f"{kernel}mistake{i}(float* x, int n) {{ {line} }}\n" for i, (line, _) in enumerate(MISTAKES)]
    (folder / "k.cu").write_text("#include <device.cuh>\n" + "".join(texts))
    return folder


@pytest.mark.skipif(COMPILER is None, reason="the emulator needs g++")
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_example_of_the_guide(guide, monkeypatch, dtype, seed):
    """Its four blocks, each in the place where it says it belongs."""
    monkeypatch.setattr(emulator.device, "KERNELS", guide)
    of_reference, of_engine, of_tests = code("python")
    for engine, text in ((reference, of_reference), (cuda, of_engine)):
        names = {**vars(sys.modules[engine.add.__module__]), "Array": Array}
        exec(text, names)
        for name in ("scale_add", "scale_add_backward"):
            monkeypatch.setattr(engine, name, names[name], raising=False)
    rng = np.random.default_rng(seed)
    pair = (rng.standard_normal((2, 3)), rng.standard_normal((2, 3)))
    check_backward(lambda x, z: reference.scale_add(x, z, 0.7), reference.scale_add_backward, pair, rng)

    names = {"pytest": pytest, "np": np, "check_agreement": check_agreement}
    exec(of_tests, names)
    (mark,) = names["test_scale_add"].pytestmark
    device = Emulator(seed)
    with cuda.use(Context(device, PerArrayAllocator(device))) as context:
        for shape in mark.args[1]:
            names["test_scale_add"](context, dtype, shape)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("defines", [[], [("BF16", 1)]])
def test_the_example_of_the_guide_compiles(guide, defines, architecture):
    log = compiler().compile(guide / "scale_add.cu", defines, architecture, CACHE).log
    assert re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log) == [
        ("0",) * 3
    ]


@pytest.mark.skipif(COMPILER is None, reason="the emulator needs g++")
@pytest.mark.parametrize("i", range(len(MISTAKES)))
def test_the_emulator_says_what_the_guide_says(guide, monkeypatch, i):
    monkeypatch.setattr(emulator.device, "KERNELS", guide)
    device = Emulator()
    context = Context(device, PerArrayAllocator(device))
    with pytest.raises(DeviceError, match=re.escape(MISTAKES[i][1])):
        context.launch("k.cu", f"mistake{i}", 1, 64, context.array(np.zeros(64)), 4, shared=1024)


@pytest.mark.parametrize("preset", ["digits", "cifar10"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_launches_and_memory_are_what_the_guide_says(preset, dtype):
    config = Config.resolve(preset, changes=["engine=cuda", f"dtype={dtype}"])
    arena = Arena(DryRunDevice(), 1 << 40)
    worker = CUDATrainer(config, None, arena.device, arena)
    before = len(worker.device.launches)
    worker.launch()
    launches = len(worker.device.launches) - before
    row = f"| {preset}, {config.train.batch} | {dtype} | {launches} | {arena.extent / 2**20:.0f} |"
    assert row in GUIDE.splitlines()
