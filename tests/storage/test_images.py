"""Pictures: rounding, grids, strips, and files that hold what was given."""

import os
import sys

import numpy as np
import pytest
from helpers import images, line
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from refdiff.storage import (
    grid,
    save_blocks,
    save_enlarged,
    save_folder,
    save_grid,
    save_npz,
    save_png,
    save_strip,
    to_uint8,
)


def read(path):
    with Image.open(path) as picture:
        return np.array(picture)


# to_uint8


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rounding(dtype):
    x = np.array([-1, -0.997, -0.9955, 0, 0.5, 0.9955, 0.997, 1, 1.2, -7, np.inf, -np.inf], dtype)
    assert to_uint8(x).tolist() == [0, 0, 1, 128, 191, 254, 255, 255, 255, 0, 255, 0]
    assert to_uint8(x).dtype == np.uint8


def test_every_byte_comes_back():
    v = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_uint8(v / np.float32(127.5) - np.float32(1)), v)
    assert np.array_equal(to_uint8(v / 127.5 - 1), v)


@given(st.lists(st.integers(0, 3), max_size=4), st.integers(0, 2**32 - 1))
def test_nearest_byte_of_any_shape(shape, seed):
    x = np.random.default_rng(seed).uniform(-1.5, 1.5, shape)
    before = x.copy()
    y = to_uint8(x)
    assert y.shape == tuple(shape)
    assert np.abs(y / 127.5 - 1 - np.clip(x, -1, 1)).max(initial=0) <= 0.5 / 127.5 + 1e-6
    assert np.array_equal(x, before)


def test_nan_and_integers_are_errors():
    with pytest.raises(ValueError, match=line("x:", "1 NaN of 3")):
        to_uint8(np.array([0, np.nan, 1]))
    with pytest.raises(ValueError, match=line("x:", "floats", "int64")):
        to_uint8(np.array([0, 1]))


# grid


@given(
    st.integers(1, 10), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3]),
    st.none() | st.integers(1, 12), st.integers(0, 2), st.integers(1, 3),
)  # fmt: skip
def test_each_tile_is_its_image_and_the_rest_is_black(n, h, w, c, columns, pad, scale):
    x = to_uint8(images(n, h, w, c, seed=n)) // 2 + 100
    picture = grid(x, columns, pad, scale)
    k = columns or int(np.ceil(np.sqrt(n)))
    assert picture.dtype == np.uint8
    assert picture.shape == ((-(-n // k) * (h + pad) + pad) * scale, (k * (w + pad) + pad) * scale, c)
    assert all(
        (picture[i::scale, j::scale] == picture[::scale, ::scale]).all() for i in range(scale) for j in range(scale)
    )
    small, total = picture[::scale, ::scale], 0
    for i in range(n):
        top, left = pad + i // k * (h + pad), pad + i % k * (w + pad)
        assert np.array_equal(small[top : top + h, left : left + w], x[i])
        total += int(x[i].sum())
    assert int(small.sum()) == total


@pytest.mark.parametrize(("side", "scale"), [(1, 64), (8, 8), (28, 3), (32, 2), (63, 2), (64, 1), (200, 1)])
def test_small_images_are_enlarged_to_64_pixels(side, scale):
    assert grid(images(1, side, side), pad=0).shape == (side * scale, side * scale, 1)
    assert grid(images(1, side, side), pad=0, scale=1).shape == (side, side, 1)


def test_floats_and_bytes_give_one_grid():
    x = images(5, c=3)
    assert np.array_equal(grid(x), grid(to_uint8(x)))


@pytest.mark.parametrize(
    ("x", "options", "words"),
    [
        (images()[0], {}, ("images:", r"\(N, H, W, C\)", r"\(4, 5, 1\)")),
        (images()[:0], {}, ("images:", r"\(0, 4, 5, 1\)")),
        (images().repeat(2, 3), {}, ("images:", "C = 1 or 3")),
        (np.zeros((5, 2)), {}, ("images:", r"\(5, 2\)")),
        (images() * np.nan, {}, ("x:", "NaN")),
        (images(), {"columns": 0}, ("columns:", "got 0")),
        (images(), {"columns": 1.5}, ("columns:", "1.5")),
        (images(), {"scale": 0}, ("scale:", "got 0")),
        (images(), {"pad": -1}, ("pad:", "got -1")),
    ],
)
def test_wrong_grids(x, options, words, tmp_path):
    with pytest.raises(ValueError, match=line(*words)):
        grid(x, **options)
    with pytest.raises(ValueError, match=line(*words)):
        save_grid(tmp_path / "a.png", x, **options)
    assert os.listdir(tmp_path) == []


# Files


@pytest.mark.parametrize("c", [1, 3])
def test_png_holds_the_image(c, tmp_path):
    x = images(1, c=c)[0]
    save_png(tmp_path / "float.png", x)
    save_png(tmp_path / "bytes.PNG", to_uint8(x))
    for name in ("float.png", "bytes.PNG"):
        assert np.array_equal(read(tmp_path / name).reshape(x.shape), to_uint8(x))
    with Image.open(tmp_path / "float.png") as picture:
        assert (picture.format, picture.mode) == ("PNG", "L" if c == 1 else "RGB")


def test_same_picture_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        save_grid(tmp_path / name, images(5))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_grid_file(tmp_path):
    x = images(5, c=3)
    save_grid(tmp_path / "a.png", x, columns=2, pad=2, scale=3)
    assert np.array_equal(read(tmp_path / "a.png"), grid(x, 2, 2, 3))


def test_strip_has_a_row_a_sample_and_a_column_a_state(tmp_path):
    states = images(6).reshape(3, 2, 4, 5, 1)  # three states of two samples
    save_strip(tmp_path / "a.png", states, pad=0, scale=1)
    picture = read(tmp_path / "a.png")
    assert picture.shape == (2 * 4, 3 * 5)
    for k in range(3):
        for n in range(2):
            assert np.array_equal(picture[4 * n : 4 * n + 4, 5 * k : 5 * k + 5], to_uint8(states[k, n, ..., 0]))


def test_wrong_strips(tmp_path):
    with pytest.raises(ValueError, match=line("states:", r"\(K, N, H, W, C\)", r"\(3, 4, 5, 1\)")):
        save_strip(tmp_path / "a.png", images())
    with pytest.raises(ValueError, match=line("got")):
        save_strip(tmp_path / "a.png", np.zeros((0, 2, 4, 4, 1)))


@pytest.mark.parametrize("channels", [1, 3])
def test_blocks_are_grids_side_by_side_under_their_titles(tmp_path, channels):
    blocks = images(3 * 2 * 4, h=8, w=9, c=channels).reshape(3, 2, 4, 8, 9, channels)
    save_blocks(tmp_path / "a.png", blocks, pad=1, gap=5, scale=2)
    plain = read(tmp_path / "a.png").reshape(38, -1, channels)
    own = [grid(block.reshape(8, 8, 9, channels), columns=4, scale=2) for block in blocks]
    width = own[0].shape[1]
    assert plain.shape[1] == 3 * width + 2 * 10
    for k, each in enumerate(own):
        first = k * (width + 10)
        assert np.array_equal(plain[:, first : first + width], each)
        assert not plain[:, first + width : first + width + 10].any()
    save_blocks(tmp_path / "b.png", blocks, ["w = 0", "w = 1", "WWW"], pad=1, gap=5, scale=2)
    titled = read(tmp_path / "b.png").reshape(-1, plain.shape[1], channels)
    above = len(titled) - len(plain)
    assert np.array_equal(titled[above:], plain)
    strips = [titled[:above, k * (width + 10) :][:, :width] for k in range(3)]
    assert all(strip.max() > 200 for strip in strips)
    assert not np.array_equal(strips[0], strips[1])
    assert np.array_equal(titled[:above].max(axis=2), titled[:above].min(axis=2))  # white on black


def test_wrong_blocks(tmp_path):
    one = images(4).reshape(1, 2, 2, 4, 5, 1)
    for blocks, titles, words in (
        (images(), (), ("blocks:", r"\(B, rows, columns, H, W, C\)", r"\(3, 4, 5, 1\)")),
        (one[:0], (), ("blocks:", r"\(0, 2, 2, 4, 5, 1\)")),
        (one, ["a", "b"], ("titles:", "1 blocks", "got 2")),
    ):
        with pytest.raises(ValueError, match=line(*words)):
            save_blocks(tmp_path / "a.png", blocks, titles)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("sides", [(2, 5), (3, 2), (4, 5)])
def test_small_images_lie_beside_what_was_made_of_them(tmp_path, sides):
    """Each pixel becomes a block, of any size; squares that five images do not fill are black."""
    small, large = images(5, *sides, seed=1), images(5, 4, 5)
    for n, originals in ((2, None), (3, images(5, 4, 5, seed=2))):
        save_enlarged(tmp_path / "a.png", small, large, originals)
        rows, columns = np.arange(4) * sides[0] // 4, np.arange(5) * sides[1] // 5
        blocks = [small[:, rows][:, :, columns], large, originals][:n]
        filled = np.stack([np.concatenate([b, np.full((1, 4, 5, 1), -1, "f")]) for b in blocks]).reshape(
            n, 2, 3, 4, 5, 1
        )
        save_blocks(tmp_path / "b.png", filled, ("low resolution", "samples", "originals")[:n])
        assert np.array_equal(read(tmp_path / "a.png"), read(tmp_path / "b.png"))


def test_folder_of_single_images(tmp_path):
    x = images(12)
    save_folder(tmp_path / "new" / "samples", x)
    names = sorted(os.listdir(tmp_path / "new" / "samples"))
    assert names == [f"{i:05}.png" for i in range(12)]
    for name, image in zip(names, x, strict=True):
        assert np.array_equal(read(tmp_path / "new" / "samples" / name), to_uint8(image[..., 0]))


def test_folder_twice_but_never_a_mixture(tmp_path):
    save_folder(tmp_path, images(3))
    save_folder(tmp_path, images(4, seed=1))
    assert np.array_equal(read(tmp_path / "00000.png"), to_uint8(images(4, seed=1))[0, ..., 0])
    with pytest.raises(ValueError, match=line("folder:", r"00002\.png", "new folder")):
        save_folder(tmp_path, images(2))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=line("folder:", "file")):
        save_folder(tmp_path / "file", images(2))


def test_nothing_is_written_if_one_image_is_wrong(tmp_path):
    x = images(3)
    x[2, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        save_folder(tmp_path / "a", x)
    assert os.listdir(tmp_path) == []


def test_npz_holds_the_samples_as_they_are(tmp_path):
    x = images() * 2
    save_npz(tmp_path / "a.npz", x)
    save_npz(tmp_path / "b.npz", x)
    with np.load(tmp_path / "a.npz") as file:
        assert file.files == ["x"]
        assert file["x"].dtype == np.float32
        assert np.array_equal(file["x"], x)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with pytest.raises(ValueError, match=line("images:", "float32", "float64")):
        save_npz(tmp_path / "c.npz", x.astype(np.float64))


@pytest.mark.parametrize(
    ("save", "name", "words"),
    [
        (lambda path: save_png(path, images()[0]), "a.jpg", ("path:", r"\.png", r"'a\.jpg'", r"'a\.png'")),
        (lambda path: save_grid(path, images()), "a", ("path:", r"\.png", "'a'")),
        (lambda path: save_strip(path, images()[None]), "a.gif", ("path:", r"\.png")),
        (lambda path: save_npz(path, images()), "a.npy", ("path:", r"\.npz", r"'a\.npz'")),
        (lambda path: save_png(path, images()), "a.png", ("image:", r"\(H, W, C\)", r"\(3, 4, 5, 1\)")),
        (lambda path: save_png(path, images()[0, ..., 0]), "a.png", ("image:", r"\(4, 5\)")),
    ],
)
def test_wrong_files(save, name, words, tmp_path):
    with pytest.raises(ValueError, match=line(*words)):
        save(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_former_file_survives_a_failing_encoder(tmp_path, monkeypatch):
    save_png(tmp_path / "a.png", images()[0])
    former = (tmp_path / "a.png").read_bytes()

    def fail(self, file, **_):
        file.write(b"half")
        raise OSError("full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="full"):
        save_png(tmp_path / "a.png", images()[1])
    assert (tmp_path / "a.png").read_bytes() == former
    assert os.listdir(tmp_path) == ["a.png"]


def test_missing_pillow_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=line("Pillow", "pip install pillow")):
        save_png(tmp_path / "a.png", images()[0])
