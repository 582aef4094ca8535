"""The catalogue of the kernels: what NVRTC's assembler says of each, as a page.

python tests/kernels/catalogue.py kernels/README.md
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from kernels.variants import COMMON, DTYPES, NOT_RUN, STATE, Defines
from refdiff.engines.cuda.runtime import nvrtc
from refdiff.engines.cuda.runtime.sources import KERNELS

ARCHITECTURES = ("sm_80", "sm_90a")  # what CupyDevice asks for on an A100 and on an H100
NAMES = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(')
SOURCES = sorted(path.name for path in KERNELS.glob("*.cu"))
CACHE = Path(tempfile.gettempdir()) / f"refdiff-kernels-{os.getuid()}"


class Figures(NamedTuple):
    """shared: bytes that are declared, without those a launch asks for; stack, spilled: bytes a thread."""

    registers: int
    shared: int
    stack: int
    spilled: int


def names(source: str) -> list[str]:
    """The kernels of a file, in its order."""
    return NAMES.findall((KERNELS / source).read_text())


def figures(
    source: str, defines: Defines, architecture: str, compiler: nvrtc.Nvrtc | None = None
) -> dict[str, Figures]:
    """Of each kernel of a file, as the newest compiler says, unless another is given."""
    log = (compiler or nvrtc.find()).compile(KERNELS / source, sorted(defines.items()), architecture, CACHE).log
    found = {}
    for part in log.split("Compiling entry function ")[1:]:
        frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part)
        shared = re.search(r"(\d+) bytes smem", part)
        found[part.split("'")[1]] = Figures(
            int(re.search(r"Used (\d+) registers", part)[1]),
            int(shared[1]) if shared else 0,
            sum(int(stack) for stack, _, _ in frames),
            sum(int(stores) + int(loads) for _, stores, loads in frames),
        )
    return found


def title(defines: Defines) -> str:
    """ "bfloat16, HEAD 64"."""
    others = [f"{name} {value}" for name, value in defines.items() if name != "BF16"]
    return ", ".join(["bfloat16" if defines.get("BF16") else "float32", *others])


def purpose(source: str) -> str:
    """The first sentence of a file, which does not end at "eq."."""
    text = re.match(r"(?://[^\n]*\n)+", (KERNELS / source).read_text())[0].replace("//", " ")
    return re.split(r"(?<=[.:])(?<!eq\.)(?<!eqs\.)\s", " ".join(text.split()))[0].rstrip(".:")


def section(source: str) -> str:
    """The part of the page about one file."""
    lines = [f"## {source}", "", f"{purpose(source)}. State: {STATE.get(source, NOT_RUN)}.", ""]
    lines += ["| kernel | variant | registers | shared memory | spills |", "| --- | --- | --- | --- | --- |"]
    rows = {name: [] for name in names(source)}
    for defines in COMMON.get(source, DTYPES):
        found = [figures(source, defines, architecture) for architecture in ARCHITECTURES]
        for name in rows:
            each = [f[name] for f in found]
            rows[name].append(
                f"| `{name}` | {title(defines)} | {', '.join(str(f.registers) for f in each)} "
                f"| {each[0].shared} | {max(f.stack + f.spilled for f in each)} |"
            )
    return "\n".join([*lines, *(row for group in rows.values() for row in group)])


def introduction() -> str:
    """The beginning of the page."""
    version = ".".join(map(str, nvrtc.find().version))
    return "\n\n".join(
        [
            "# Kernels",
            "refdiff's CUDA kernels: one `.cu` file a family of operations, forward and backward together, which the "
            "wheel carries as `refdiff/_kernels`. Headers: `ptx.cuh` the instructions that C++ has no words for, "
            "`device.cuh` what all share, the others what some share. Each file begins with its equations and what "
            "bounds its speed.",
            f"The tables are what NVRTC {version} says: registers a thread for {' and '.join(ARCHITECTURES)}, bytes of "
            "static shared memory (a launch asks for more), bytes of stack and spills a thread. Made by "
            "`python tests/kernels/catalogue.py kernels/README.md`; a test compares.",
        ]
    )


def page() -> str:
    """The whole of it."""
    return "\n\n".join([introduction(), *(section(source) for source in SOURCES)]) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
