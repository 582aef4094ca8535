"""A .cu file as a shared library for the CPU: g++, with the emulator's headers before the kernel's own."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

COMPILER = shutil.which("g++")
INCLUDE = Path(__file__).parent / "include"
_FLAGS = ["-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-gnu-unique", "-fno-strict-aliasing",
          "-Wno-unknown-pragmas", "-Wno-attributes"]  # fmt: skip
_SANITIZE = ["-fsanitize=address", "-fno-omit-frame-pointer"]
_KERNEL = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(')


class BuildError(RuntimeError):
    """What g++ said."""


@lru_cache(maxsize=None)
def library(source: Path, defines: tuple[tuple[str, int], ...], sanitize: bool = False) -> ctypes.CDLL:
    """The library of one file, compiled once a content: kept in the temporary folder of the machine."""
    assert COMPILER, "the emulator needs g++"
    text = source.read_text()
    names = _KERNEL.findall(text)
    shim = [f'#include "{source}"', "#include <launch.h>"]
    for name in names:
        shim.append(f"EXPORT void run_{name}(void** a) {{ emulator::call({name}, a); }}")
        shim.append(f"EXPORT int sizes_{name}(int* out) {{ return emulator::sizes({name}, out); }}")
    flags = [*_FLAGS, *(_SANITIZE if sanitize else []), *(f"-D{k}={v}" for k, v in defines)]
    headers = [*sorted(INCLUDE.iterdir()), *sorted(source.parent.glob("*.cuh"))]
    key = hashlib.sha256(repr((flags, shim, text, [h.read_text() for h in headers])).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"refdiff-emulator-{os.getuid()}"
    folder.mkdir(exist_ok=True, mode=0o700)
    path = folder / f"{source.stem}-{key}.so"
    if not path.exists():
        own = path.with_suffix(f".{os.getpid()}.so")
        command = [COMPILER, *flags, f"-I{INCLUDE}", f"-I{source.parent}", "-include", "cuda.h", "-x", "c++", "-", "-o", own]
        done = subprocess.run(command, input="\n".join(shim) + "\n", capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(f"{source.name}: {done.stderr}")
        os.replace(own, path)
    found = ctypes.CDLL(str(path))
    found.emulator_error.restype = ctypes.c_char_p
    found.names = names
    return found
