"""Checkpoints: what goes in comes out, the same content gives the same bytes, and no bytes can crash the reader."""

import json
import os
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from refdiff.errors import FormatError
from refdiff.storage import load_checkpoint, save_checkpoint
from refdiff.storage.header import DTYPES

ARRAYS = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(4, dtype=np.int64),
    "empty": np.zeros((0, 3)),
}
METADATA = {"step": 7, "rate": 1e-4, "name": "ü", "list": [1, None, True], "inner": {"a": {}}}


def line(*words):
    return r"\A" + "".join(rf"[^\n]*{word}" for word in words) + r"[^\n]*\Z"


def equal(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


# What goes in comes out


@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    dtype=st.sampled_from(list(DTYPES.values())),
    layout=st.sampled_from(["C", "transposed", "reversed", "strided", "broadcast", "offset", "big-endian"]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150)
def test_round_trip_of_any_layout(tmp_path_factory, shape, dtype, layout, seed):
    array = np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)
    if layout == "transposed":
        array = array.T
    elif layout == "reversed" and shape:
        array = array[::-1]
    elif layout == "strided" and shape:
        array = array[..., ::2]
    elif layout == "broadcast":
        array = np.broadcast_to(array, (3, *shape))
    elif layout == "offset" and shape:
        array = array[1:]
    elif layout == "big-endian":
        array = array.astype(dtype.newbyteorder(">"))
    before = array.copy()
    path = tmp_path_factory.mktemp("trip") / "a"
    save_checkpoint(path, {"x": array, "again": array}, {})
    loaded, _ = load_checkpoint(path)
    for name in ("x", "again"):
        assert loaded[name].dtype == dtype
        assert loaded[name].shape == array.shape
        assert np.array_equal(loaded[name], before)
    assert np.array_equal(array, before)


def test_transpose_is_not_corrupted(path):
    """safetensors alone writes the memory as it lies; this is the array that comes back wrong from it."""
    w = np.arange(6.0).reshape(2, 3)
    save_file({"w": w.T}, path)
    save_checkpoint(path, {"w": w.T, "f": np.asfortranarray(w)}, {})
    loaded, _ = load_checkpoint(path)
    assert loaded["w"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert loaded["f"].tolist() == w.tolist()


def test_special_values_keep_their_bits(path):
    x = np.array([np.nan, -np.nan, np.inf, -0.0, 5e-324, 1.7e308])
    save_checkpoint(path, {"x": x}, {})
    assert load_checkpoint(path)[0]["x"].tobytes() == x.tobytes()


def test_metadata_and_order_of_names(path):
    save_checkpoint(path, ARRAYS, METADATA)
    arrays, metadata = load_checkpoint(path)
    assert metadata == METADATA
    assert list(arrays) == ["b", "empty", "w"]
    assert all(equal(arrays[name], ARRAYS[name]) for name in ARRAYS)


def test_tuples_come_back_as_lists_and_nothing_is_enough(path):
    save_checkpoint(path, {}, {"widths": (1, 2)})
    assert load_checkpoint(path) == ({}, {"widths": [1, 2]})


def test_loaded_arrays_are_the_callers_own(path):
    save_checkpoint(path, ARRAYS, {})
    before = path.read_bytes()
    arrays, _ = load_checkpoint(path)
    arrays["w"][...] = -1
    assert path.read_bytes() == before
    assert equal(load_checkpoint(path)[0]["w"], ARRAYS["w"])


def test_same_content_same_bytes(path):
    save_checkpoint(path, ARRAYS, METADATA)
    first = path.read_bytes()
    for _ in range(5):  # several times, because hash maps are shuffled
        backwards = dict(reversed(ARRAYS.items()))
        save_checkpoint(path, {k: np.asfortranarray(v) for k, v in backwards.items()}, dict(reversed(METADATA.items())))
        assert path.read_bytes() == first


def test_file_is_safetensors_with_one_json_string(path):
    save_checkpoint(path, ARRAYS, METADATA)
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert list(header["__metadata__"]) == ["refdiff"]
    assert json.loads(header["__metadata__"]["refdiff"]) == {"format": 1, "metadata": METADATA}


# What it refuses to save


@pytest.mark.parametrize(
    ("arrays", "metadata", "words"),
    [
        ({"x": [1.0, 2.0]}, {}, ("arrays:", "'x'", "list", "asarray")),
        ({"x": np.array(["a"])}, {}, ("arrays:", "float32", "'x'", "<U1", "convert")),
        ({"x": np.array([object()])}, {}, ("arrays:", "object")),
        ({"x": np.zeros(2, complex)}, {}, ("arrays:", "complex128")),
        ({"x": np.zeros(2, np.longdouble)}, {}, ("arrays:", "float128|longdouble|float96")),
        ({"__metadata__": np.zeros(2)}, {}, ("arrays:", "__metadata__", "rename")),
        ({3: np.zeros(2)}, {}, ("arrays:", "3", "rename")),
        ({}, {"a": {1: 2}}, ("metadata:", "keys that are strings", "came 1")),
        ({}, {"a": [{None: 2}]}, ("metadata:", "keys that are strings")),
        ({}, {"a": float("nan")}, ("metadata:", "JSON")),
        ({}, {"a": float("inf")}, ("metadata:", "JSON")),
        ({}, {"a": np.float32(1)}, ("metadata:", "JSON", "float32")),
        ({}, {"a": {1, 2}}, ("metadata:", "JSON", "set")),
        ({}, {"a": b"x"}, ("metadata:", "JSON", "bytes")),
    ],
)
def test_refuses_to_save(arrays, metadata, words, path):
    with pytest.raises(ValueError, match=line(*words)):
        save_checkpoint(path, arrays, metadata)
    assert not path.exists()


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_full_disk(path):
    """The system refuses the second half of the file: OSError, the former checkpoint whole, no litter."""
    import resource

    save_checkpoint(path, ARRAYS, METADATA)
    former, limit = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))
    try:
        with pytest.raises(OSError, match=r"\[Errno"):
            save_checkpoint(path, {"x": np.zeros(1 << 18)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == former
    assert os.listdir(path.parent) == [path.name]


def test_folder_that_does_not_exist(tmp_path):
    with pytest.raises(ValueError, match=line("path:", "existing folder", "create")):
        save_checkpoint(tmp_path / "no" / "a", {}, {})


# What it refuses to load


def test_no_file(tmp_path):
    for wrong, words in ((tmp_path / "no", "no file"), (tmp_path, "a folder"), ("a" * 5000, "no file")):
        with pytest.raises(ValueError, match=line("path:", words, "check the spelling")) as caught:
            load_checkpoint(wrong)
        assert not isinstance(caught.value, FormatError)


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
        (b"", ("a safetensors file", "came 0 bytes")),
        (b"1234567", ("a safetensors file", "came 7 bytes")),
        (b"PK\x03\x04" + b"\0" * 99, ("a safetensors file", "came 103 bytes that start b'PK", "another copy")),
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
        (refdiff_text('{"format": 2, "metadata": {}}'), ("format 1, came 2", "upgrade refdiff")),
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
        (packed(entry(), b"1234567"), ("8 bytes of arrays", "came 7", "truncated")),
        (packed(entry(), b"123456789"), ("8 bytes of arrays", "came 9", "too long")),
    ],
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


def test_missing_safetensors_is_named(path, monkeypatch):
    save_checkpoint(path, {}, {})
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for call in (lambda: save_checkpoint(path, {}, {}), lambda: load_checkpoint(path)):
        with pytest.raises(ImportError, match=line("safetensors", "pip install safetensors")):
            call()
