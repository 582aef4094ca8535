"""IDX files: every spelling of MNIST's names, and every way in which such a file can be broken."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.data import load
from refdiff.data.idx import read_idx
from refdiff.errors import FormatError

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (20, 5, 4), dtype=np.uint8), RNG.integers(0, 7, 20, dtype=np.uint8)


def idx(array):
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(path, array):
    path.write_bytes(gzip.compress(idx(array), 1) if path.suffix == ".gz" else idx(array))


def line(*words):
    return r"\A" + "".join(rf"[^\n]*{word}" for word in words) + r"[^\n]*\Z"


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("separator", ["-", "."])
def test_folder_with_test_split(end, separator, tmp_path):
    for split, part in (("train", slice(None, 15)), ("t10k", slice(15, None))):
        write(tmp_path / f"{split}-images{separator}idx3-ubyte{end}", IMAGES[part])
        write(tmp_path / f"{split}-labels{separator}idx1-ubyte{end}", LABELS[part])
    data = load(tmp_path)
    assert data.x.shape == (15, 5, 4, 1)
    assert data.x.dtype == np.float32
    assert np.allclose(np.concatenate([data.x, data.held_out])[..., 0], IMAGES / 127.5 - 1, atol=1e-6)
    assert np.array_equal(np.concatenate([data.labels, data.held_out_labels]), LABELS)
    assert data.name == tmp_path.name


def test_folder_without_test_split_or_labels(tmp_path):
    write(tmp_path / "train-images-idx3-ubyte", IMAGES)
    data = load(tmp_path)
    assert (len(data.x), len(data.held_out), data.labels) == (18, 2, None)
    assert np.allclose(data.held_out[1, ..., 0], IMAGES[19] / 127.5 - 1, atol=1e-6)


def test_folder_with_labels_for_one_part(tmp_path):
    write(tmp_path / "train-images-idx3-ubyte", IMAGES)
    write(tmp_path / "train-labels-idx1-ubyte", LABELS)
    write(tmp_path / "t10k-images-idx3-ubyte", IMAGES)
    with pytest.raises(FormatError, match=line("held_out_labels", "both or neither")):
        load(tmp_path)


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("labels_end", ["", ".gz", None])
def test_single_file_finds_its_labels(end, labels_end, tmp_path):
    write(tmp_path / f"some-images-idx3-ubyte{end}", IMAGES)
    if labels_end is not None:
        write(tmp_path / f"some-labels-idx1-ubyte{labels_end}", LABELS)
    data = load(tmp_path / f"some-images-idx3-ubyte{end}")
    assert len(data.x) == 18
    if labels_end is None:
        assert data.labels is None
    else:
        assert data.held_out_labels.tolist() == LABELS[9::10].tolist()


def test_single_file_of_another_name_has_no_labels(tmp_path):
    write(tmp_path / "faces", IMAGES)
    write(tmp_path / "faces.gz", IMAGES)
    for name in ("faces", "faces.gz"):
        assert load(tmp_path / name).labels is None


def test_gzip_is_known_by_its_bytes(tmp_path):
    """Browsers unpack on the way and leave the name as it was."""
    (tmp_path / "a-images-idx3-ubyte.gz").write_bytes(idx(IMAGES))
    (tmp_path / "b-images-idx3-ubyte").write_bytes(gzip.compress(idx(IMAGES)))
    assert len(load(tmp_path / "a-images-idx3-ubyte.gz").x) == len(load(tmp_path / "b-images-idx3-ubyte").x) == 18


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans())
def test_any_shape(tmp_path_factory, shape, packed):
    array = np.random.default_rng(len(shape)).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path_factory.mktemp("idx") / ("a.gz" if packed else "a")
    write(path, array)
    assert np.array_equal(read_idx(path, len(shape)), array)


WHOLE, PACKED = idx(IMAGES), gzip.compress(idx(IMAGES), 1, mtime=0)


def flipped(data, i):
    return data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("got one that starts with nothing",)),
        (WHOLE[:3], ("got one that starts 000008",)),
        (idx(LABELS), ("starts 00000803", "starts 00000801", "images")),
        (b"\x89PNG" + WHOLE[4:], ("starts 00000803", "starts 89504e47")),
        (b"\0\0\x0d\x03" + WHOLE[4:], ("unsigned bytes", "starts 00000d03")),
        (WHOLE[:10], ("header of 16 bytes", "got 10")),
        (WHOLE[:-1], ("20x5x4 bytes", "got 399", "download")),
        (WHOLE[:16], ("20x5x4 bytes", "got 0")),
        (WHOLE + b"\0", ("20x5x4 bytes", "got more")),
        (idx(IMAGES[:0]), ("0x5x4", "empty")),
        (struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), ("8 GiB", "corrupt")),
        (struct.pack(">4B3I", 0, 0, 8, 3, 2**16, 2**8, 2**8), ("65536x256x256 bytes", "got 0")),
        (PACKED[:-20], ("gzip", "truncated or corrupt")),
        (PACKED[:12], ("gzip", "truncated or corrupt")),
        (PACKED[:10] + b"\xff" * 50, ("gzip", "invalid block type")),
        (flipped(PACKED, len(PACKED) - 6), ("gzip", "CRC")),
        (flipped(PACKED, 2), ("gzip", "truncated or corrupt")),
        (flipped(PACKED, len(PACKED) // 2), ("expected", "download")),
        (gzip.compress(WHOLE + b"\0" * 999), ("20x5x4 bytes", "got more")),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else "",
)
def test_broken_files(content, words, tmp_path):
    for name in ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(FormatError, match=line(name, *words)):
            load(path)
        with pytest.raises(FormatError, match=line(name, *words)):
            load(tmp_path)
        path.unlink()


def test_number_of_labels_differs(tmp_path):
    write(tmp_path / "train-images-idx3-ubyte", IMAGES)
    write(tmp_path / "train-labels-idx1-ubyte", LABELS[:19])
    for path in (tmp_path, tmp_path / "train-images-idx3-ubyte"):
        with pytest.raises(FormatError, match=line("train-labels", "expected 20 labels", "got 19")):
            load(path)


def test_giving_the_labels_file(tmp_path):
    write(tmp_path / "train-labels-idx1-ubyte", LABELS)
    with pytest.raises(FormatError, match=line("give the file that holds the images")):
        load(tmp_path / "train-labels-idx1-ubyte")
