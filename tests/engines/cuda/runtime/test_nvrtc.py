"""The compiler of the kernels: what it makes, its cache, and what it says where something is wrong. Needs no GPU."""

import importlib.util
import os
from types import SimpleNamespace

import pytest

from refdiff.engines.cuda.runtime import nvrtc
from refdiff.engines.cuda.runtime.device import DeviceError

SOURCE = """#include <own.cuh>
extern "C" __global__ void k(float* x) {
    x[threadIdx.x] = OWN * SCALE;
}
"""


@pytest.fixture(scope="module")
def compiler():
    if os.environ.get("REFDIFF_SANITIZE"):
        pytest.skip("under AddressSanitizer NVRTC does not find its own libraries")
    try:
        return nvrtc.find()
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture
def source(tmp_path):
    (tmp_path / "own.cuh").write_text("#define OWN 2\n")
    path = tmp_path / "k.cu"
    path.write_text(SOURCE)
    return path


def test_a_cubin_for_each_architecture(compiler, source):
    found = {name: compiler.compile(source, [("SCALE", 3)], name) for name in ("sm_80", "sm_90", "sm_90a")}
    for architecture, compiled in found.items():
        assert compiled.cubin.startswith(b"\x7fELF")
        assert f"Compiling entry function 'k' for '{architecture}'" in compiled.log
        assert "0 bytes spill stores" in compiled.log
    assert len({compiled.cubin for compiled in found.values()}) == 3
    assert ".entry k(" in compiler.ptx(source, [("SCALE", 3)], "sm_80")


def test_an_error_names_file_and_line(compiler, source):
    with pytest.raises(DeviceError, match=r'k\.cu does not compile(.|\n)*k\.cu\(3\): error: .*"SCALE" is undefined'):
        compiler.compile(source, [], "sm_80")
    source.with_name("own.cuh").write_text("\n#define OWN (+)\n")
    with pytest.raises(DeviceError, match=r"own\.cuh\(2\)|k\.cu\(3\): error: expected an expression"):
        compiler.compile(source, [("SCALE", 3)], "sm_80")
    with pytest.raises(DeviceError, match="gpu-architecture"):
        compiler.compile(source, [("SCALE", 3)], "sm_12")


def test_the_cache_gives_what_the_same_text_made(compiler, source, tmp_path, monkeypatch):
    cache = tmp_path / "a" / "cache"

    def entries():
        """What was written, each time a file of its own."""
        return {(path, path.stat().st_ino, path.stat().st_mtime_ns) for path in cache.glob("*")}

    def make(defines=(("SCALE", 3),), architecture="sm_80"):
        before = entries()
        return compiler.compile(source, defines, architecture, cache), len(entries() - before)

    first, times = make()
    assert times == 1
    assert make() == (first, 0)
    assert make((("SCALE", 4),))[1] == make(architecture="sm_90")[1] == 1
    source.with_name("own.cuh").write_text("#define OWN 5\n")
    assert make()[1] == 1
    source.write_text(SOURCE + "// more\n")
    assert make()[1] == 1
    monkeypatch.setattr(compiler, "version", (1, 2))
    assert make()[1] == 1
    assert len(list(cache.iterdir())) == 6
    assert not list(cache.glob(".*")), "a temporary file was left"


def test_a_bad_cache_does_no_harm(compiler, source, tmp_path):
    cache = tmp_path / "cache"
    expected = compiler.compile(source, [("SCALE", 3)], "sm_80", cache)
    (entry,) = cache.iterdir()
    whole = entry.read_bytes()
    for broken in (b"", whole[:20], whole[:-1], whole[:100] + b"?" + whole[101:], whole + b"\0"):
        entry.write_bytes(broken)
        assert compiler.compile(source, [("SCALE", 3)], "sm_80", cache).cubin == expected.cubin
        assert entry.read_bytes()[:4] == nvrtc.hashlib.sha256(entry.read_bytes()[32:]).digest()[:4], "mended"
    entry.unlink()
    entry.mkdir()
    assert compiler.compile(source, [("SCALE", 3)], "sm_80", cache).cubin == expected.cubin
    assert compiler.compile(source, [("SCALE", 3)], "sm_80", source / "not a folder").cubin == expected.cubin


def test_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert nvrtc.cache_folder() == tmp_path / "refdiff" / "kernels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert nvrtc.cache_folder() == tmp_path / "home" / ".cache" / "refdiff" / "kernels"


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No NVRTC on this machine, and a place for one: a folder as /usr/local."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(nvrtc.ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(nvrtc, "TOOLKITS", tmp_path / "local")
    for name in ("CUDA_PATH", "CUDA_HOME", "LD_LIBRARY_PATH"):
        monkeypatch.delenv(name, raising=False)
    nvrtc.find.cache_clear()
    yield tmp_path
    nvrtc.find.cache_clear()


def files(folder, *names):
    """Empty files, with their folders."""
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return list(map(str, paths))


def test_where_it_looks(monkeypatch, nowhere):
    """Wheels, CUDA_PATH, CUDA_HOME, /usr/local/cuda and its sisters, newest first, LD_LIBRARY_PATH, the loader."""
    wheels = files(nowhere / "nvidia", "cu13/lib/libnvrtc.so.13", "cuda_nvrtc/lib/libnvrtc.so.12")
    path = files(nowhere / "path", "lib64/libnvrtc.so", "lib64/libnvrtc.so.12.4.99")
    home = files(nowhere / "home", "lib64/libnvrtc.so.11.2", "lib/libnvrtc.so.12")
    toolkits = files(nowhere / "local", "cuda-12.10/lib64/libnvrtc.so.12", "cuda-12.9/lib64/libnvrtc.so.12",
                     "cuda-11.8/lib64/libnvrtc.so.11.2")  # fmt: skip
    (nowhere / "local" / "cuda").symlink_to(nowhere / "local" / "cuda-12.9")
    toolkits = [str(nowhere / "local/cuda/lib64/libnvrtc.so.12"), toolkits[0], toolkits[2]]
    loader = files(nowhere / "ld", "libnvrtc.so.12")
    files(nowhere, "nvidia/cu13/lib/libnvrtc-builtins.so.13.0", "path/lib64/libnvrtc_static.a", "ld/libnvrtc.so.bak")
    spec = SimpleNamespace(submodule_search_locations=[str(nowhere / "nvidia")])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(nvrtc.ctypes.util, "find_library", lambda name: "libnvrtc.so.99")
    monkeypatch.setenv("CUDA_PATH", str(nowhere / "path"))
    monkeypatch.setenv("CUDA_HOME", str(nowhere / "home"))
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{nowhere / 'none'}{os.pathsep}{os.pathsep}{nowhere / 'ld'}")
    assert nvrtc.candidates() == [*wheels, *path, *home, *toolkits, *loader, "libnvrtc.so.99"]
    with pytest.raises(DeviceError, match=r"Found and not used: .*libnvrtc.so.13 \(.*"):
        nvrtc.find()


def test_nowhere_is_no_error_but_find_is(nowhere):
    assert nvrtc.candidates() == []
    with pytest.raises(
        DeviceError,
        match=r'^NVRTC 12\.2 or newer.* is missing: pip install "\.\[cuda13\]" in.*; engine="cpu" goes on working$',
    ):
        nvrtc.find()


def versions(monkeypatch, **found):
    """Libraries by path, of these versions."""
    monkeypatch.setattr(nvrtc, "candidates", lambda: list(found))
    monkeypatch.setattr(nvrtc, "Nvrtc", lambda path: SimpleNamespace(path=path, version=found[path]))
    nvrtc.find.cache_clear()


def test_the_first_that_the_driver_takes(monkeypatch, nowhere):
    versions(monkeypatch, a=(13, 1), b=(12, 9), c=(12, 3))
    assert [nvrtc.find(newest).path for newest in (None, 14, 13, 12)] == ["a", "a", "a", "b"]
    with pytest.raises(
        DeviceError,
        match=r"for a driver of CUDA 11 is missing: update the driver; .*"
        r"a \(version 13\.1, newer than the driver\); b",
    ):
        nvrtc.find(11)


@pytest.mark.parametrize("old", [(11, 8), (12, 0), (12, 1)])
def test_one_that_is_too_old_is_passed_over_and_named(monkeypatch, nowhere, old):
    """PyTorch's wheels for CUDA 12.1 bring such a one; one beside it does."""
    versions(monkeypatch, old=old, other=(12, 2))
    assert nvrtc.find(12).path == "other"
    versions(monkeypatch, old=old)
    for newest, extra in ((None, 13), (12, 12)):
        words = rf"NVRTC 12\.2 or newer.*\.\[cuda{extra}\].*: old \(version {old[0]}\.{old[1]}, too old\)$"
        with pytest.raises(DeviceError, match=words):
            nvrtc.find(newest)
