"""A .cu file as a shared library for the CPU: g++, with the emulator's headers before the kernel's own."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

COMPILER = shutil.which("g++")
INCLUDE = Path(__file__).parent / "include"
_FLAGS = ["-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique", "-fno-strict-aliasing",
          "-Wno-unknown-pragmas", "-Wno-attributes", "-Wno-psabi", "-ftrivial-auto-var-init=pattern"]  # fmt: skip
# What include/cuda.h has handlers for, so that nothing of the compiler's own need be linked.
_CHECKS = ["-fsanitize=alignment,bounds,shift-exponent,integer-divide-by-zero,signed-integer-overflow",
           "-fno-sanitize-recover=all"]  # fmt: skip
_ADDRESSES = [
    "-fsanitize=address",
    "-fsanitize-sections=emulated_shared",
    "-fno-omit-frame-pointer",
]
_INCLUDE = re.compile(r'^\s*#include\s+[<"]([^>"]+)[>"]', re.M)
_KERNEL = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\(([^)]*)\)\s*)?(\w+)\s*\(')


class BuildError(RuntimeError):
    """What g++ said."""


@cache
def library(source: Path, defines: tuple[tuple[str, int], ...], sanitize: bool = False) -> ctypes.CDLL:
    """The library of one file, compiled once a content: that of the file and of the headers that it includes, wherever they
    lie. It is kept in the temporary folder of the machine."""
    assert COMPILER, "the emulator needs g++"
    text = source.read_text()
    kernels = {name: bound or "1024" for bound, name in _KERNEL.findall(text)}
    shim = [f'#include "{source.name}"', "#include <launch.h>"]
    for name, bound in kernels.items():
        shim.append(f"EXPORT void run_{name}(void** a) {{ emulator::call({name}, a); }}")
        shim.append(f"EXPORT int sizes_{name}(int* out) {{ return emulator::sizes({name}, out); }}")
        shim.append(f"EXPORT int bound_{name}() {{ int bounds[] = {{{bound}}}; return bounds[0]; }}")
    flags = [
        *_FLAGS,
        *_CHECKS,
        *(_ADDRESSES if sanitize else []),
        *(f"-D{k}={v}" for k, v in defines),
    ]
    headers = [h.read_text() for h in (*sorted(INCLUDE.iterdir()), *included(source))]
    key = hashlib.sha256(repr((flags, shim, text, headers)).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"refdiff-emulator-{os.getuid()}"
    folder.mkdir(exist_ok=True, mode=0o700)
    path = folder / f"{source.stem}-{key}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as own:
            compiled, linked = f"{own}/kernel.o", f"{own}/kernel.so"
            includes = [f"-I{INCLUDE}", f"-I{source.parent}", "-include", "cuda.h"]
            _run(
                [COMPILER, *flags, *includes, "-x", "c++", "-c", "-", "-o", compiled],
                source,
                "\n".join(shim) + "\n",
            )
            _run(
                [
                    COMPILER,
                    "-shared",
                    compiled,
                    "-o",
                    linked,
                    *(_ADDRESSES[:1] if sanitize else []),
                ],
                source,
            )
            os.replace(linked, path)
    found = ctypes.CDLL(str(path))
    found.emulator_error.restype = ctypes.c_char_p
    found.names = list(kernels)
    return found


def included(source: Path) -> list[Path]:
    """The headers beside a file that it really includes, and those that they include."""
    found: dict[str, Path] = {}
    left = [source]
    while left:
        for name in _INCLUDE.findall(left.pop().read_text()):
            path = source.parent / name
            if name not in found and path.exists():
                found[name] = path
                left.append(path)
    return [found[name] for name in sorted(found)]


def _run(command: list[str], source: Path, text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, cwd=source.parent)
    if done.returncode:
        raise BuildError(f"{source.name}: {done.stderr}")
