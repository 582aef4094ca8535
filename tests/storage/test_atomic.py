"""`replace_file`: whatever happens on the way, the former file or the new one is there, whole."""

import errno
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from refdiff.storage import replace_file

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


def test_new_and_replaced(tmp_path):
    path = tmp_path / "a"
    replace_file(path, lambda file: file.write(b"one"))
    replace_file(str(path), lambda file: file.write(b"two"))
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), SystemExit(1), MemoryError()])
@pytest.mark.parametrize("former", [None, b"former"])
def test_failure_while_writing(error, former, tmp_path):
    path = tmp_path / "a"
    if former:
        path.write_bytes(former)

    def write(file):
        file.write(b"half of it")
        raise error

    with pytest.raises(type(error)):
        replace_file(path, write)
    assert os.listdir(tmp_path) == (["a"] if former else [])
    assert former is None or path.read_bytes() == former


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_failure_of_the_system(function, tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"former")

    def fail(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="full"):
        replace_file(path, lambda file: file.write(b"new"))
    monkeypatch.undo()
    assert path.read_bytes() == b"former"
    assert os.listdir(tmp_path) == ["a"]


@posix
def test_order_content_name_folder(tmp_path, monkeypatch):
    """fsync of the content, then the new name, then fsync of the folder: what a power cut asks for."""
    path, calls = tmp_path / "a", []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor):
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else f"content {os.fstat(descriptor).st_size}"
        calls.append(kind)
        fsync(descriptor)

    def record_replace(source, target):
        assert os.path.dirname(source) == os.path.dirname(target)  # across file systems it would not be one step
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    replace_file(path, lambda file: file.write(b"12345"))
    assert calls == ["content 5", "replace", "folder"]


@posix
def test_permissions(tmp_path):
    path, plain = tmp_path / "a", tmp_path / "plain"
    plain.write_bytes(b"")
    replace_file(path, lambda file: file.write(b"1"))
    assert path.stat().st_mode == plain.stat().st_mode  # as any new file, not the 0600 of a temporary one
    path.chmod(0o640)
    replace_file(path, lambda file: file.write(b"2"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@posix
def test_symbolic_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a")
    replace_file(tmp_path / "link", lambda file: file.write(b"2"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a").read_bytes() == b"2"


def test_wrong_paths(tmp_path):
    with pytest.raises(ValueError, match=r"\Apath: expected a file in an existing folder[^\n]*create [^\n]*\Z"):
        replace_file(tmp_path / "no" / "a", lambda file: file.write(b""))
    with pytest.raises(ValueError, match=r"\Apath: expected the name of a file[^\n]*folder or device[^\n]*\Z"):
        replace_file(tmp_path, lambda file: file.write(b""))


@posix
def test_devices_are_not_replaced():
    with pytest.raises(ValueError, match="folder or device"):
        replace_file("/dev/null", lambda file: file.write(b""))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_long_name(tmp_path):
    path = tmp_path / ("a" * 250)
    replace_file(path, lambda file: file.write(b"1"))
    assert path.read_bytes() == b"1"


WRITER = """
import sys
from refdiff.storage.atomic import replace_file
print("ready", flush=True)
i = 0
while True:
    i = (i + 1) % 256
    replace_file(sys.argv[1], lambda file: [file.write(bytes([i]) * 1000) for _ in range(1000)])
"""


@posix
def test_killed_while_writing(tmp_path):
    """A writer that does nothing else, killed at six moments: each time a whole file."""
    path = tmp_path / "a"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for i in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], env=environment, stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout.readline() == b"ready\n"
            while not path.exists():
                time.sleep(0.001)
            time.sleep(0.02 + 0.0037 * i)
            writer.send_signal(signal.SIGKILL)
        data = path.read_bytes()
        assert len(data) == 1_000_000
        assert data == data[:1] * 1_000_000
