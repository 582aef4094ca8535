"""Checkpoints: what goes in comes out, the same content gives the same bytes, and a failure leaves the former file.

What the reader does with bytes that are no checkpoint is in test_header.py.
"""

import json
import os
import sys

import numpy as np
import pytest
from helpers import line
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
        ({}, {"a": {1: 2}}, ("metadata:", "keys that are strings", "got 1")),
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


# What is missing


def test_no_file(tmp_path):
    for wrong, words in ((tmp_path / "no", "no file"), (tmp_path, "a folder"), ("a" * 5000, "no file")):
        with pytest.raises(ValueError, match=line("path:", words, "check the spelling")) as caught:
            load_checkpoint(wrong)
        assert not isinstance(caught.value, FormatError)


def test_missing_safetensors_is_named(path, monkeypatch):
    save_checkpoint(path, {}, {})
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for call in (lambda: save_checkpoint(path, {}, {}), lambda: load_checkpoint(path)):
        with pytest.raises(ImportError, match=line("safetensors", "pip install safetensors")):
            call()
