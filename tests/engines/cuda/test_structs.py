"""Structs and constants that the engine reads out of kernels/: the compilers' layout is the one that ctypes gives, no kernel
takes a long list instead of a struct, and what does not fit is refused before a launch."""

import ctypes
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from emulator.build import COMPILER, INCLUDE
from kernels.test_oldest_compiler import oldest

import refdiff
from refdiff.engines.cuda import norm, position_ops, product, rows, structs, tensor_ops
from refdiff.engines.cuda.attention_ops import CHUNK, CUTS, ROWS, THREADS
from refdiff.engines.cuda.random_numbers import sequence_struct
from refdiff.engines.cuda.runtime import nvrtc
from refdiff.engines.cuda.runtime.device import DeviceError
from refdiff.engines.cuda.runtime.sources import KERNELS
from refdiff.engines.cuda.samples import results, values
from refdiff.random import Sequence

ENGINE = Path(refdiff.__file__).parent / "engines" / "cuda"
USED = sorted({
    use for path in ENGINE.glob("*.py") for use in re.findall(r'\bstruct\("(\w+\.cuh?)", "(\w+)"\)', path.read_text())
})  # fmt: skip
SIGNATURE = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)')
SOURCES = sorted(path.name for path in KERNELS.glob("*.cu") if "PARAM " in path.read_text())
emulated = pytest.mark.skipif(COMPILER is None, reason="the emulator needs g++")


OFFSET = """#ifdef __CUDACC_RTC__  // whose 12.2 has no __builtin_offsetof
#define OFFSET(type, member) (unsigned long long)__INTADDR__(&((type*)0)->member)
#else
#define OFFSET(type, member) __builtin_offsetof(type, member)
#endif"""


def layout():
    """The definitions of all structs as they stand in kernels/, and what ctypes says of each, for a compiler to refuse: the
    size, every offset, and how many fields."""
    lines = ["#include <device.cuh>", OFFSET]
    for file, name in sorted(USED, key=lambda use: not use[0].endswith(".cuh")):  # those first that others hold
        made, spelt = structs.struct(file, name), f"{name}<const Real>" if name == "Pitched" else name
        space = f"of_{file.split('.')[0]}"
        if file != "device.cuh":
            text = re.search(
                rf"^struct (?:alignas\(\d+\) )?{name} \{{\n.*?^\}};", (KERNELS / file).read_text(), re.M | re.S
            )[0]
            lines.append(f"namespace {space} {{\n{text}\n}}\nusing namespace {space};")
        lines.append(f"static_assert(sizeof({spelt}) == {ctypes.sizeof(made)});")
        for field, _ in structs.members(made):
            lines.append(f"static_assert(OFFSET({spelt}, {field}) == {getattr(made, field).offset});")
        fields = ", ".join(f"f{i}" for i in range(len(structs.members(made))))
        lines.append(f"__device__ inline void fields_of({spelt}& x) {{ auto& [{fields}] = x; }}")
    return "\n".join(lines) + "\n"


def refused(text):
    """What the emulator's compiler says against a file; empty if nothing."""
    flags = ["-std=c++17", "-fsyntax-only", "-w", f"-I{INCLUDE}", f"-I{KERNELS}", "-include", "cuda.h"]
    command = [COMPILER, *flags, "-x", "c++", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


@emulated
def test_the_layout_is_that_of_the_emulators_compiler():
    assert len(USED) > 10
    assert not refused(layout())


@emulated
@pytest.mark.parametrize(
    ("old", "new"),
    [("Linear, C_in) == 4", "Linear, C_in) == 8"), ("(Linear) == 12", "(Linear) == 16"), ("[f0, f1, f2]", "[f0, f1]")],
)
def test_another_layout_is_refused(old, new):
    text = layout()
    assert old in text
    assert refused(text.replace(old, new))


def newest():
    if "REFDIFF_SANITIZE" in os.environ:
        pytest.skip("under AddressSanitizer NVRTC does not find its own libraries")
    try:
        return nvrtc.find()
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("compiler", [newest, pytest.param(oldest, marks=pytest.mark.slow)])
def test_the_layout_is_nvrtcs(tmp_path, compiler):
    for path in KERNELS.glob("*.cuh"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "layout.cu").write_text(layout())
    compiler().ptx(tmp_path / "layout.cu", [], "sm_80")
    (tmp_path / "layout.cu").write_text(layout().replace("(Linear) == 12", "(Linear) == 16"))
    with pytest.raises(DeviceError, match="static assertion failed"):
        compiler().ptx(tmp_path / "layout.cu", [], "sm_80")


@pytest.mark.slow
@pytest.mark.parametrize("compiler", [newest, oldest])
@pytest.mark.parametrize("source", SOURCES)
def test_a_kernels_parameter_is_as_large_as_what_it_is_given(source, compiler):
    text = compiler().ptx(KERNELS / source, [("BF16", 1)] if source != "attention_float.cu" else [], "sm_80")
    checked = 0
    for name, parameters in SIGNATURE.findall((KERNELS / source).read_text()):
        for i, parameter in enumerate(parameters.split(",")):
            if found := re.match(r"(?:PARAM )?(?!const\b)([A-Z]\w+)(?!\*)\b(?:<[^>]*>)? \w+$", parameter.strip()):
                size = re.search(rf"\.b8 {name}_param_{i}\[(\d+)\]", text)[1]
                assert int(size) == ctypes.sizeof(structs.struct(source, found[1])), (name, parameter)
                checked += 1
    assert checked


def test_no_kernel_takes_a_long_list_of_arguments():
    for path in KERNELS.glob("*.cu"):
        for name, parameters in SIGNATURE.findall(path.read_text()):
            assert parameters.count(",") < 8, f"{path.name}, {name}: expected at most 8 arguments; give it a struct"


def test_constants_and_tables_are_those_of_the_kernels():
    assert (rows.MAX_THREADS, rows.TOTAL_CHANNELS, product.STEP_BYTES, position_ops.SUM_THREADS) == (256, 8, 64, 512)
    assert (ROWS, CHUNK, THREADS) == (64, 32, 256)
    assert CUTS[2] == (256, 2, (4, 2, 16, 2), (4, 2, 16, 1), (4, 1, 16, 2))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(structs, "KERNELS", tmp_path)
    (tmp_path / "a.cuh").write_text(
        "// struct Not {\nstruct Inner {\n    int n;  // of it; not a field\n    double* x;\n};\nconstexpr int SIZE = 12;\n"
    )
    (tmp_path / "b.cu").write_text(
        "#include <a.cuh>\n#include <ptx.cuh>\nstruct alignas(16) Outer {\n    const Box<int> *p, *q;\n    Inner inner;\n"
        "    unsigned long long wide;\n    float pair[2], one[4];\n};\nstruct Bad {\n    int size() const;\n};\n"
        "constexpr Row ROWS[] = {\n    {1, {2, 3}},  // first\n    {4, {5, 6}},\n};\n"
    )
    return tmp_path


def test_what_is_read(folder):
    outer = structs.struct("b.cu", "Outer")
    kinds = [(name, kind.__name__, getattr(outer, name).offset) for name, kind in structs.members(outer)]
    assert kinds == [
        ("p", "c_void_p", 0), ("q", "c_void_p", 8), ("inner", "Inner", 16), ("wide", "c_ulong", 32),
        ("pair", "c_float_Array_2", 40), ("one", "c_float_Array_4", 48),
    ]  # fmt: skip
    assert structs.struct("b.cu", "Inner") is structs.struct("a.cuh", "Inner")
    assert structs.constant("b.cu", "SIZE") == 12
    assert structs.table("b.cu", "ROWS") == ((1, (2, 3)), (4, (5, 6)))


@pytest.mark.parametrize(
    ("read", "match"),
    [
        (lambda: structs.struct("b.cu", "Missing"), "b.cu: expected a struct Missing"),
        (lambda: structs.struct("b.cu", "Bad"), "struct Bad: expected members such as .*size"),
        (lambda: structs.constant("b.cu", "ROWS"), "b.cu: expected constexpr int ROWS"),
        (lambda: structs.table("b.cu", "SIZE"), r"b.cu: expected constexpr SIZE\[\]"),
    ],
)
def test_what_cannot_be_read(folder, read, match):
    with pytest.raises(ValueError, match=match):
        read()


def test_values(context):
    x = context.array(np.zeros((4, 6)))
    part = tensor_ops.split(x, 2)[0][1]
    given = norm.GroupNorm(x=x, scale=part, N=4, P=1, C=6, G=2, chunks=1, rows=1, epsilon=1e-6)
    assert (given.x, given.y) == (x.pointer, None)
    assert (given.scale.data, given.scale.pitch) == (x.pointer + 12, 6)
    assert (given.shift.data, given.shift.pitch) == (None, 0)
    assert given.epsilon == np.float32(1e-6)
    sequence = sequence_struct(Sequence((1 << 64) - 2, (1 << 32) - 1, 3, first=4))
    assert (sequence.low, sequence.high, sequence.stream) == (0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFF)
    assert (sequence.step, sequence.first, sequence.step_at, sequence.first_at) == (3, 4, None, None)


def test_an_array_of_numbers_is_given_by_its_first_ones(context):
    x, features = context.array(np.zeros((2, 3))), structs.struct("noise_level.cu", "FourierFeatures")
    given = features(x=values(x), y=results(x), exponent=(6, -7), count=2, C=3, n=6)
    assert given.exponent[:] == [6, -7, *[0] * 14]
    assert (given.x.wide, given.x.narrow, given.x.shared) == (x.pointer, None, 0)
    with pytest.raises(AssertionError, match=r"FourierFeatures.exponent: expected at most 16 numbers, got 17"):
        features(x=values(x), y=results(x), exponent=range(17), count=2, C=3, n=6)


SPLIT, STEP = structs.struct("product.cuh", "Split"), structs.struct("sampler.cu", "SamplerStep")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SPLIT(each=1), "Split.size is not given"),
        (lambda: SPLIT(each=1, size=2, more=3), "Split has no field more"),
        (
            lambda: SPLIT(each=1 << 31, size=2),
            r"Split.each: expected an integer from -2\^31 to 2\^31 - 1, got 2147483648",
        ),
        (lambda: SPLIT(each=1.5, size=2), "Split.each"),
        (
            lambda: sequence_struct(Sequence(0, 1, -1)),
            r"Sequence.step: expected an integer from 0 to 2\^32 - 1, got -1",
        ),
        (lambda: sequence_struct(Sequence(0, 1, 0, 1 << 32)), "Sequence.first: .*got 4294967296"),
        (lambda: STEP(noise=3), "SamplerStep.rows is not given"),
        (
            lambda: STEP(rows=1, samples=1, count=1, clip_x0=0, noise=SPLIT(each=1, size=1)),
            "SamplerStep.noise: expected Sequence",
        ),
    ],
)
def test_values_that_do_not_fit(make, match):
    with pytest.raises(AssertionError, match=match):
        make()
