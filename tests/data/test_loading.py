"""`load` and `Dataset`: names, dispatch, resolution, what a Dataset refuses, the bundled digits."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.data import Dataset, load
from refdiff.data.dataset import from_uint8, hold_out_tenth
from refdiff.errors import FormatError
from refdiff.storage import to_uint8


def line(*words):
    """A pattern for a message of one line that holds the words in that order."""
    return r"\A" + "".join(rf"[^\n]*{word}" for word in words) + r"[^\n]*\Z"


def images(n=20, h=4, w=4, c=1, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, h, w, c)).astype(np.float32)


# The digits


def test_digits_are_all_there_and_split_by_class():
    data = load("digits")
    assert data.x.shape == (1442, 8, 8, 1)
    assert data.held_out.shape == (355, 8, 8, 1)
    assert data.classes == 10
    assert data.shape == (8, 8, 1)
    assert data.x.dtype == data.held_out.dtype == np.float32
    assert data.labels.dtype == np.int64
    held, train = np.bincount(data.held_out_labels), np.bincount(data.labels)
    assert (held == (held + train) // 5).all()  # positions 4, 9, 14, ...
    assert (held + train).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # UCI's own counts


def test_digits_are_sixteenths_from_black_to_white():
    data = load("digits")
    values = np.unique(np.concatenate([data.x, data.held_out]))
    assert np.array_equal(values, np.arange(17) / 8 - 1)
    # The first image of the source, a zero, row by row.
    top = (data.x[0, :3, :, 0] + 1) * 8
    assert data.labels[0] == 0
    assert top.astype(int).tolist() == [
        [0, 0, 5, 13, 9, 1, 0, 0],
        [0, 0, 13, 15, 10, 15, 5, 0],
        [0, 3, 15, 2, 0, 11, 8, 0],
    ]


def test_digits_parts_share_no_image():
    data = load("digits")
    train = {x.tobytes() for x in data.x}
    assert not any(x.tobytes() in train for x in data.held_out)


def test_digits_licence_names_the_source():
    import refdiff.data as package

    text = (Path(package.__file__).parent / "digits.LICENSE.md").read_text()
    for words in ("Alpaydin", "Kaynak", "10.24432/C50P49", "creativecommons.org/licenses/by/4.0", "What was changed"):
        assert words in text


# load


def test_unknown_name_lists_names_and_guesses():
    with pytest.raises(
        ValueError,
        match=line("digits", "swissroll", "moons", "rings", "mixture", "path", "'digts'", "did you mean digits"),
    ):
        load("digts")


@pytest.mark.parametrize("path", ["no/such/folder", "", "a" * 5000, Path("digits"), "x\0y"])
def test_path_that_does_not_exist(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=line("expected one of", "neither")):
        load(path)


def test_a_name_wins_and_a_path_object_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("moons.npy", images())
    os.rename("moons.npy", "moons")
    assert load("moons").shape == (2,)
    with pytest.raises(FormatError, match=line("got 'moons'")):
        load(Path("moons"))


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "a.npy", images())
    assert load("~/a.npy").shape == (4, 4, 1)


@pytest.mark.parametrize(("name", "advice"), [("cat.png", "give the folder"), ("notes.txt", "convert it to .npz")])
def test_file_of_another_kind(name, advice, tmp_path):
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(FormatError, match=line(name, advice)):
        load(tmp_path / name)


def test_resolution_is_checked_not_made(tmp_path):
    assert load("digits", resolution=8).shape == (8, 8, 1)
    with pytest.raises(ValueError, match=line("resolution", "16x16", "got 8x8", "resize")):
        load("digits", resolution=16)
    np.save(tmp_path / "wide.npy", images(h=4, w=6))
    with pytest.raises(ValueError, match=line("got 6x4")):  # width first, as everywhere one speaks of pictures
        load(tmp_path / "wide.npy", resolution=4)
    with pytest.raises(ValueError, match=line("points", "leave it out")):
        load("moons", resolution=8)
    for wrong in (0, -8, 8.0, True):
        with pytest.raises(ValueError, match=line("resolution", "positive integer")):
            load("digits", resolution=wrong)


def test_import_needs_numpy_alone():
    code = (
        "import sys; sys.modules['PIL'] = sys.modules['safetensors'] = None; "
        "import refdiff.storage, refdiff.data as d; print(d.load('digits').classes)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.stdout.strip() == "10", run.stderr


# Dataset


def test_dataset_is_read_only_and_does_not_lock_the_callers_arrays():
    x, labels = images(), np.arange(20)
    data = Dataset("mine", x, labels, x[:0], labels[:0])
    assert np.shares_memory(data.x, x)
    for array in (data.x, data.labels, data.held_out, data.held_out_labels):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    x[0] = 0.5
    assert data.classes == 20
    assert (data.x[0] == 0.5).all()
    with pytest.raises(AttributeError):
        data.name = "other"


def test_repr_is_short():
    assert repr(load("digits")) == "Dataset('digits': 1442 + 355 of 8x8x1, 10 classes)"


def test_classes_counts_both_parts():
    x = images(3)
    assert Dataset("d", x, np.array([0, 1, 1]), x, np.array([0, 0, 4])).classes == 3
    assert Dataset("d", x, np.array([7, 7, 2_000_000_000]), x[:0], np.array([], np.int64)).classes == 2
    assert Dataset("d", x, None, x, None).classes == 0


X = images(6)
N = np.arange(6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((X.astype(np.float64), None, X, None), ("x:", "float32", "float64")),
        ((to_uint8(X), None, X, None), ("x:", "uint8")),
        ((X[..., 0], None, X, None), ("x:", r"\(6, 4, 4\)", "None")),
        ((np.moveaxis(images(c=3), 3, 1), None, X, None), ("x:", "transpose")),
        ((X.repeat(2, 3), None, X, None), ("x:", "C = 1 or 3")),
        ((X[:, :0], None, X[:, :0], None), ("x:", "shape")),
        ((X[:0], None, X, None), ("x:", "at least one")),
        ((X * 3, None, X, None), ("x:", r"\[-1, 1\]", r"got \[-")),
        ((np.where(X > 0.9, np.float32(np.nan), X), None, X, None), ("x:", "NaN")),
        ((X, None, X * 3, None), ("held_out:", r"\[-1, 1\]")),
        ((X, None, images(h=5), None), ("held_out:", r"\(4, 4, 1\)", r"\(5, 4, 1\)")),
        ((X, N, X, None), ("held_out_labels:", "both or neither")),
        ((X, None, X, N), ("labels:", "both or neither")),
        ((X, N[:5], X, N), ("labels:", "expected 6", "got 5")),
        ((X, N, X, N[:5]), ("held_out_labels:", "expected 6", "got 5")),
        ((X, N - 1, X, N), ("labels:", "got -1")),
        ((X, N.astype(np.int32), X, N), ("labels:", "int64", "int32")),
        ((X, N[:, None], X, N), ("labels:", r"\(6, 1\)")),
        ((np.float32([[np.inf, 1]]), None, np.zeros((0, 2), np.float32), None), ("x:", "finite", "inf")),
    ],
)
def test_dataset_refuses(arguments, words):
    with pytest.raises(ValueError, match=line(*words)):
        Dataset("wrong", *arguments)


def test_points_may_leave_the_unit_square():
    points = np.float32([[5, -7], [0, 2]])
    assert Dataset("points", points, None, points[:0], None).shape == (2,)


@given(st.integers(1, 45), st.booleans())
def test_every_tenth_is_held_out(n, labelled):
    x = (np.arange(n, dtype=np.float32) / 50 - 1)[:, None, None, None]
    data = hold_out_tenth("d", x, np.arange(n) if labelled else None)
    assert data.held_out.ravel().tolist() == x[9::10].ravel().tolist()
    assert sorted([*data.x.ravel(), *data.held_out.ravel()]) == x.ravel().tolist()
    if labelled:
        assert data.held_out_labels.tolist() == list(range(n))[9::10]
        assert np.array_equal(data.x.ravel(), x.ravel()[data.labels])


def test_bytes_come_back_from_the_unit_interval():
    v = np.arange(256, dtype=np.uint8)
    x = from_uint8(v)
    assert x.dtype == np.float32
    assert (x[0], x[255]) == (-1, 1)
    assert np.allclose(x, v / 127.5 - 1, atol=1e-7, rtol=0)
    assert np.array_equal(to_uint8(x), v)
