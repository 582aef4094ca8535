"""CIFAR-10's binary version."""

import numpy as np
import pytest

from refdiff.data import load
from refdiff.errors import FormatError

RNG = np.random.default_rng(0)
PIXELS, LABELS = RNG.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8), RNG.integers(0, 10, 20, dtype=np.uint8)


def batch(part=slice(None)):
    planes = PIXELS[part].transpose(0, 3, 1, 2).reshape(-1, 3072)
    return np.concatenate([LABELS[part, None], planes], axis=1).tobytes()


def line(*words):
    return r"\A" + "".join(rf"[^\n]*{word}" for word in words) + r"[^\n]*\Z"


def test_folder(tmp_path):
    for i in range(2):
        (tmp_path / f"data_batch_{i + 1}.bin").write_bytes(batch(slice(8 * i, 8 * i + 8)))
    (tmp_path / "test_batch.bin").write_bytes(batch(slice(16, None)))
    (tmp_path / "batches.meta.txt").write_text("airplane\n")
    data = load(tmp_path, resolution=32)
    assert data.x.shape == (16, 32, 32, 3)
    assert np.allclose(np.concatenate([data.x, data.held_out]), PIXELS / 127.5 - 1, atol=1e-6)
    assert np.array_equal(np.concatenate([data.labels, data.held_out_labels]), LABELS)


def test_ten_batches_keep_their_order(tmp_path):
    for i in range(10):
        (tmp_path / f"data_batch_{i + 1}.bin").write_bytes(batch(slice(i, i + 1)))
    data = load(tmp_path)  # no test batch: image 9 is held out
    assert np.array_equal(data.labels, LABELS[:9])
    assert np.array_equal(data.held_out_labels, LABELS[9:10])


def test_single_file(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(batch())
    data = load(tmp_path / "data_batch_1.bin")
    assert np.array_equal(data.held_out_labels, LABELS[9::10])
    assert np.allclose(data.held_out, PIXELS[9::10] / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("got 0 bytes",)),
        (batch()[:-1], ("records of 3073 bytes", "got 61459 bytes, 3072 too many", "download")),
        (batch() + b"\0", ("1 too many",)),
        (b"\0" * 3074 * 3, ("CIFAR-100",)),
        (batch()[:3073] + b"\x0a" + batch()[3074:], ("labels from 0 to 9", "got 10 in record 1")),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else "",
)
def test_broken_files(content, words, tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(content)
    for path in (tmp_path, tmp_path / "data_batch_1.bin"):
        with pytest.raises(FormatError, match=line(r"data_batch_1\.bin", *words)):
            load(path)


def test_missing_batch(tmp_path):
    for i in (1, 3):
        (tmp_path / f"data_batch_{i}.bin").write_bytes(batch())
    with pytest.raises(FormatError, match=line(r"expected data_batch_2\.bin beside data_batch_3\.bin")):
        load(tmp_path)


def test_python_version_is_refused_by_name(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02}q")
    with pytest.raises(FormatError, match=line("pickles", "binary version")):
        load(tmp_path)
