"""Folders of images: every format, classes, and what is refused."""

import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from refdiff.data import load
from refdiff.errors import FormatError

RNG = np.random.default_rng(0)
GREY, COLOUR = RNG.integers(0, 256, (20, 5, 4), dtype=np.uint8), RNG.integers(0, 256, (20, 5, 4, 3), dtype=np.uint8)


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def line(*words):
    return r"\A" + "".join(rf"[^\n]*{word}" for word in words) + r"[^\n]*\Z"


def refusal(path):
    """The message of the FormatError, or "" if it loads; any other exception passes through."""
    try:
        load(path)
    except FormatError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("suffix", "pixels"),
    [(".png", GREY), (".png", COLOUR), (".PNG", COLOUR), (".bmp", GREY), (".bmp", COLOUR), (".webp", COLOUR)],
    ids=lambda value: value if isinstance(value, str) else ("grey", "colour")[value.ndim - 3],
)
def test_lossless_formats(suffix, pixels, tmp_path):
    for i, image in enumerate(pixels):
        write(tmp_path / f"{i:02}{suffix}", image, **({"lossless": True, "exact": True} if suffix == ".webp" else {}))
    data = load(tmp_path, resolution=None)
    expected = pixels.reshape(20, 5, 4, -1) / 127.5 - 1
    assert data.x.dtype == np.float32
    assert np.allclose(data.x, np.delete(expected, [9, 19], axis=0), atol=1e-6)
    assert np.allclose(data.held_out, expected[9::10], atol=1e-6)
    assert data.labels is None


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_jpeg(suffix, tmp_path):
    smooth = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
    write(tmp_path / f"a{suffix}", smooth, quality=100)
    assert np.abs(load(tmp_path).x[0, ..., 0] - (smooth / 127.5 - 1)).max() < 0.05


def test_gif_and_palettes_are_rgb(tmp_path):
    few = COLOUR // 128 * 255  # eight colours, so that a palette holds them
    Image.fromarray(few[0]).quantize(8).save(tmp_path / "a.gif")
    Image.fromarray(few[1]).quantize(8).save(tmp_path / "b.png")
    assert np.allclose(load(tmp_path).x, few[:2] / 127.5 - 1, atol=1e-6)


def test_bilevel_is_grey(tmp_path):
    Image.fromarray(GREY[0] > 127).save(tmp_path / "a.png")
    assert np.array_equal(load(tmp_path).x[0, ..., 0], np.where(GREY[0] > 127, 1, -1))


def test_sub_folders_are_classes(tmp_path):
    for i in range(20):
        write(tmp_path / ("cat", "ant", "bee")[i % 3] / f"{i:02}.png", GREY[i])
    write(tmp_path / ".cache" / "x.png", GREY[0, :2])
    write(tmp_path / "cat" / "._00.png", GREY[0, :2])
    (tmp_path / "README.txt").write_text("not an image")
    data = load(tmp_path)
    assert data.classes == 3
    order = [i for name in (1, 2, 0) for i in range(20) if i % 3 == name]  # ant, bee, cat
    labels = [("ant", "bee", "cat").index(("cat", "ant", "bee")[i % 3]) for i in order]
    assert np.allclose(data.held_out[..., 0], GREY[[order[9], order[19]]] / 127.5 - 1, atol=1e-6)
    assert data.held_out_labels.tolist() == [labels[9], labels[19]]
    assert data.labels.tolist() == [c for i, c in enumerate(labels) if i % 10 != 9]


@pytest.mark.parametrize("names", [("a.png", "b/c.png"), ("a/b/c.png", "a/b/d.png"), ("a/b.png", "a/b/c.png")])
def test_other_depths_have_no_classes(names, tmp_path):
    for i, name in enumerate(names):
        write(tmp_path / name, GREY[i])
    data = load(tmp_path)
    assert data.labels is None
    assert len(data.x) == 2


def test_empty_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FormatError, match=line("expected images", "none", "npz")):
        load(tmp_path)


def test_two_sizes(tmp_path):
    write(tmp_path / "a.png", GREY[0])
    write(tmp_path / "b.png", GREY[0])
    write(tmp_path / "c.png", GREY[0, :3])
    with pytest.raises(FormatError, match=line(r"a\.png \(4x5 grey\)", r"c\.png \(4x3 grey\)", "convert")):
        load(tmp_path)


def test_two_modes(tmp_path):
    write(tmp_path / "a.png", GREY[0])
    write(tmp_path / "b.png", COLOUR[0])
    with pytest.raises(FormatError, match=line(r"a\.png \(4x5 grey\)", r"b\.png \(4x5 RGB\)", "convert")):
        load(tmp_path)


def test_transparency_is_refused(tmp_path):
    write(tmp_path / "a.png", RNG.integers(0, 256, (5, 4, 4), dtype=np.uint8))
    with pytest.raises(FormatError, match=line(r"a\.png", "transparency", "background")):
        load(tmp_path)
    write(tmp_path / "a.png", COLOUR[0], transparency=(0, 0, 0))
    with pytest.raises(FormatError, match=line(r"a\.png", "transparency")):
        load(tmp_path)


def test_sixteen_bits_are_refused(tmp_path):
    write(tmp_path / "a.png", GREY[0].astype(np.uint16))
    with pytest.raises(FormatError, match=line(r"a\.png", "8 bits", "I;16", "convert")):
        load(tmp_path)


def test_animation_is_refused(tmp_path):
    frames = [Image.fromarray(image) for image in COLOUR[:3]]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(FormatError, match=line(r"a\.gif", "3 frames")):
        load(tmp_path)


@pytest.mark.parametrize("cut", [0, 4, 20, 40, 0.5, -30])
def test_truncated_png(cut, tmp_path):
    write(tmp_path / "a.png", COLOUR.reshape(20, 20, 3))
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: int(len(data) * cut) if isinstance(cut, float) else cut])
    with pytest.raises(FormatError, match=line(r"a\.png", "cannot be decoded", "replace or remove")):
        load(tmp_path)


def test_corrupt_images(tmp_path):
    """Any byte changed: an error of one line or an image, no other exception."""
    refused = 0
    for suffix in (".png", ".gif", ".bmp", ".jpg"):
        write(tmp_path / f"a{suffix}", COLOUR[0])
        data = bytearray((tmp_path / f"a{suffix}").read_bytes())
        for i in RNG.integers(0, len(data), 40):
            (tmp_path / f"a{suffix}").write_bytes(data[:i] + bytes([data[i] ^ 0x55]) + data[i + 1 :])
            message = refusal(tmp_path)
            assert "\n" not in message
            refused += message != ""
        (tmp_path / f"a{suffix}").unlink()
    assert refused > 40


def test_text_named_png(tmp_path):
    (tmp_path / "a.png").write_text("<html>404</html>")
    with pytest.raises(FormatError, match=line(r"a\.png", "cannot be decoded")):
        load(tmp_path)


@pytest.mark.parametrize("side", [12_000, 60_000])  # Pillow warns of the first and refuses the second
def test_decompression_bomb(side, tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""))
    with pytest.raises(FormatError, match=line(r"a\.png", "decompression bomb")):
        load(tmp_path)


def test_missing_pillow_is_named(tmp_path, monkeypatch):
    write(tmp_path / "a.png", GREY[0])
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=line("Pillow", "pip install pillow")):
        load(tmp_path)


def test_too_many_pixels(tmp_path, monkeypatch):
    for i in range(3):
        write(tmp_path / f"{i}.png", GREY[i])
    monkeypatch.setattr("refdiff.data.folder.MAX_BYTES", 3 * 20 - 1)
    with pytest.raises(FormatError, match=line("8 GiB", "3 images of 4x5 grey", "shrink")):
        load(tmp_path)
