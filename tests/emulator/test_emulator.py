"""The emulator: what is wrong with a kernel is caught, and each instruction means what the PTX manual says."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import emulator.device
from emulator import COMPILER, Emulator
from emulator.build import included
from emulator.sanitized import environment
from refdiff.engines.cuda import host
from refdiff.engines.cuda.runtime.context import Context
from refdiff.engines.cuda.runtime.device import DeviceError
from refdiff.engines.cuda.runtime.memory import PerArrayAllocator
from refdiff.engines.cuda.runtime.sources import KERNELS

pytestmark = pytest.mark.skipif(COMPILER is None, reason="the emulator needs g++")
zeros = np.zeros(64, np.float32)
TEXTS: dict[str, str] = {}  # kernel -> its arguments and body; all are compiled as one file


def source(texts):
    """A .cu file; each kernel's lines are counted from 1."""
    kernel = '#line 1 "k.cu"\nextern "C" __global__ void __launch_bounds__(256) '
    return "#include <device.cuh>\n" + "\n".join(f"{kernel}{name}{text}" for name, text in texts.items()) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    for header in KERNELS.glob("*.cuh"):
        (folder / header.name).symlink_to(header)
    (folder / "k.cu").write_text(source(TEXTS))
    return folder


@pytest.fixture(params=[0, 1], ids=["seed0", "seed1"])
def run(folder, monkeypatch, request):
    """run(name, x, grid, block, *arguments): what a kernel, whose first argument is x, makes of x."""
    monkeypatch.setattr(emulator.device, "KERNELS", folder)
    device = Emulator(request.param)
    context = Context(device, PerArrayAllocator(device))

    def run(name, x, grid=1, block=64, *arguments, shared=0):
        array = context.array(x, x.dtype)
        arguments = [context.array(a, a.dtype) if isinstance(a, np.ndarray) else a for a in arguments]
        context.launch("k.cu", name, grid, block, array, *arguments, shared=shared)
        return host(array)

    run.seed = request.param
    return run


for name, barrier in [("", "__syncthreads();"), ("_warp", "__syncwarp();"), ("_none", "")]:
    TEXTS["neighbour" + name] = f"""(float* x) {{
        __shared__ float s[256];
        s[threadIdx.x] = threadIdx.x;
        {barrier}
        x[threadIdx.x] = s[(threadIdx.x + 1) % blockDim.x];
    }}"""
    TEXTS["reuse" + name] = f"""(float* x) {{
        __shared__ float s[256];
        float sum = 0;
        for (int i = 0; i < 4; i++) {{
            s[threadIdx.x] = i;
            __syncthreads();
            sum += s[(threadIdx.x + 1) % blockDim.x];
            {barrier}
        }}
        x[threadIdx.x] = sum;
    }}"""


@pytest.mark.parametrize(("name", "expected"), [("neighbour", (np.arange(64) + 1) % 64), ("reuse", np.full(64, 6))])
def test_a_missing_barrier_gives_a_wrong_result(run, name, expected):
    np.testing.assert_array_equal(run(name, zeros), expected)
    assert not np.array_equal(run(name + "_none", zeros), expected)
    assert not np.array_equal(run(name + "_warp", zeros), expected), "two warps"


def test_a_barrier_of_the_warp_is_enough_for_one_warp(run):
    np.testing.assert_array_equal(run("neighbour_warp", zeros[:32], 1, 32), (np.arange(32) + 1) % 32)
    assert np.isnan(run("neighbour_none", zeros[:32], 1, 32)).any()


TEXTS["chain"] = "(float* x) { if (threadIdx.x == 0) x[blockIdx.x] = 1 + (blockIdx.x ? x[blockIdx.x - 1] : 0); }"


def test_blocks_in_any_order(run):
    """A block that reads what another wrote is right forwards and wrong backwards."""
    np.testing.assert_array_equal(run("chain", zeros[:4], 4, 32), [1, 1, 1, 1] if run.seed else [1, 2, 3, 4])


WRONG = {
    "a barrier that some skip": ("if (threadIdx.x < 32) __syncthreads();", r"a barrier at k\.cu:2 that 32 of 64"),
    "a return before a barrier": (
        "if (threadIdx.x == 3) return;\n__syncthreads();",
        r"a barrier at k\.cu:3 that 1 of 64",
    ),
    "two barriers": (
        "if (threadIdx.x < 32)\n__syncthreads();\nelse\n__syncthreads();",
        r"a barrier at k\.cu:[35] while others wait at k\.cu:[35]",
    ),
    "a shuffle that some lanes skip": (
        "if (threadIdx.x % 32 < 7) x[0] = __shfl_xor_sync(ALL, 1.f, 1);",
        r"a warp operation at k\.cu:2 that 25 of 32",
    ),
    "two shuffles": (
        "if (threadIdx.x % 2)\nx[0] = __shfl_xor_sync(ALL, 1.f, 1);\nelse\nx[0] = __shfl_xor_sync(ALL, 1.f, 2);",
        r"warp operations at k\.cu:[35] and k\.cu:[35] meet",
    ),
    "two matrix products": (
        "float d[4]; unsigned a[4], b[2];\nif (threadIdx.x % 2)\nmma_16816(d, a, b);\nelse\nmma_16816(d, a, b);",
        r"warp operations at k\.cu:[46] and k\.cu:[46] meet",
    ),
    "a misaligned float4": ("*(float4*)(x + 1) = make_float4(1, 2, 3, 4);", r"a misaligned access at k\.cu:2"),
    "a misaligned read": ("float2 v = *(const float2*)(x + 1);\nx[0] = v.x;", r"a misaligned access at k\.cu:2"),
    "a misaligned copy": ("cp_async_16(dynamic_shared() + 4, x);", "cp.async wants an address aligned to 16"),
    "a misaligned row": (
        "unsigned r[4];\nldmatrix_x4(r, dynamic_shared() + 8);",
        "ldmatrix wants an address aligned to 16",
    ),
    "copies at the end": ("cp_async_16(dynamic_shared() + 16 * threadIdx.x, x);", "ends with cp.async under way"),
    "an index past a static array": ("__shared__ float s[4];\ns[n] = 1;", r"an index outside of an array at k\.cu:3"),
    "an index past a register array": (
        "float v[4];\nv[n] = 1;\nx[0] = v[n - 4];",
        r"an index outside of an array at k\.cu:3",
    ),
    "past dynamic shared memory": ("((float*)dynamic_shared())[64 * 16 / 4] = 1;", "outside"),
    "a division by zero": ("x[0] = n / (n - 4);", r"a division by zero at k\.cu:2"),
    "a remainder by zero": ("x[0] = n % (n - 4);", r"a division by zero at k\.cu:2"),
    "an overflow": ("x[0] = (n + 2147483640) + 4;", r"an overflow of a signed integer at k\.cu:2"),
}


for name, (body, _) in WRONG.items():
    TEXTS[name.replace(" ", "_")] = f"(float* x, int n) {{\n{body}}}"


@pytest.mark.parametrize("what", WRONG)
def test_a_mistake_stops_the_kernel(run, what):
    with pytest.raises(DeviceError, match=WRONG[what][1]):
        run(what.replace(" ", "_"), zeros, 1, 64, 4, shared=64 * 16)


TEXTS["set"] = "(float* x, int i) { if (threadIdx.x == 0) x[i] = 1; }"
TEXTS["get"] = "(float* x, int i) { if (threadIdx.x == 0) x[0] = x[i]; }"


@pytest.mark.parametrize("size", [1, 61, 64, 1023, 1024, 2048])
@pytest.mark.parametrize("after", [True, False])
def test_a_write_next_to_an_array_is_caught(run, size, after):
    x = np.zeros(size, np.float32)
    with pytest.raises(DeviceError, match=r"outside of every array|a write (before|past the end of) the array"):
        run("set", x, 1, 32, size if after else -1)
    assert run("set", x, 1, 32, size - 1)[-1] == 1


@pytest.mark.parametrize("size", [1, 61, 64, 1023, 1024, 2048])
@pytest.mark.parametrize("after", [True, False])
def test_a_read_next_to_an_array_crashes_or_gives_nan(run, size, after):
    must_crash = not after if run.seed else after and size % 4 == 0
    try:
        value, said = run("get", np.zeros(size, np.float32), 1, 32, size if after else -1)[0], ""
    except DeviceError as error:
        value, said = np.nan, str(error)
    assert np.isnan(value)
    assert ("outside of every array" in said) or not (said or must_crash)


TEXTS["nonsense"] = """(float* x, int n) {
    __shared__ float s[64];
    float v[8];
    x[0] = s[n], x[1] = ((float*)dynamic_shared())[n], x[2] = v[n];
}"""


def test_shared_memory_and_variables_begin_with_nonsense(run):
    x = run("nonsense", zeros, 2, 32, 3, shared=64)
    assert np.isnan(x[:2]).all()
    assert x[2] < -1e38


for wait in range(3):
    TEXTS[f"copy{wait}"] = f"""(float* x) {{
        float* s = (float*)dynamic_shared();
        cp_async_16(s + 4 * threadIdx.x, x + 4 * threadIdx.x), cp_async_commit();
        cp_async_16(s + 256 + 4 * threadIdx.x, x, false), cp_async_commit();
        cp_async_wait<{wait}>();
        float first = s[4 * threadIdx.x], second = s[256 + 4 * threadIdx.x];
        cp_async_wait<0>();
        __syncthreads();
        x[2 * threadIdx.x] = first, x[2 * threadIdx.x + 1] = second;
    }}"""


@pytest.mark.parametrize(("wait", "there"), [(0, (True, True)), (1, (True, False)), (2, (False, False))])
def test_a_copy_is_there_when_it_was_waited_for_and_not_before(run, wait, there):
    x = np.arange(1.0, 257, dtype=np.float32)
    first, second = run(f"copy{wait}", x, 1, 64, shared=2048)[:128].reshape(64, 2).T
    np.testing.assert_array_equal(first, x[::4] if there[0] else np.nan)
    np.testing.assert_array_equal(second, 0 if there[1] else np.nan)


TEXTS["arguments"] = "(float* x, int n, float a, const long long* p) {}"


def test_arguments_and_sizes_of_a_launch_are_checked(run):
    run("arguments", zeros, 1, 32, 1, 2.0, None)
    with pytest.raises(DeviceError, match=r"expected arguments of \[8, 4, 4, 8\] bytes, got \[8, 4, 4\]"):
        run("arguments", zeros, 1, 32, 1, 2.0)
    with pytest.raises(DeviceError, match=r"got \[8, 8, 4, 8\]"):
        run("arguments", zeros, 1, 32, ctypes.c_longlong(1), 2.0, None)
    with pytest.raises(DeviceError, match="a block of 512 threads, __launch_bounds__ says 256"):
        run("arguments", zeros, 1, 512, 1, 2.0, None)
    with pytest.raises(DeviceError, match="a grid of 1 x 65536 x 1"):
        run("arguments", zeros, (1, 65536), 32, 1, 2.0, None)
    with pytest.raises(DeviceError, match="227 KiB"):
        run("arguments", zeros, 1, 32, 1, 2.0, None, shared=300 << 10)
    with pytest.raises(DeviceError, match="expected a kernel other"):
        run("other", zeros)


# The tables of the PTX manual ("Matrix Fragments for mma.m16n8k16"): where element i of a lane's fragment stands.
LANE = np.arange(32)[:, None]
GROUP, WITHIN = LANE // 4, LANE % 4


def a_places():
    i = np.arange(8)
    row = np.where((i < 2) | ((i >= 4) & (i < 6)), GROUP, GROUP + 8)
    column = WITHIN * 2 + (i & 1) + np.where(i >= 4, 8, 0)
    return row, column


def b_places():
    i = np.arange(4)
    return WITHIN * 2 + (i & 1) + np.where(i >= 2, 8, 0), np.broadcast_to(GROUP, (32, 4))


def d_places():
    i = np.arange(4)
    return np.where(i < 2, GROUP, GROUP + 8), WITHIN * 2 + (i & 1)


def bits(x):
    """bfloat16 of values that it has exactly."""
    return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


TEXTS["product"] = """(float* out, const unsigned* fragments, const float* c) {
    unsigned a[4], b[2];
    float d[4];
    for (int i = 0; i < 4; i++) a[i] = fragments[6 * threadIdx.x + i], d[i] = c[4 * threadIdx.x + i];
    for (int i = 0; i < 2; i++) b[i] = fragments[6 * threadIdx.x + 4 + i];
    mma_16816(d, a, b);
    for (int i = 0; i < 4; i++) out[4 * threadIdx.x + i] = d[i];
}"""


def test_the_matrix_product_of_fragments(run):
    rng = np.random.default_rng(0)
    a, b, c = rng.integers(-9, 9, (16, 16)), rng.integers(-9, 9, (16, 8)), rng.integers(-9, 9, (16, 8))
    words = [np.ascontiguousarray(bits(m[p])).view(np.int32) for m, p in ((a, a_places()), (b, b_places()))]
    start = c[d_places()].astype(np.float32)
    d = run("product", np.zeros(128, np.float32), 1, 32, np.concatenate(words, 1), start)
    np.testing.assert_array_equal(d.reshape(32, 4), (a @ b + c)[d_places()])


LOAD = """(int* out, const uint4* rows) {
    uint4* s = (uint4*)dynamic_shared();
    s[threadIdx.x ^ 5] = rows[threadIdx.x];
    __syncthreads();
    unsigned r[4];
    %s(r, s + (threadIdx.x ^ 5));
    for (int i = 0; i < 4; i++) out[4 * threadIdx.x + i] = r[i];
}"""


for name in ("ldmatrix_x4", "ldmatrix_x4_transposed"):
    TEXTS[f"load_{name}"] = LOAD % name


@pytest.mark.parametrize("name", ["ldmatrix_x4", "ldmatrix_x4_transposed"])
def test_ldmatrix(run, name):
    m = np.arange(4 * 8 * 8, dtype=np.uint16).reshape(4, 8, 8)  # 4 matrices; lane i names row i % 8 of matrix i / 8
    out = run(f"load_{name}", np.zeros(128, np.int32), 1, 32, m.reshape(32, 8).view(np.int32), shared=512)
    m = m.swapaxes(1, 2) if name.endswith("transposed") else m
    expected = np.concatenate([m[j][GROUP, WITHIN * 2 + [0, 1]] for j in range(4)], 1)
    np.testing.assert_array_equal(out.reshape(32, 4).view(np.uint16), expected)


TEXTS["rounding"] = """(int* x) {
    float v = __int_as_float(x[threadIdx.x]);
    unsigned pair = pack_bf16(v, 1.f), other = pack_bf16(2.f, v), own = to_bf16(v).bits;
    bool same = pair == (own | 0x3f80u << 16) && other == (0x4000 | own << 16);
    x[threadIdx.x] = same ? own : -1;
}"""


def test_rounding_to_bfloat16(run):
    """Ties to even, overflow to infinity, subnormals kept, NaN to 0x7fff."""
    words = {0x3F800000: 0x3F80, 0x3F808000: 0x3F80, 0x3F818000: 0x3F82, 0x3F808001: 0x3F81, 0x3F807FFF: 0x3F80,
             0xBF808000: 0xBF80, 0x7F800000: 0x7F80, 0xFF800000: 0xFF80, 0x7FC00001: 0x7FFF, 0x7F800001: 0x7FFF,
             0x7F7FFFFF: 0x7F80, 0x7F7F7FFF: 0x7F7F, 0x00000001: 0x0000, 0x80000000: 0x8000, 0x00018000: 0x0002,
             0x00008000: 0x0000}  # fmt: skip
    out = run("rounding", np.resize(np.array(list(words), np.uint32).view(np.int32), 32), 1, 32)
    np.testing.assert_array_equal(out[: len(words)], list(words.values()))


TEXTS["warp"] = """(int* x) {
    int lane = threadIdx.x % 32, v = 100 * (threadIdx.x / 32) + lane;
    int* y = x + 8 * threadIdx.x;
    y[0] = __shfl_xor_sync(ALL, v, 9), y[1] = __shfl_down_sync(ALL, v, 5), y[2] = __shfl_sync(ALL, v, lane / 4);
    y[3] = __ballot_sync(ALL, lane % 3 == 0), y[4] = __any_sync(ALL, lane == 31), y[5] = __all_sync(ALL, lane < 31);
    y[6] = __all_sync(ALL, lane < 32), y[7] = warp_sum(lane) + warp_max(1 - lane);
}"""


def test_shuffles_and_ballots(run):
    lane = np.arange(32)
    down = np.where(lane + 5 < 32, lane + 5, lane)  # past the end a lane gets its own
    y = run("warp", np.zeros(512, np.int32)).reshape(2, 32, 8)
    for warp in range(2):
        for i, expected in enumerate((lane ^ 9, down, lane // 4)):
            np.testing.assert_array_equal(y[warp, :, i], expected + 100 * warp)
        np.testing.assert_array_equal(y[warp, :, 3].view(np.uint32), sum(1 << i for i in range(0, 32, 3)))
        np.testing.assert_array_equal(y[warp, :, 4:], np.broadcast_to([1, 0, 1, 497], (32, 4)))


TEXTS["three_dimensions"] = """(int* x) {
    int i = threadIdx.x + 4 * (threadIdx.y + 4 * threadIdx.z);
    x[i + 32 * blockIdx.y] = i + 100 * blockIdx.y;
}"""


def test_a_block_of_three_dimensions(run):
    x = run("three_dimensions", np.zeros(64, np.int32), (1, 2), (4, 4, 2))
    np.testing.assert_array_equal(x, np.concatenate([np.arange(32), np.arange(32) + 100]))


SANITIZED = """
import ctypes, sys, pathlib
import numpy as np
import emulator.device
from emulator import Emulator
from refdiff.engines.cuda.runtime.context import Context
from refdiff.engines.cuda import host
from refdiff.engines.cuda.runtime.device import DeviceError
from refdiff.engines.cuda.runtime.memory import PerArrayAllocator
emulator.device.KERNELS = pathlib.Path(sys.argv[1])
device = Emulator(0)
context = Context(device, PerArrayAllocator(device))
x = context.array(np.zeros(61))
try:
    context.launch("k.cu", "k", 1, 64, x, 3, 0)
except DeviceError as error:
    assert "a barrier" in str(error)
context.launch("k.cu", "k", 1, 64, x, 60, 1)
assert host(x)[60] == 61
print("clean", flush=True)
context.launch("k.cu", "k", 1, 64, x, int(sys.argv[2]), 1)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("index", "found"), [(60, ""), (64, "global-buffer-overflow"), (61, "use-after-poison")])
def test_addresses_are_watched(tmp_path, index, found):
    """Past a static shared array through a pointer, and past an array; what is in bounds is clean, after a failure too."""
    tests = Path(__file__).parents[1]
    for header in KERNELS.glob("*.cuh"):
        (tmp_path / header.name).symlink_to(header)
    text = """(float* x, int i, int wait) {
        __shared__ float s[64];
        float* p = s;
        if (wait || threadIdx.x) __syncthreads();
        if (i >= 64) p[threadIdx.x + (threadIdx.x == 63)] = 1;
        if (threadIdx.x == 63 && i < 64) x[i] = i + 1;
    }"""
    (tmp_path / "k.cu").write_text(source({"k": text}))
    env = {**environment(str(tmp_path / "report")), "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    command = [sys.executable, "-c", SANITIZED, str(tmp_path), str(index)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    reports = "".join(p.read_text() for p in tmp_path.glob("report*"))
    assert done.stdout == "clean\n", done.stderr + reports
    assert (done.returncode != 0) == bool(found), done.stderr + reports
    assert found in reports


@pytest.mark.slow
def test_the_runner_and_a_clean_kernel():
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-m", "emulator.sanitized", "engines/cuda/test_activation.py", "-q", "-k", "overflows"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    done = subprocess.run(command, cwd=tests, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_what_a_file_includes_is_found_through_its_headers(tmp_path):
    """A library is compiled again when one of these changes, and for no other header."""
    for name, text in (("a.cu", "#include <x.cuh>\n"), ("x.cuh", '  #include "y.cuh"\n#include <cuda.h>\n'),
                       ("y.cuh", "#include <x.cuh>\n"), ("z.cuh", "")):  # fmt: skip
        (tmp_path / name).write_text(text)
    assert included(tmp_path / "a.cu") == [tmp_path / "x.cuh", tmp_path / "y.cuh"]
