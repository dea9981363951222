"""The embedded sample, IDX files (good, damaged and hostile), and downloads from a loopback server."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import struct
import sys
import threading
import tracemalloc
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from real_mnist import REAL_MNIST, need_real_mnist
from refusals import says

from xpnet.datasets import load_fashion_mnist, load_mnist, load_mnist_sample, mnist
from xpnet.datasets.idx import read_idx


def idx_bytes(array, type_code=0x08, shape=None):
    shape = array.shape if shape is None else shape
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, type_code, len(shape), *shape)
    return header + array.tobytes()


def write_folder(folder, n_train=20, n_test=10, side=28, compress=True):
    """Write the four files of a small data set of the family and return the bytes by file name."""
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    contents = {}
    for prefix, n in (("train", n_train), ("t10k", n_test)):
        images = generator.integers(0, 256, (n, side, side), dtype=np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            name, content = f"{prefix}-{kind}-ubyte", idx_bytes(array)
            if compress:
                name, content = f"{name}.gz", gzip.compress(content, mtime=0)
            (folder / name).write_bytes(content)
            contents[name] = content
    return contents


# The sample inside the package


def test_sample_holds_every_class_equally():
    train, test = load_mnist_sample()
    assert (train.n_features, len(train), len(test)) == (784, 5000, 1000)
    assert train.X.dtype == np.uint8 and train.scale == 1 / 255 and train.is_classification
    assert np.bincount(train.labels).tolist() == [500] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    assert np.bincount(train.labels[-500:]).tolist() == [50] * 10
    assert len(set(train.labels[:50])) == 10  # shuffled, not class by class
    assert 0.1 < train.X.mean() / 255 < 0.16


def test_sample_is_small_and_has_its_notice():
    folder = Path(mnist.__file__).parent
    assert (folder / "mnist_sample.npz").stat().st_size <= 1_500_000
    notice = (folder / "NOTICE").read_text(encoding="utf-8")
    for part in ("mnist_sample.npz", "Yann LeCun", "Corinna Cortes", "Burges", "NIST", "Changes", "CC BY-SA 3.0"):
        assert part in notice


def test_sample_images_are_those_of_mnist():
    need_real_mnist()
    for part, full in zip(load_mnist_sample(), load_mnist(REAL_MNIST), strict=True):
        known = {image.tobytes(): label for image, label in zip(full.samples, full.labels, strict=True)}
        assert [known.get(image.tobytes()) for image in part.samples] == part.labels.tolist()


# The real data


@pytest.mark.full
def test_real_mnist():
    need_real_mnist()
    train, test = load_mnist(REAL_MNIST)
    assert (train.X.shape, train.Y.shape, test.X.shape) == ((784, 60000), (10, 60000), (784, 10000))
    expected = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(train.labels).tolist() == expected
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    counts = np.bincount(train.samples.reshape(-1), minlength=256) / train.X.size
    mean = counts @ np.arange(256) / 255
    assert mean == pytest.approx(0.1307, abs=5e-5)
    assert np.sqrt(counts @ (np.arange(256) / 255 - mean) ** 2) == pytest.approx(0.3081, abs=5e-5)


def test_real_mnist_files_are_the_published_ones():
    need_real_mnist()
    published = {
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    }
    for name, sha256 in published.items():
        array = read_idx(REAL_MNIST / f"{name}.gz")
        assert hashlib.sha256(idx_bytes(array)).hexdigest() == sha256


# IDX files


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 5)])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", ["data", "data.gz"])
def test_read_idx_goes_by_content_not_by_name(tmp_path, shape, compress, name):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    content = idx_bytes(array)
    (tmp_path / name).write_bytes(gzip.compress(content) if compress else content)
    read = read_idx(tmp_path / name)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)


def test_read_idx_of_more_than_one_block(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (3, 1 << 20), dtype=np.uint8)
    (tmp_path / "data").write_bytes(idx_bytes(array))
    np.testing.assert_array_equal(read_idx(tmp_path / "data"), array)
    (tmp_path / "data.gz").write_bytes(gzip.compress(idx_bytes(array), 1))
    np.testing.assert_array_equal(read_idx(tmp_path / "data.gz"), array)


GOOD = idx_bytes(np.arange(60, dtype=np.uint8).reshape(3, 4, 5))
PACKED = gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 256, (3, 40, 50), dtype=np.uint8)), mtime=0)


def flipped(content, position):
    return content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["cut short", "0 of the 4 bytes", "fetch it again"]),
        (GOOD[:3], ["cut short", "3 of the 4 bytes"]),
        (GOOD[:10], ["cut short", "header has 10 bytes of 16"]),
        (GOOD[:-1], ["declares 3 x 4 x 5 = 60 bytes", "cut short", "fetch it again"]),
        (idx_bytes(np.zeros(0, np.uint8), shape=(0, 2**32 - 1, 2**32 - 1)), ["= 0 bytes", "is empty", "etch it again"]),
        (GOOD + b"!", ["declares 3 x 4 x 5 = 60 bytes", "continues after them", "etch it again"]),
        (gzip.compress(GOOD[:-1], mtime=0), ["60 bytes", "cut short", "1 bytes are missing", "etch it again"]),
        (gzip.compress(GOOD + b"!", mtime=0), ["60 bytes", "continues after them"]),
        (b"<!DOCTYPE html><html>", ["not an IDX file", "3c 21 44 4f", "00 00 08", "right file"]),
        (gzip.compress(b"<!DOCTYPE html>", mtime=0), ["not an IDX file", "3c 21 44 4f"]),
        (idx_bytes(np.zeros(3, np.float32), 0x0D), ["float32 (type 0x0d)", "unsigned bytes", "Convert"]),
        (idx_bytes(np.zeros(1, np.uint8), shape=(1, 1, 1, 1)), ["00 00 08 04", "01, 02 or 03"]),
        (b"\0\0\x08\0", ["00 00 08 00", "01, 02 or 03"]),
        (PACKED[:-20], ["cut short", "gzip data end too early"]),
        (PACKED[:11], ["cut short"]),
        (flipped(PACKED, len(PACKED) // 2), ["corrupt", "gzip", "fetch it again"]),
        (flipped(PACKED, len(PACKED) - 6), ["corrupt", "CRC", "fetch it again"]),
        (PACKED + b"garbage", ["corrupt", "gzip"]),
        (b"\x1f\x8bnot gzip after all", ["corrupt", "gzip"]),
    ],
)
def test_damaged_files_get_one_clear_line(tmp_path, content, parts):
    path = tmp_path / "damaged.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_idx(path)
    says(error, str(path), *parts)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (60000, 28, 2**20), (1000, 1000, 1000)])
def test_a_header_that_declares_gigabytes_allocates_nothing(tmp_path, shape, compress):
    content = idx_bytes(np.zeros(100, np.uint8), shape=shape)
    path = tmp_path / "hostile"
    path.write_bytes(gzip.compress(content) if compress else content)
    tracemalloc.start()
    with pytest.raises(ValueError) as error:
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    says(error, str(path), "declares", "etch it again")
    assert peak < 2**20


def test_the_cap_can_be_set(tmp_path):
    (tmp_path / "data").write_bytes(GOOD)
    assert read_idx(tmp_path / "data", max_bytes=60).size == 60
    with pytest.raises(ValueError) as error:
        read_idx(tmp_path / "data", max_bytes=59)
    says(error, "declares 3 x 4 x 5 = 60 bytes", "at most 59", "max_bytes=60")


def test_a_bomb_behind_the_data_is_not_unpacked(tmp_path):
    (tmp_path / "bomb").write_bytes(gzip.compress(GOOD) + gzip.compress(bytes(50 << 20)))
    tracemalloc.start()
    with pytest.raises(ValueError, match="continues after them"):
        read_idx(tmp_path / "bomb")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        read_idx(tmp_path / "absent")
    says(error, str(tmp_path / "absent"), "does not exist", "IDX file", "Check the path")


# Folders


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("load", [load_mnist, load_fashion_mnist])
def test_load_from_a_folder(tmp_path, load, compress):
    write_folder(tmp_path, compress=compress)
    train, test = load(tmp_path)
    assert (train.X.shape, train.Y.shape, test.X.shape) == ((784, 20), (10, 20), (784, 10))
    assert train.X.dtype == np.uint8 and train.scale == 1 / 255
    images = read_idx(next(tmp_path.glob("train-images*")))
    np.testing.assert_array_equal(train.X[:, 3].reshape(28, 28), images[3])
    assert load(str(tmp_path))[0].labels.tolist() == list(range(10)) * 2


def test_gzipped_and_raw_may_stand_side_by_side(tmp_path):
    for name, content in write_folder(tmp_path).items():
        if "labels" in name:
            (tmp_path / name).unlink()
            (tmp_path / name.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    assert len(load_mnist(tmp_path)[0]) == 20


def test_environment_variable_names_the_folder(tmp_path, monkeypatch):
    write_folder(tmp_path / "fashion-mnist", n_train=30)
    write_folder(tmp_path, n_train=40)
    monkeypatch.setenv("XPNET_DATA", str(tmp_path))
    assert len(load_fashion_mnist()[0]) == 30  # $XPNET_DATA/fashion-mnist
    assert len(load_mnist()[0]) == 40  # no $XPNET_DATA/mnist, so $XPNET_DATA itself
    write_folder(tmp_path / "mnist", n_train=50)
    assert len(load_mnist()[0]) == 50
    write_folder(tmp_path / "given", n_train=60)
    assert len(load_mnist(tmp_path / "given")[0]) == 60  # an argument beats the environment


def test_missing_files_are_listed_with_both_ways_out(tmp_path, monkeypatch):
    write_folder(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    parts = ["lacks t10k-labels-idx1-ubyte;", "train-images-idx3-ubyte", "data_dir", "pip install 'xpnet[download]'"]
    with pytest.raises(FileNotFoundError) as error:
        load_mnist(tmp_path)
    says(error, str(tmp_path), *parts)
    monkeypatch.setenv("XPNET_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        load_mnist()
    says(error, str(tmp_path), "XPNET_DATA", *parts)
    with pytest.raises(FileNotFoundError) as error:
        load_mnist(tmp_path / "nowhere")
    says(error, str(tmp_path / "nowhere"), "is not a folder", *parts[1:])


def test_images_and_labels_must_belong_together(tmp_path):
    write_folder(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(idx_bytes(np.zeros(19, np.uint8)))
    with pytest.raises(ValueError) as error:
        load_mnist(tmp_path)
    says(error, "train-images-idx3-ubyte.gz holds 20 images", "holds 19 labels", "same source")
    labels.write_bytes(idx_bytes(np.full(20, 10, np.uint8)))
    with pytest.raises(ValueError) as error:
        load_mnist(tmp_path)
    says(error, str(labels), "label 10 at sample 0", "0 to 9", "right file")
    labels.write_bytes(idx_bytes(np.zeros((4, 5), np.uint8)))
    with pytest.raises(ValueError) as error:
        load_mnist(tmp_path)
    says(error, str(labels), "(4, 5)", "one label an image", "right file")


def test_images_must_be_28_by_28(tmp_path):
    write_folder(tmp_path, side=27)
    with pytest.raises(ValueError) as error:
        load_mnist(tmp_path)
    says(error, "train-images-idx3-ubyte.gz", "(20, 27, 27)", "28x28", "right file")


# Downloads


class CountingHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, counts the requests, and answers 503 to the first `failures` of them."""

    def do_GET(self):
        self.server.requested[self.path.lstrip("/")] += 1
        if self.server.failures > 0:
            self.server.failures -= 1
            self.send_error(503)
            return
        super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve(monkeypatch):
    """Return a function that serves a folder on the loopback interface and returns the server."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def start(folder, failures=0):
        folder.mkdir(parents=True, exist_ok=True)
        handler = partial(CountingHandler, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.requested, server.failures = Counter(), failures
        server.url = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def mirror(tmp_path):
    """A folder as a mirror holds it, and the checksums that go with it."""
    contents = write_folder(tmp_path / "mirror")
    return tmp_path / "mirror", {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def test_download_then_use_the_cache(tmp_path, serve, mirror):
    folder, checksums = mirror
    server = serve(folder)
    for _ in range(2):
        cached = mnist._download("small", checksums, [server.url], tmp_path / "cache", retries=0)
        assert cached == tmp_path / "cache" / "small"
        assert len(mnist._read_directory(cached)[0]) == 20
    assert server.requested == dict.fromkeys(checksums, 1)


def test_a_mirror_that_is_down_is_passed_over(tmp_path, serve, mirror):
    folder, checksums = mirror
    down = serve(tmp_path / "empty")
    closed = down.url
    down.shutdown()
    down.server_close()
    empty, good = serve(tmp_path / "empty"), serve(folder)
    cached = mnist._download("small", checksums, [closed, empty.url, good.url], tmp_path / "cache", retries=0)
    assert len(mnist._read_directory(cached)[1]) == 10
    assert sum(empty.requested.values()) == 1  # given up at the first file that is not there


def test_a_failed_request_is_tried_again(tmp_path, serve, mirror):
    folder, checksums = mirror
    server = serve(folder, failures=1)
    mnist._download("small", checksums, [server.url], tmp_path / "cache", retries=1)
    assert server.requested[next(iter(checksums))] == 2


def test_a_corrupt_download_is_thrown_away(tmp_path, serve, mirror):
    folder, checksums = mirror
    write_folder(tmp_path / "corrupt")
    (tmp_path / "corrupt/t10k-images-idx3-ubyte.gz").write_bytes(b"not what was promised")
    corrupt, good = serve(tmp_path / "corrupt"), serve(folder)
    with pytest.raises(OSError) as error:
        mnist._download("small", checksums, [corrupt.url], tmp_path / "cache", retries=0)
    says(error, "cannot download small", corrupt.url, "hash", "data_dir (--data-dir)", *checksums)
    assert not (tmp_path / "cache/small/t10k-images-idx3-ubyte.gz").exists()
    cached = mnist._download("small", checksums, [corrupt.url, good.url], tmp_path / "cache", retries=0)
    assert len(mnist._read_directory(cached)[1]) == 10
    assert sum(good.requested.values()) == 2  # the two that the first mirror had delivered are kept


def test_a_damaged_cache_is_fetched_anew(tmp_path, serve, mirror):
    folder, checksums = mirror
    server = serve(folder)
    cached = mnist._download("small", checksums, [server.url], tmp_path / "cache", retries=0)
    (cached / "train-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    mnist._download("small", checksums, [server.url], tmp_path / "cache", retries=0)
    assert server.requested["train-labels-idx1-ubyte.gz"] == 2
    assert len(mnist._read_directory(cached)[0]) == 20


def test_no_mirror_answers(tmp_path, serve, mirror):
    first, second = serve(tmp_path / "empty"), serve(tmp_path / "empty")
    with pytest.raises(OSError) as error:
        mnist._download("small", mirror[1], [first.url, second.url], tmp_path / "cache", retries=0)
    says(error, "cannot download small", first.url, second.url, "404", "data_dir (--data-dir)", *mirror[1])


def test_without_pooch_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("XPNET_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "pooch", None)
    for load in (load_mnist, load_fashion_mnist):
        with pytest.raises(ImportError) as error:
            load()
        says(error, "needs pooch", "not installed", "pip install 'xpnet[download]'", "data_dir")


@pytest.mark.parametrize("source", [mnist._MNIST, mnist._FASHION_MNIST])
def test_the_pinned_files_are_the_four_with_two_mirrors(source):
    assert {name.removesuffix(".gz") for name in source.checksums} == {*mnist._TRAIN_FILES, *mnist._TEST_FILES}
    assert all(len(bytes.fromhex(sha256)) == 32 for sha256 in source.checksums.values())
    assert len(source.mirrors) == 2 and all(url.endswith("/") for url in source.mirrors)


def test_a_fifo_is_no_idx_file(tmp_path):
    """It is refused at once: nobody may ever write into it."""
    os.mkfifo(tmp_path / "images")
    with pytest.raises(OSError, match="images is a FIFO; it must be a regular file"):
        read_idx(tmp_path / "images")


def test_names_with_a_dot_are_found(tmp_path):
    """As some archives unpack: train-images.idx3-ubyte."""
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        idx = bytes.fromhex("00000803 00000002 0000001c 0000001c") + bytes(2 * 784)
        (tmp_path / name.replace("-idx", ".idx")).write_bytes(idx)
    for name in ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"):
        (tmp_path / f"{name.replace('-idx', '.idx')}.gz").write_bytes(
            gzip.compress(bytes.fromhex("00000801 00000002 0301"))
        )
    train, test = load_mnist(tmp_path)
    assert train.n_samples == test.n_samples == 2 and train.Y.argmax(axis=0).tolist() == [3, 1]
