"""Images as samples: every pixel where it belongs, in one format, whatever the files hold."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
from PIL import Image
from refusals import refusal, says

from xpnet.data.image_files import holds_images
from xpnet.datasets import load_images, load_mnist_sample
from xpnet.datasets.images import ImageFolder, ImageFormat, as_mnist, check_pillow

RNG = np.random.default_rng(0)
GREY, COLOURS = RNG.integers(256, size=(5, 3), dtype=np.uint8), RNG.integers(256, size=(4, 4, 3), dtype=np.uint8)


def save(path, pixels, **more):
    """Save pixels as an image; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **more)
    return str(path)


def form(height, width, channels=1, classes=("a", "b")):
    return ImageFormat(height, width, channels, classes)


def test_pixels_are_rows_of_the_image_one_after_another(tmp_path):
    grey, colours = save(tmp_path / "g.png", GREY), save(tmp_path / "c.png", COLOURS)
    np.testing.assert_array_equal(form(5, 3).pixels(grey), GREY.ravel())
    np.testing.assert_array_equal(form(4, 4, 3).pixels(colours), COLOURS.ravel())
    np.testing.assert_array_equal(form(5, 3, 3).pixels(grey), GREY.repeat(3))
    luma = (COLOURS * [0.299, 0.587, 0.114]).sum(2).ravel()  # ITU-R BT.601
    assert np.abs(form(4, 4).pixels(colours) - luma).max() <= 1


def test_an_image_is_resized_turned_and_laid_on_white(tmp_path):
    halves = np.repeat([0, 200], 8)[None].repeat(16, 0)
    small = form(4, 4).pixels(save(tmp_path / "h.png", halves)).reshape(4, 4)
    np.testing.assert_allclose(small[:, [0, 3]], np.tile([0, 200], (4, 1)), atol=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the first row is the right side
    turned = save(tmp_path / "t.png", GREY, exif=exif)
    np.testing.assert_array_equal(form(3, 5).pixels(turned).reshape(3, 5), np.rot90(GREY, -1))
    assert ImageFolder((turned,), np.zeros(1, int), ("a",)).format() == form(3, 5, classes=("a",))
    clear = np.dstack([np.full((2, 2), 10), np.full((2, 2), 20), np.full((2, 2), 30), [[0, 255], [255, 0]]])
    laid = form(2, 2, 3).pixels(save(tmp_path / "a.png", clear)).reshape(4, 3)
    np.testing.assert_array_equal(laid, [[255] * 3, [10, 20, 30], [10, 20, 30], [255] * 3])


def test_of_16_bits_the_first_8_are_kept(tmp_path):
    values = np.array([[0, 257], [25700, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(form(2, 2).pixels(tmp_path / "deep.png"), [0, 1, 100, 255])
    Image.fromarray((values // 257).astype(np.uint16)).save(tmp_path / "low.png")  # by the same scale
    np.testing.assert_array_equal(form(2, 2).pixels(tmp_path / "low.png"), [0, 0, 0, 1])
    big = Image.frombytes("I;16B", (2, 2), values.astype(">u2").tobytes())
    big.save(tmp_path / "big.tiff")
    with Image.open(tmp_path / "big.tiff") as saved:
        assert saved.mode == "I;16B"
    np.testing.assert_array_equal(form(2, 2).pixels(tmp_path / "big.tiff"), [0, 1, 100, 255])
    assert ImageFolder((str(tmp_path / "big.tiff"),), np.zeros(1, int), ("a",)).format().channels == 1
    Image.fromarray(np.array([[0.0, 0.5], [0.25, 1.0]], np.float32)).save(tmp_path / "part.tiff")
    np.testing.assert_array_equal(form(2, 2).pixels(tmp_path / "part.tiff"), [0, 128, 64, 255])


def test_a_folder_of_classes_becomes_a_data_set(tmp_path):
    rows = []
    for name in ("ant", "bee"):
        for i in range(2):
            pixels = RNG.integers(256, size=(6, 7), dtype=np.uint8)
            rows.append(pixels.ravel())
            save(tmp_path / name / "more"[: 4 * i] / f"{i}.PNG", pixels)
    save(tmp_path / ".hidden" / "0.png", GREY)
    (tmp_path / "empty").mkdir()
    (tmp_path / "ant" / "notes.txt").write_text("no image")
    dataset, classes = load_images(tmp_path)
    assert classes == ["ant", "bee"] and dataset.scale == 1 / 255
    np.testing.assert_array_equal(dataset.X, np.array(rows).T)
    np.testing.assert_array_equal(dataset.Y, [[1, 1, 0, 0], [0, 0, 1, 1]])
    assert load_images(tmp_path, side=5)[0].n_features == 25
    assert load_images(tmp_path, classes=["bee", "wasp", "ant"])[0].labels.tolist() == [2, 2, 0, 0]


def test_the_format_follows_the_images(tmp_path):
    save(tmp_path / "a" / "0.png", np.zeros((64, 64)))
    save(tmp_path / "b" / "0.png", np.zeros((64, 64)))
    folder = ImageFolder.of(tmp_path)
    assert folder.format() == form(64, 64) and str(folder.format()) == "64x64 pixels, grey"
    save(tmp_path / "b" / "1.png", np.zeros((64, 65, 3)))
    assert ImageFolder.of(tmp_path).format() == form(32, 32, 3)  # of two sizes, one in colours
    save(tmp_path / "a" / "0.png", np.zeros((65, 64)))
    assert ImageFolder(folder.paths[:1], np.zeros(1, int), ("a", "b")).format() == form(32, 32)  # too large
    assert str(ImageFolder.of(tmp_path).format(9)) == "9x9 pixels, in colours"


def test_unreadable_files_are_left_out_and_named(tmp_path):
    save(tmp_path / "a" / "0.png", GREY)
    save(tmp_path / "b" / "0.png", GREY)
    (tmp_path / "a" / "1.png").write_bytes(b"junk")
    with pytest.warns(UserWarning) as caught:
        dataset, _ = load_images(tmp_path)
    says(str(caught[0].message), "1.png is no image that Pillow can read", "cannot identify", "save it as PNG")
    assert dataset.n_samples == 2
    (tmp_path / "a" / "1.png").unlink()
    (tmp_path / "a" / "1.png").symlink_to("nowhere.png")
    with pytest.warns(UserWarning, match="1.png is no image that Pillow can read"):
        assert load_images(tmp_path)[0].n_samples == 2
    cut = (tmp_path / "a" / "0.png").read_bytes()[:60]
    for name in ("a/0.png", "b/0.png", "a/2.png"):
        (tmp_path / name).write_bytes(cut)
    with refusal(ValueError, "no file can be read", "is no image that Pillow can read", "save it as PNG, or remove it"):
        load_images(tmp_path)


def test_an_image_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "large.png", np.zeros((30, 30)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with refusal(ValueError, "exceeds limit of 500 pixels", "Pillow can read", "save it as PNG, or remove it"):
        form(2, 2).pixels(path)


def test_what_is_no_folder_of_classes_is_refused(tmp_path, monkeypatch):
    with refusal(FileNotFoundError, "there is no folder", "nowhere", "name one that holds a folder of images a class"):
        load_images(tmp_path / "nowhere")
    save(tmp_path / "ant" / "0.png", GREY)
    with refusal(ValueError, "holds 1 folder of images", "there must be two", "have the names of the classes"):
        load_images(tmp_path)
    save(tmp_path / "bee" / "0.png", GREY)
    with refusal(ValueError, "holds the class 'ant'", "it must hold folders of 'bee', 'wasp'", "or leave it out"):
        load_images(tmp_path, classes=["bee", "wasp"])
    with refusal(TypeError, "folder is 3", "must be the path", 'such as xpnet.datasets.load_images("flowers")'):
        load_images(3)
    with refusal(ValueError, "channels is 2", "they must be 1 or 3, and names", "restore them"):
        form(2, 2, 2)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with refusal(ImportError, "images need Pillow", "which is not installed", "pip install 'xpnet[images]'"):
        check_pillow()


def test_a_folder_holds_images_itself_or_in_a_folder_of_it(tmp_path):
    assert not holds_images(tmp_path) and not holds_images(tmp_path / "nowhere")
    save(tmp_path / "deep" / "in" / "0.png", GREY)
    assert holds_images(tmp_path / "deep") and not holds_images(tmp_path)


def test_an_image_is_prepared_as_those_of_mnist(tmp_path):
    _, test = load_mnist_sample()
    own = np.asarray(test.X[:, :20].T, np.uint8)
    shifts = []
    for pixels in own.reshape(-1, 28, 28):
        path = save(tmp_path / "own.png", pixels)
        np.testing.assert_array_equal(as_mnist(path)[0], pixels.ravel())
        found, is_negative = as_mnist(save(tmp_path / "negative.png", 255 - pixels))
        assert is_negative and (found == pixels.ravel()).all()
        large = np.full((200, 300), 240)  # dark on light, off the middle, four times as large
        large[20:132, 150:262] -= np.uint8(pixels * 0.8).repeat(4, 0).repeat(4, 1)
        found, is_negative = as_mnist(save(tmp_path / "large.png", large))
        assert is_negative
        shifts.append(np.corrcoef(found, pixels.ravel())[0, 1])
    assert np.median(shifts) > 0.9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not as_mnist(save(tmp_path / "dark.png", np.zeros((9, 9))))[0].any()
        line = as_mnist(save(tmp_path / "line.png", np.eye(1, 50, 25).repeat(50, 0) * 255), 28)[0].reshape(28, 28)
    assert line.any(1).all() and line.any(0).sum() == 1
