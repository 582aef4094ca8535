"""Images that are not to be learned from but worked on: which, in which order, and their labels."""

import numpy as np
import pytest
from helpers import images, line
from hypothesis import given
from hypothesis import strategies as st

from refdiff import FormatError
from refdiff.data import load, load_images
from refdiff.data.dataset import hold_out_tenth
from refdiff.storage import save_folder, save_png


@given(st.integers(1, 60), st.booleans())
def test_what_was_cut_in_two_is_joined_in_its_order(n, labelled):
    x, labels = images(n), np.arange(n) if labelled else None
    whole, own = hold_out_tenth("a", x, labels).to_measure()
    assert np.array_equal(whole, x)
    assert (own is None) if labels is None else np.array_equal(own, labels)


def test_data_with_a_split_of_their_own_give_what_is_held_out(tmp_path):
    x, labels = load_images("digits")
    assert np.array_equal(x, load("digits").held_out)
    assert np.array_equal(labels, load("digits").held_out_labels)
    np.savez(tmp_path / "a.npz", x=images(20), held_out=images(4, seed=1))
    assert np.array_equal(load_images(tmp_path / "a.npz")[0], images(4, seed=1))
    np.savez(tmp_path / "b.npz", x=images(20), held_out=images(4)[:0])
    assert np.array_equal(load_images(tmp_path / "b.npz")[0], images(20))


def test_a_folder_or_a_file_gives_all_images_in_order(tmp_path):
    x = np.rint((images(23) + 1) * 127.5) / np.float32(127.5) - 1
    save_folder(tmp_path / "folder", x)
    np.save(tmp_path / "a.npy", x)
    for source in ("folder", "a.npy"):
        found, labels = load_images(str(tmp_path / source))
        np.testing.assert_allclose(found, x, atol=1e-6)
        assert labels is None
    save_png(tmp_path / "one.PNG".lower(), x[3])
    np.testing.assert_allclose(load_images(tmp_path / "one.png")[0], x[3:4], atol=1e-6)


def test_points_and_what_is_no_image_are_refused(tmp_path):
    with pytest.raises(ValueError, match=line("name_or_path: expected images, got swissroll")):
        load_images("swissroll")
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(FormatError, match="expected an image, got a file that cannot be decoded"):
        load_images(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"got '.*nothing.png', which is neither"):
        load_images(tmp_path / "nothing.png")
