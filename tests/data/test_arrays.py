""".npy and .npz files: what is taken, what is refused and with which words."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refdiff.data import load
from refdiff.data.arrays import SMALL
from refdiff.errors import FormatError
from refdiff.storage import save_npz

RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, (20, 4, 5, 3)).astype(np.float32)
V = RNG.integers(0, 256, (20, 4, 5, 1), dtype=np.uint8)
LABELS = RNG.integers(0, 4, 20)


def line(*words):
    return r"\A" + "".join(rf"[^\n]*{word}" for word in words) + r"[^\n]*\Z"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_floats(dtype, order, tmp_path):
    x = np.asarray(X.astype(dtype), order=order)
    np.save(tmp_path / "a.npy", x)
    data = load(tmp_path / "a.npy")
    assert data.x.dtype == np.float32
    assert data.x.dtype.isnative
    assert np.array_equal(data.x, np.delete(x, [9, 19], 0).astype(np.float32))
    assert np.array_equal(data.held_out, x[9::10].astype(np.float32))


def test_npy_of_bytes(tmp_path):
    np.save(tmp_path / "a.npy", V)
    assert np.allclose(load(tmp_path / "a.npy").held_out, V[9::10] / 127.5 - 1, atol=1e-6)


def test_npy_of_points_beyond_one(tmp_path):
    np.save(tmp_path / "a.npy", 3 * X.reshape(-1, 2))
    assert load(tmp_path / "a.npy").shape == (2,)


@given(st.integers(1, 25), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3]), st.booleans())
def test_any_shape(tmp_path_factory, n, h, w, c, packed):
    x = np.random.default_rng(n).integers(0, 256, (n, h, w, c), dtype=np.uint8)
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    (np.savez_compressed if packed else np.savez)(path, x=x, labels=np.arange(n))
    data = load(path)
    assert len(data.x) + len(data.held_out) == n
    assert np.allclose(data.x, (x / 127.5 - 1)[data.labels], atol=1e-6)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_every_part(save, tmp_path):
    save(tmp_path / "a.npz", x=X, labels=LABELS.astype(np.uint8), held_out=X[:3], held_out_labels=np.int16([0, 1, 6]))
    data = load(tmp_path / "a.npz")
    assert np.array_equal(data.x, X)
    assert np.array_equal(data.held_out, X[:3])
    assert np.array_equal(data.labels, LABELS)
    assert data.labels.dtype == np.int64
    assert data.classes == len({*LABELS.tolist(), 0, 1, 6})


def test_npz_of_one_array_of_any_name(tmp_path):
    np.savez(tmp_path / "a.npz", pictures=V)
    assert load(tmp_path / "a.npz").x.shape == (18, 4, 5, 1)


def test_npz_with_empty_held_out(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, held_out=X[:0])
    assert (len(load(tmp_path / "a.npz").x), len(load(tmp_path / "a.npz").held_out)) == (20, 0)


def test_npz_saved_by_us(tmp_path):
    save_npz(tmp_path / "a.npz", X)
    assert np.array_equal(load(tmp_path / "a.npz").held_out, X[9::10])


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (X[..., 0], (r"\(20, 4, 5\)", "channel axis")),
        (X.transpose(0, 3, 1, 2), ("channels last", "transpose")),
        (X[..., :2], ("C = 1 or 3", r"\(20, 4, 5, 2\)")),
        (X[None], ("shape",)),
        (np.float32(0), (r"shape \(\)",)),
        (X[:0], ("at least one",)),
        (X.astype(np.int64), ("int64", "convert")),
        (V[:, 0, :2, 0], ("uint8", r"\(20, 2\)")),
        (X > 0, ("bool",)),
        (X.astype(complex), ("complex128",)),
        (np.array(["a", "b"]), ("<U1",)),
        (np.zeros(3, [("a", "f4")]), ("shape|got",)),
        (X * 1.5, (r"\[-1, 1\]", r"got \[-1.4\d*, 1.4\d*\]", "uint8")),
        (X * 255.0, (r"\[-1, 1\]", r"got \[-254", "scale")),
        (X.astype(np.float64) / abs(X).max() * (1 + 1e-9), (r"\[-1, 1\]",)),
        (np.where(X > 0.9, np.nan, X), ("NaN",)),
        (np.where(X > 0.9, np.inf, X), ("inf",)),
        (np.where(X > 0.9, -np.inf, X), ("-inf",)),
        (np.full((20, 2), np.inf), ("finite", "inf")),
        (np.full((20, 2), np.nan), ("NaN",)),
        (np.full((20, 2), 1e300), ("finite", "inf")),
    ],
)
def test_wrong_samples(x, words, tmp_path):
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "a.npz", x=x)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(FormatError, match=line(name, *words)):
            load(tmp_path / name)


def test_pickles_are_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    np.save(tmp_path / "a.npy", np.array([Bomb()], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=np.array([Bomb()], object), allow_pickle=True)
    np.savez(tmp_path / "b.npz", x=X, labels=np.array([Bomb()] * 20, object))
    np.save(tmp_path / "c.npy", np.array([(1, Bomb())], [("a", "i4"), ("b", "O")]), allow_pickle=True)
    for name in ("a.npy", "b.npz", "c.npy"):
        with pytest.raises(FormatError, match=line(name, "objects", "pickles")):
            load(tmp_path / name)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X, "labels": LABELS[:19]}, ("labels", "expected 20", "got 19")),
        ({"x": X, "labels": LABELS, "held_out": X}, ("held_out_labels", "both or neither")),
        ({"x": X, "labels": LABELS, "held_out": X, "held_out_labels": LABELS[1:]}, ("held_out_labels", "got 19")),
        ({"x": X, "held_out_labels": LABELS}, ("held_out beside held_out_labels",)),
        ({"x": X, "held_out": X, "held_out_labels": LABELS}, ("labels", "both or neither")),
        ({"x": X, "held_out": X[:, :2]}, ("held_out", r"\(4, 5, 3\)", r"\(2, 5, 3\)")),
        ({"x": X, "held_out": X * 9}, ("held_out", r"\[-1, 1\]")),
        ({"x": X, "labels": LABELS + 0.5}, ("labels", "integer", "float64")),
        ({"x": X, "labels": LABELS[:, None]}, ("labels", r"\(20, 1\)")),
        ({"x": X, "labels": LABELS - 9}, ("labels", "got -9")),
        ({"x": X, "labels": LABELS.astype(np.uint64) + 2**63}, ("labels", "got 9223372036854775808")),
        ({"x": X, "label": LABELS}, ("expected arrays named x, labels", "'label', 'x'", "rename")),
        ({"x_train": X, "y_train": LABELS}, ("x at least", "x_train")),
        ({}, ("got none",)),
    ],
)
def test_wrong_npz(arrays, words, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(FormatError, match=line(r"a\.npz", *words)):
        load(tmp_path / "a.npz")


def refusal(path):
    """The message of the FormatError, or "" if it loads; any other exception passes through."""
    try:
        load(path)
    except FormatError as error:
        return str(error)
    return ""


def npy_bytes(x=X):
    file = io.BytesIO()
    np.save(file, x)
    return file.getvalue()


def npz_bytes(save=np.savez_compressed):
    file = io.BytesIO()
    save(file, x=X, labels=LABELS)
    return file.getvalue()


NPY, NPZ = npy_bytes(), npz_bytes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        NPY[:5],
        NPY[:9],
        NPY[:60],
        NPY[:-1],
        NPY + b"\0",
        b"\x80\x04" + NPY[2:],
        b"\x93NUMPY\x09\x00" + NPY[8:],
        NPZ,
        NPY.replace(b"(20, 4,", b"(99, 4,"),
        NPY.replace(b"(20, 4,", b"(-1, 4,"),
        NPY.replace(b"(20, 4, 5, 3), ", b"(9**9**9,),    "),
        NPY.replace(b"(20, 4, 5, 3), ", b"(99999999999,),"),
        NPY.replace(b"<f4", b"<z4"),
        NPY.replace(b"'descr': '<f4'", b"(((((((((((((("),
    ],
    ids=lambda content: f"{len(content)} bytes",
)
def test_broken_npy(content, tmp_path):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(FormatError, match=line(r"a\.npy", "expected", "got", "save it again")):
        load(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "content", [b"", NPY, NPZ[:100], NPZ[:-1], NPZ[:-30], NPZ[50:], b"PK\x03\x04" + b"\0" * 60], ids=len
)
def test_broken_npz(content, tmp_path):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(FormatError, match=line(r"a\.npz", "expected", "truncated or corrupt", "save it again")):
        load(tmp_path / "a.npz")


@settings(max_examples=300)
@given(st.data())
def test_any_changed_byte_loads_or_is_a_format_error(tmp_path_factory, data):
    name, whole = data.draw(st.sampled_from([("a.npy", NPY), ("a.npz", NPZ), ("a.npz", npz_bytes(np.savez))]))
    # Half of the changes go where the headers are.
    i = data.draw(st.integers(0, len(whole) - 1) | st.integers(0, 150) | st.integers(len(whole) - 200, len(whole) - 1))
    changed = whole[:i] + bytes([whole[i] ^ data.draw(st.integers(1, 255))]) + whole[i + 1 :]
    cut = data.draw(st.none() | st.integers(0, len(whole)))
    path = tmp_path_factory.mktemp("flip") / name
    path.write_bytes(changed[:cut])
    message = refusal(path)
    assert message == "" or (name in message and "\n" not in message)


def test_bomb_is_refused_unread(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("x.npy", npy_bytes(np.zeros((SMALL // 64 + 1, 8, 8, 1), np.uint8)))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(FormatError, match=line("200 times", "decompression bomb", "savez")):
        load(tmp_path / "a.npz")


def test_declared_size_is_limited(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", x=X, labels=LABELS)
    monkeypatch.setattr("refdiff.data.arrays.MAX_BYTES", X.nbytes)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(FormatError, match=line("at most 8 GiB", "split")):
        load(tmp_path / "a.npz")
