"""Bytes that are no checkpoint: each refused with one line that says what is wrong, none able to crash the reader."""

import json

import numpy as np
import pytest
from helpers import line
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from refdiff.errors import FormatError
from refdiff.storage import load_checkpoint, save_checkpoint

ARRAYS = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(4, dtype=np.int64),
    "empty": np.zeros((0, 3)),
}
METADATA = {"step": 7, "name": "ü", "inner": {"a": [None]}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def packed(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


OURS = {"__metadata__": {"refdiff": '{"format": 1, "metadata": {}}'}}


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {**OURS, "x": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


def refdiff_text(text):
    return packed({"__metadata__": {"refdiff": text}})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("a safetensors file", "got 0 bytes")),
        (b"1234567", ("a safetensors file", "got 7 bytes")),
        (b"PK\x03\x04" + b"\0" * 99, ("a safetensors file", "got 103 bytes that start b'PK", "another copy")),
        (packed(OURS, length=2**63), ("a safetensors file", "bytes that start")),
        (packed(OURS, length=len(json.dumps(OURS)) + 1), ("a safetensors file",)),
        (packed(b"{"), ("in the header JSON", "corrupt")),
        (packed(b""), ("in the header JSON",)),
        (packed(b'{"a": "\xff"}'), ("in the header JSON", "utf-8")),
        (packed(b"[" * 100_000), ("in the header JSON",)),
        (packed(b"9" * 10_000), ("in the header JSON",)),
        (packed(b"[1]"), ("a JSON object", "list")),
        (packed(b'{"x": {}, "x": {}}'), ("one name stands twice",)),
        (packed({"__metadata__": {"refdiff": 1}}), ("strings as metadata",)),
        (packed({"__metadata__": 1}), ("strings as metadata",)),
        (packed({}), ("a checkpoint of refdiff", "without the metadata key 'refdiff'", "convert")),
        (packed({"__metadata__": {"format": "pt"}}), ("without the metadata key 'refdiff'",)),
        (refdiff_text("{"), ("refdiff's metadata", "corrupt")),
        (refdiff_text("[" * 100_000), ("refdiff's metadata", "corrupt")),
        (refdiff_text("[]"), ("refdiff's metadata",)),
        (refdiff_text('{"format": 1}'), ("refdiff's metadata",)),
        (refdiff_text('{"format": "1", "metadata": {}}'), ("refdiff's metadata",)),
        (refdiff_text('{"format": 1, "metadata": []}'), ("refdiff's metadata",)),
        (refdiff_text('{"format": 2, "metadata": {}}'), ("format 1, got 2", "upgrade refdiff")),
        (packed({**OURS, "x": 1}), ("dtype, shape and data_offsets of 'x'",)),
        (packed({**OURS, "x": {"dtype": "F32"}}), ("dtype, shape and data_offsets of 'x'",)),
        (packed(entry("BF16", offsets=(0, 4)), b"1234"), ("a dtype NumPy has", "BF16", "convert")),
        (packed(entry(["F32"]), b"12345678"), ("a dtype NumPy has",)),
        (packed(entry(shape=(-2,)), b"12345678"), ("a shape for 'x'",)),
        (packed(entry(shape=(2.0,)), b"12345678"), ("a shape for 'x'",)),
        (packed(entry(shape=(True, 2)), b"12345678"), ("a shape for 'x'",)),
        (packed(entry(shape=(0, 2**63), offsets=(0, 0))), ("a shape for 'x'",)),
        (packed(entry(shape=(1,) * 33, offsets=(0, 4)), b"1234"), ("a shape for 'x'",)),
        (packed(entry(shape=(0, 2**62, 2**62), offsets=(0, 0))), ("safetensors refuses", "another copy")),
        (packed(entry(offsets=(0,)), b"12345678"), ("two offsets for 'x'",)),
        (packed(entry(offsets=(8, 0)), b"12345678"), ("8 bytes for 'x'", "-8")),
        (packed(entry(offsets=(0, 9)), b"123456789"), ("8 bytes for 'x'", "9")),
        (packed(entry(offsets=(1, 9)), b"123456789"), ("data of 'x' at byte 0", "byte 1")),
        (packed({**entry(), "y": entry()["x"]}, b"12345678"), ("data of 'y' at byte 8", "byte 0")),
        (packed(entry(), b"1234567"), ("8 bytes of arrays", "got 7", "truncated")),
        (packed(entry(), b"123456789"), ("8 bytes of arrays", "got 9", "too long")),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else "",
)
def test_broken_files(content, words, path):
    path.write_bytes(content)
    with pytest.raises(FormatError, match=line(r"model\.safetensors: expected", *words)):
        load_checkpoint(path)


def test_a_file_made_by_hand_loads(path):
    """The cases above fail for the reason they name: the same file without its fault is good."""
    path.write_bytes(packed(entry(), np.float32([1, 2]).tobytes()))
    arrays, metadata = load_checkpoint(path)
    assert arrays["x"].tolist() == [1, 2]
    assert metadata == {}


def test_somebody_elses_safetensors(path):
    save_file({"w": np.zeros(3)}, path, metadata={"format": "pt"})
    with pytest.raises(FormatError, match=line("without the metadata key 'refdiff'")):
        load_checkpoint(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a"
    save_checkpoint(path, ARRAYS, METADATA)
    return path.read_bytes()


def refusal(path):
    """The message of the FormatError, or "" if it loads; any other exception passes through."""
    try:
        load_checkpoint(path)
    except FormatError as error:
        return str(error)
    return ""


@given(content=st.binary(max_size=200) | st.binary(max_size=200).map(packed))
@settings(max_examples=200)
def test_random_bytes(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("random") / "a"
    path.write_bytes(content)
    message = refusal(path)
    assert message
    assert "\n" not in message


@given(data=st.data())
@settings(max_examples=100)
def test_truncated_anywhere(tmp_path_factory, whole, data):
    path = tmp_path_factory.mktemp("cut") / "a"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert "another copy" in refusal(path)


def test_every_byte_flipped(tmp_path, whole):
    """Every single byte, one random bit or all of them: the file loads or is refused in one line."""
    random, path = np.random.default_rng(0), tmp_path / "a"
    refused = 0
    for i in range(len(whole)):
        for flip in (1 << random.integers(8), 255):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ int(flip)]) + whole[i + 1 :])
            message = refusal(path)
            assert "\n" not in message
            refused += message != ""
    assert refused > len(whole) // 2
