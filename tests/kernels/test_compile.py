"""Each kernel compiles for each GPU with nothing spilled, and the catalogue says what the compiler says. Needs no GPU."""

import ast
import re
from pathlib import Path

import pytest

import refdiff
from kernels import catalogue
from kernels.variants import COMMON, DTYPES, RARE, TENSOR_CORES
from refdiff.engines.cuda.product import TILES
from refdiff.engines.cuda.runtime import nvrtc
from refdiff.engines.cuda.runtime.device import DeviceError
from refdiff.engines.cuda.runtime.sources import KERNELS

try:
    nvrtc.find()
except DeviceError as error:
    pytestmark = pytest.mark.skip(reason=str(error))

PAGE = (KERNELS / "README.md").read_text()


def check(source, defines, architecture, compiler=None):
    found = catalogue.figures(source, defines, architecture, compiler)
    assert found
    assert set(found) == set(catalogue.names(source))
    for name, figures in found.items():
        assert figures.stack == figures.spilled == 0, f"{name}, {catalogue.title(defines)}, {architecture}: {figures}"
        assert figures.shared <= 48 << 10


def same_registers(text):
    """The page without what changes from one version of the compiler to the next."""
    return re.sub(r"\| \d+(, \d+)* \| (\d+) \| (\d+) \|$", r"| \2 | \3 |", text, flags=re.MULTILINE)


@pytest.mark.parametrize("source", catalogue.SOURCES)
def test_nothing_is_spilled_and_the_catalogue_is_up_to_date(source):
    for defines in COMMON.get(source, DTYPES):
        for architecture in catalogue.ARCHITECTURES:
            check(source, defines, architecture)
    expected = catalogue.section(source)
    found = re.search(rf"^## {re.escape(source)}\n.*?(?=\n\n## |\n\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"{source} is not in kernels/README.md"
    if catalogue.introduction() in PAGE:
        assert found[0] == expected
    else:
        assert same_registers(found[0]) == same_registers(expected)


def test_the_catalogue_names_each_file_once():
    assert re.findall(r"^## (.*)$", PAGE, re.MULTILINE) == catalogue.SOURCES
    version = re.compile(r"NVRTC [\d.]+")
    assert PAGE.startswith("# Kernels")
    assert version.sub("", catalogue.introduction()) in version.sub("", PAGE)


@pytest.mark.slow
@pytest.mark.parametrize("source", catalogue.SOURCES)
def test_nothing_is_spilled_at_odd_sizes_and_for_sm_90(source):
    for defines in RARE.get(source, []):
        for architecture in catalogue.ARCHITECTURES:
            check(source, defines, architecture)
    for defines in COMMON.get(source, DTYPES):
        check(source, defines, "sm_90")


@pytest.mark.parametrize("source", TENSOR_CORES)
def test_products_run_on_the_tensor_cores(source):
    defines = next(d for d in COMMON.get(source, DTYPES) if d.get("BF16"))
    ptx = nvrtc.find().ptx(KERNELS / source, sorted(defines.items()), "sm_80")
    bodies = dict(zip(*[iter(re.split(r"\.entry (\w+)", ptx)[1:])] * 2, strict=True))
    for name in TENSOR_CORES[source]:
        assert re.search(r"(mma\.sync|wgmma)", bodies[name]), name


def test_no_variant_of_the_engine_is_left_out():
    """Each -D name that a file asks for (#ifdef, #ifndef) is given a value in the list of variants, and no other."""
    for source in catalogue.SOURCES:
        texts = [(KERNELS / source).read_text()]
        for text in texts:  # grows by what is included
            texts += [
                path.read_text()
                for path in KERNELS.glob("*.cuh")
                if f"#include <{path.name}>" in text and path.read_text() not in texts
            ]
        asked = {name for text in texts for name in re.findall(r"^#if(?:n?def)\s+(\w+)", text, re.MULTILINE)}
        given = {name for d in [*COMMON.get(source, DTYPES), *RARE.get(source, [])] for name in d}
        assert given | {"BF16"} == asked | {"BF16"}, source
    assert set(COMMON) | set(RARE) | set(TENSOR_CORES) <= set(catalogue.SOURCES)


def test_the_engine_launches_only_kernels_that_exist():
    """The file that each launch names, where it names one, is there."""
    for path in (Path(refdiff.__file__).parent / "engines" / "cuda").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"\w+\.cu", node.value):
                assert node.value in catalogue.SOURCES, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("source", ["linear.cu", "conv2d.cu"])
def test_as_many_blocks_are_resident_as_the_split_of_a_weight_gradient_counts_on(source):
    """Registers are given out by 8 a thread; an A100 has 164 KiB of shared memory a multiprocessor, of which a block takes
    one more than it asks for."""
    tiles = {(dtype, *tile[:2]): tile for dtype, each in TILES.items() for tile in each}
    for defines in COMMON[source]:
        tile = tiles["bfloat16" if defines.get("BF16") else "float32", defines["TILE_M"], defines["TILE_N"]]
        for architecture in catalogue.ARCHITECTURES:
            registers = catalogue.figures(source, defines, architecture)[f"{source[:-3]}_dweight"].registers
            assert tile.resident * tile.threads * -(-registers // 8) * 8 <= 65536
            assert tile.resident * (tile.shared + 1024) <= 164 << 10
            assert tile.resident * tile.threads <= 2048
