"""A .cu file as a cubin: NVIDIA's run-time compiler NVRTC, called through ctypes, with a cache on disk.

It needs no GPU and no CUDA installation: the wheels of the extras bring it. A cubin is for one architecture, so nothing is
left for the driver to compile. CuPy's own compilation is not used: it chooses the architecture itself.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ....errors import extra, option
from .device import DeviceError

__all__ = ["OLDEST", "Compiled", "Nvrtc", "cache_folder", "candidates", "find"]

OLDEST = (12, 2)  # 12.0 and 12.1 lack overloads such as pow(double, int); `make check` compiles with 12.2

OPTIONS = ("-std=c++17", "-default-device", "--ptxas-options=-v")
TOOLKITS = Path("/usr/local")
_DIGEST = hashlib.sha256().digest_size


class Compiled(NamedTuple):
    """log: what the compiler said; with the registers, shared memory and spills of each kernel."""

    cubin: bytes
    log: str


class Nvrtc:
    """One library of NVRTC. path: of libnvrtc; OSError if it is none."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._library = ctypes.CDLL(path)
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = (major.value, minor.value)

    def compile(
        self, source: Path, defines: Sequence[tuple[str, int]], architecture: str, cache: Path | None = None
    ) -> Compiled:
        """source, which may include what lies beside it, for architecture ("sm_90a").

        cache: a folder; what was compiled once from the same text with the same options is taken from there.
        DeviceError with the compiler's words.
        """
        options = [f"--gpu-architecture={architecture}", *OPTIONS, *(f"-D{name}={value}" for name, value in defines)]
        entry = cache and cache / f"{source.stem}-{architecture}-{self._key(source, options)}"
        found = entry and _read(entry)
        if not found:
            found = self._compile(source, [*options, f"-I{source.parent}"])
            if entry:
                _write(entry, found)
        return found

    def ptx(self, source: Path, defines: Sequence[tuple[str, int]], architecture: str) -> str:
        """The same as text, before it is assembled: for tests that look for an instruction."""
        options = [
            f"--gpu-architecture={architecture}",
            *OPTIONS[:2],
            *(f"-D{name}={value}" for name, value in defines),
        ]
        return self._compile(source, [*options, f"-I{source.parent}"], "PTX").cubin.decode()

    def _key(self, source: Path, options: list[str]) -> str:
        texts = [
            source.name,
            source.read_text(),
            *(header.read_text() for header in sorted(source.parent.glob("*.cuh"))),
        ]
        return hashlib.sha256(repr((self.version, options, texts)).encode()).hexdigest()[:32]

    def _compile(self, source: Path, options: list[str], product: str = "CUBIN") -> Compiled:
        program = ctypes.c_void_p()
        text, name = source.read_bytes(), source.name.encode()
        self._call("nvrtcCreateProgram", ctypes.byref(program), text, name, 0, None, None)
        try:
            given = (ctypes.c_char_p * len(options))(*(os.fsencode(option) for option in options))
            failed = self._library.nvrtcCompileProgram(program, len(options), given)
            log = self._bytes("ProgramLog", program).rstrip(b"\0").decode(errors="replace")
            if failed:
                raise DeviceError(
                    f"{source.name} does not compile ({' '.join(options)}; NVRTC {self.version[0]}.{self.version[1]}): "
                    f"{self._words(failed)}\n{log}"
                )
            return Compiled(self._bytes(product, program), log)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _bytes(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        out = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{what}", program, out)
        return out.raw

    def _call(self, name: str, *arguments: Any) -> None:
        failed = getattr(self._library, name)(*arguments)
        if failed:
            raise DeviceError(f"{name} of {self.path} failed: {self._words(failed)}")

    def _words(self, status: int) -> str:
        return self._library.nvrtcGetErrorString(status).decode()


@cache
def find(newest: int | None = None) -> Nvrtc:
    """The first of `candidates` that is OLDEST or newer, and of no later CUDA than `newest`, if given: a driver refuses what
    a newer compiler made. DeviceError, which says what to install and what was found."""
    others = []
    for path in candidates():
        try:
            nvrtc = Nvrtc(path)
        except (OSError, AttributeError, DeviceError) as error:
            others.append(f"{path} ({error})")
            continue
        version = "{}.{}".format(*nvrtc.version)
        if nvrtc.version < OLDEST:
            others.append(f"{path} (version {version}, too old)")
        elif newest is not None and nvrtc.version[0] > newest:
            others.append(f"{path} (version {version}, newer than the driver)")
        else:
            return nvrtc
    raise DeviceError(
        f"NVRTC {'.'.join(map(str, OLDEST))} or newer, the compiler of the kernels, "
        f"{f'for a driver of CUDA {newest} ' if newest else ''}is missing: "
        f"{extra(f'cuda{min(newest or 13, 13)}') if newest is None or newest >= OLDEST[0] else 'update the driver'}; "
        f"{option('engine', 'cpu')} goes on working" + (f". Found and not used: {'; '.join(others)}" if others else "")
    )


def candidates() -> list[str]:
    """Libraries of NVRTC, the first to be tried first: in the wheels, under CUDA_PATH and CUDA_HOME, in /usr/local/cuda and
    /usr/local/cuda-VERSION (the newest first), in the folders of LD_LIBRARY_PATH, and what the loader finds."""
    spec = importlib.util.find_spec("nvidia")  # a namespace, of all wheels of NVIDIA's
    wheels = [Path(root) for root in (spec.submodule_search_locations or () if spec else ())]
    folders = [root / part for root in wheels for part in ("cu13/lib", "cuda_nvrtc/lib")]
    toolkits = [Path(os.environ[name]) for name in ("CUDA_PATH", "CUDA_HOME") if os.environ.get(name)]
    toolkits += [TOOLKITS / "cuda", *sorted(TOOLKITS.glob("cuda-*"), key=_numbers, reverse=True)]
    folders += [root / part for root in toolkits for part in ("lib64", "lib")]
    folders += [Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    found: dict[str, str] = {}  # by what a link leads to: /usr/local/cuda is one to cuda-VERSION
    for folder in folders:
        names = [path for path in folder.glob("libnvrtc.so*") if re.fullmatch(r"libnvrtc\.so[.\d]*", path.name)]
        for path in sorted(map(str, names), key=len):
            found.setdefault(os.path.realpath(path), path)
    name = ctypes.util.find_library("nvrtc")
    return [*found.values(), *([name] if name else [])]


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name)]


def cache_folder() -> Path:
    """Where compiled kernels lie: refdiff/kernels in XDG_CACHE_HOME, or in ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path("~/.cache").expanduser()) / "refdiff" / "kernels"


def _read(entry: Path) -> Compiled | None:
    """What `_write` wrote; None if it is not there whole."""
    try:
        content = entry.read_bytes()
    except OSError:
        return None
    digest, rest = content[:_DIGEST], content[_DIGEST:]
    if len(rest) < 4 or hashlib.sha256(rest).digest() != digest:
        return None
    end = 4 + int.from_bytes(rest[:4], "little")
    return Compiled(rest[end:], rest[4:end].decode())


def _write(entry: Path, compiled: Compiled) -> None:
    """A digest of what follows, the length of the log, the log, the cubin. A folder that cannot be written is no error."""
    log = compiled.log.encode()
    rest = len(log).to_bytes(4, "little") + log + compiled.cubin
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=entry.parent, prefix=".", delete=False) as file:
            file.write(hashlib.sha256(rest).digest() + rest)
        os.replace(file.name, entry)
    except OSError:
        pass
