"""Data sets load as the papers split them, and whatever is wrong with the files is said in one line."""

import gzip
import hashlib
import os
import pickle
import shutil
import socket
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ltx.data import DATASETS, Data, Split
from ltx.data.base import hold_out, pixels
from ltx.data.download import Downloaded
from ltx.data.folder import ImageFolder
from ltx.data.images import CIFAR10, CIFAR100, MNIST, SVHN, Digits, FashionMNIST
from ltx.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and nothing of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def message(error: pytest.ExceptionInfo[UserError]) -> str:
    """What the user would read, which must be one line."""
    text = str(error.value)
    assert "\n" not in text
    return text


def sizes(data: Data) -> tuple[int, int, int]:
    return len(data.train), len(data.val), len(data.test)


# --- every data set -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_introduces_itself_without_touching_data(name: str) -> None:
    dataset = DATASETS[name]
    assert dataset.name == name
    assert dataset.summary
    assert "\n" not in dataset.summary


def test_sizes_are_known_beforehand() -> None:
    known = {name: (d.shape, d.outputs, d.train_size) for name, d in DATASETS.items()}
    assert known == {
        "digits": ((1, 8, 8), 10, 1_257),
        "mnist": ((1, 28, 28), 10, 55_000),
        "fashion_mnist": ((1, 28, 28), 10, 55_000),
        "cifar10": ((3, 32, 32), 10, 45_000),
        "cifar100": ((3, 32, 32), 100, 45_000),
        "svhn": ((3, 32, 32), 10, 68_257),
        "breast_cancer": ((30,), 2, None),
        "wine": ((13,), 3, None),
        "diabetes": ((10,), 1, None),
        "digits_table": ((64,), 10, None),
        "mice_protein": ((77,), 8, None),
        "table": (None, None, None),
        "image_folder": (None, None, None),
        "custom": (None, None, None),
    }


# --- splits and statistics ------------------------------------------------------------------------


def test_a_hold_out_is_exact_disjoint_and_stratified() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 21)
    kept, held = hold_out(labels, 10)
    assert sorted(kept.tolist() + held.tolist()) == list(range(101))
    assert labels[held].bincount().tolist() == [5, 3, 2]  # of 4.95, 2.97 and 2.08
    assert kept.tolist() == sorted(kept.tolist())


def test_a_hold_out_ignores_the_global_generator() -> None:
    labels = torch.arange(100) % 7
    torch.manual_seed(1)
    first = hold_out(labels, 20)[1]
    torch.manual_seed(2)
    assert torch.equal(first, hold_out(labels, 20)[1])
    assert not torch.equal(first, torch.arange(20))


def test_pixel_statistics_by_hand() -> None:
    images = torch.tensor([[[[0, 255]], [[51, 51]]]], dtype=torch.uint8)
    found = pixels(Split(images, torch.zeros(1)))
    mean, std = found.mean, found.std
    assert mean.tolist() == pytest.approx([0.5, 0.2])
    assert std.tolist() == [0.5, 1.0]  # a constant channel is divided by one, not by zero
    assert mean.dtype == std.dtype == torch.float32


# --- digits ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Data:
    return Digits().load()


def test_digits_are_split_once_and_for_all(digits: Data) -> None:
    assert sizes(digits) == (1_257, 180, 360)
    assert digits.fingerprint == "29b126729b6f7dd2"
    assert digits.outputs == 10
    assert digits.train.inputs.shape == (1_257, 1, 8, 8)
    assert digits.train.inputs.dtype == torch.uint8
    assert digits.train.targets.dtype == torch.int64


def test_digits_are_the_published_ones(digits: Data) -> None:
    splits = (digits.train, digits.val, digits.test)
    counts = torch.cat([split.targets for split in splits]).bincount()
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert digits.val.targets.bincount().tolist() == [18] * 10
    values = torch.cat([split.inputs.flatten() for split in splits]).unique()
    assert values.tolist() == [v * 255 // 16 for v in range(17)]


def test_no_digit_is_in_two_splits(digits: Data) -> None:
    images = torch.cat([split.inputs for split in (digits.train, digits.val, digits.test)]).flatten(1)
    assert len(images.unique(dim=0)) == 1_797  # no two digits are alike, so a shared one would be missed here


def test_data_moves_whole(digits: Data) -> None:
    moved = digits.to("meta")
    tensors = [moved.prepare.mean, moved.prepare.std]
    tensors += [t for split in (moved.train, moved.val, moved.test) for t in (split.inputs, split.targets)]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.fingerprint == digits.fingerprint


# --- idx files ------------------------------------------------------------------------------------


def write_idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes())


def write_mnist(folder: Path, dataset: MNIST) -> None:
    """Files as large as the real ones; the label of an image is its first pixel."""
    for (images, labels), n in zip(
        [list(dataset.files)[:2], list(dataset.files)[2:]], (60_000, 10_000), strict=True
    ):
        label = (np.arange(n) % 10).astype(np.uint8)
        pixels = np.zeros((n, 28, 28), np.uint8)
        pixels[:, 0, 0] = label
        write_idx(folder / images, pixels)
        write_idx(folder / labels, label)


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> MNIST:
    """MNIST in form, in a folder of its own that tests must leave as it is."""
    dataset = MNIST(root=str(tmp_path_factory.mktemp("mnist")))
    write_mnist(dataset.folder, dataset)
    return dataset


def test_mnist_holds_out_five_thousand(mnist: MNIST) -> None:
    data = mnist.load()
    assert sizes(data) == (55_000, 5_000, 10_000)
    assert data.val.targets.bincount().tolist() == [500] * 10
    assert torch.equal(data.train.inputs[:, 0, 0, 0].long(), data.train.targets)


def test_the_real_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    if not all((MNIST().folder / name).is_file() for name in MNIST.files):
        pytest.skip("$LTX_DATA has no MNIST/raw/*ubyte")
    data = MNIST().load()
    assert sizes(data) == (55_000, 5_000, 10_000)
    assert data.fingerprint == "344805a2229c4d20"
    assert data.val.targets.bincount().tolist() == [494, 562, 496, 511, 487, 452, 493, 522, 487, 496]
    assert data.test.targets.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.prepare.mean.item() == pytest.approx(0.1307, abs=2e-4)
    assert data.prepare.std.item() == pytest.approx(0.3081, abs=2e-4)


def test_data_lie_where_the_environment_says(
    mnist: MNIST, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setenv("LTX_DATA", str(mnist.folder))
    assert MNIST().folder == mnist.folder
    assert MNIST(root="/elsewhere").folder == Path("/elsewhere")
    monkeypatch.delenv("LTX_DATA")
    assert MNIST().folder == cache / "ltx"


@pytest.fixture
def broken(mnist: MNIST, tmp_path: Path) -> MNIST:
    """MNIST by links, so that a test may replace a file."""
    for name in mnist.files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(mnist.folder / name)
    return MNIST(root=str(tmp_path))


def replace_with(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def test_a_truncated_idx_file_is_named(broken: MNIST) -> None:
    path = broken.folder / "MNIST/raw/train-images-idx3-ubyte"
    replace_with(path, path.read_bytes()[:1_000])
    with pytest.raises(UserError) as error:
        broken.load()
    assert f"{path} is damaged (1,000 bytes where 47,040,016 belong)" in message(error)
    assert "`ltx data fetch mnist`" in message(error)


def test_an_idx_file_of_another_kind_is_named(broken: MNIST) -> None:
    path = broken.folder / "MNIST/raw/t10k-labels-idx1-ubyte"
    replace_with(path, b"\x00\x00\x0d" + path.read_bytes()[3:])
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte is damaged \(not an idx file of shape"):
        broken.load()


def test_an_impossible_label_is_named(broken: MNIST) -> None:
    path = broken.folder / "MNIST/raw/t10k-labels-idx1-ubyte"
    replace_with(path, path.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte is damaged \(a label of 11 among 10"):
        broken.load()


# --- downloads ------------------------------------------------------------------------------------


def fails(error: Exception) -> object:
    def download(self: Downloaded, folder: Path) -> None:
        raise error

    return download


@pytest.mark.parametrize("dataset", [MNIST, FashionMNIST, CIFAR10, CIFAR100, SVHN])
@pytest.mark.parametrize(
    "failure",
    [RuntimeError("two\nlines"), urllib.error.URLError("no name"), TimeoutError(), OSError("disk full")],
)
def test_a_failed_download_says_what_to_do(
    dataset: type[Downloaded], failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "download", fails(failure))
    for attempt in (dataset(root=str(tmp_path)).load, dataset(root=str(tmp_path)).fetch):
        with pytest.raises(UserError) as error:
            attempt()
        text = message(error)
        assert f"{dataset.name} is not in {tmp_path}" in text
        assert all(name in text for name in dataset.files)
        assert f"`ltx data fetch {dataset.name}`" in text
        assert "dataset=digits" in text


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a server that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


def test_a_silent_firewall_does_not_hang_it(
    silent_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [silent_server])
    monkeypatch.setattr("ltx.data.download.SILENCE", 0.2)
    began = time.monotonic()
    with pytest.raises(UserError, match="timed out"):
        MNIST(root=str(tmp_path)).load()
    assert time.monotonic() - began < 5
    assert socket.getdefaulttimeout() is None


def test_a_download_moves_in_whole_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visits = []

    def download(self: MNIST, folder: Path) -> None:
        visits.append(folder)
        write_mnist(folder, self)

    monkeypatch.setattr(FashionMNIST, "download", download)
    dataset = FashionMNIST(root=str(tmp_path / "new"))
    assert sizes(dataset.load()) == (55_000, 5_000, 10_000)
    found = {str(p.relative_to(dataset.folder)) for p in dataset.folder.rglob("*") if p.is_file()}
    assert found - {".fashion_mnist.lock"} == set(FashionMNIST.files)
    dataset.fetch()
    assert len(visits) == 1  # all is there
    (dataset.folder / "FashionMNIST/raw/t10k-labels-idx1-ubyte").write_bytes(b"half")
    dataset.fetch()
    assert len(visits) == 2  # a damaged file is replaced
    dataset.load()


# --- pickled and Matlab files ---------------------------------------------------------------------


class OldArray:
    """An array that pickles as NumPy 1 did it, with an int where a dtype's flag should be."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __reduce__(self) -> tuple[object, ...]:
        return rebuild, (OldType(), self.values.tobytes(), self.values.shape)


class OldType:
    def __reduce__(self) -> tuple[object, ...]:
        return np.dtype, ("u1", 0, 1)


def rebuild(dtype: np.dtype, content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(content, dtype).reshape(shape)


@pytest.mark.parametrize(("dataset", "key"), [(CIFAR10, "labels"), (CIFAR100, "fine_labels")])
def test_cifar_batches_become_images(
    dataset: type[CIFAR10], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {}
    for name in dataset.files:
        n = 6_000 // (len(dataset.files) - 1)
        labels = (np.arange(n) % dataset.outputs).astype(np.uint8)
        rows = np.zeros((n, 3_072), np.uint8)
        rows[:, 1_024] = labels  # the first green pixel
        (tmp_path / name).parent.mkdir(exist_ok=True)
        payload = pickle.dumps({"data": OldArray(rows), key: labels.tolist()}, protocol=2)
        (tmp_path / name).write_bytes(payload)
        files[name] = hashlib.md5(payload).hexdigest()
    monkeypatch.setattr(dataset, "files", files)
    data = dataset(root=str(tmp_path)).load()
    assert sizes(data) == (1_000, 5_000, n)
    assert data.outputs == dataset.outputs
    assert data.val.targets.bincount().tolist() == [5_000 // dataset.outputs] * dataset.outputs
    for split in (data.train, data.val, data.test):
        assert torch.equal(split.inputs[:, 1, 0, 0].long(), split.targets)


def test_a_batch_with_another_checksum_is_never_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CIFAR10.files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(pickle.dumps({"data": 0}))
    monkeypatch.setattr(pickle, "loads", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(UserError) as error:
        CIFAR10(root=str(tmp_path)).load()
    assert f"{tmp_path}/cifar-10-batches-py/data_batch_1 is damaged" in message(error)


def test_svhn_zero_is_labelled_ten_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    files = {}
    for name, n in (("train_32x32.mat", 5_100), ("test_32x32.mat", 20)):
        labels = np.arange(n) % 10
        pixels = np.zeros((32, 32, 3, n), np.uint8)
        pixels[3, 5, 2] = labels
        savemat(tmp_path / name, {"X": pixels, "y": np.where(labels == 0, 10, labels)[:, None]})
        files[name] = hashlib.md5((tmp_path / name).read_bytes()).hexdigest()
    monkeypatch.setattr(SVHN, "files", files)
    data = SVHN(root=str(tmp_path)).load()
    assert sizes(data) == (100, 5_000, 20)
    assert torch.equal(data.test.inputs[:, 2, 3, 5].long(), data.test.targets)
    assert torch.equal(data.test.targets, torch.arange(20) % 10)


def test_mnist_is_read_as_it_is_published_packed(tmp_path: Path) -> None:
    root = Path(os.environ.get("LTX_DATA", ""))
    if not (root / next(iter(MNIST.files))).is_file():
        pytest.skip("the real MNIST is not in LTX_DATA")
    for name in MNIST.files:
        packed = tmp_path / f"{name}.gz"
        packed.parent.mkdir(parents=True, exist_ok=True)
        packed.write_bytes(gzip.compress((root / name).read_bytes(), 1))
    assert MNIST(root=str(tmp_path)).load().fingerprint == MNIST(root=str(root)).load().fingerprint
    packed.write_bytes(packed.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"-ubyte\.gz is damaged"):
        MNIST(root=str(tmp_path)).contents(name)


def test_the_real_fashion_mnist() -> None:
    root = Path(os.environ.get("LTX_DATA", ""))
    if not (root / next(iter(FashionMNIST.files))).is_file():
        pytest.skip("the real FashionMNIST is not in LTX_DATA")
    data = FashionMNIST(root=str(root)).load()
    assert sizes(data) == (55_000, 5_000, 10_000)
    assert data.test.targets.bincount().tolist() == [1_000] * 10
    assert data.prepare.mean.item() == pytest.approx(0.2860, abs=3e-4)  # type: ignore[attr-defined]
    assert data.prepare.std.item() == pytest.approx(0.3530, abs=3e-4)  # type: ignore[attr-defined]


# --- folders of images ----------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Cats are dark and dogs bright, in several formats and sizes: 20 of each to train, 4 to test."""
    kinds = [("png", "RGB"), ("jpg", "RGB"), ("bmp", "L"), ("gif", "P"), ("png", "RGBA")]
    for part, n in (("train", 20), ("test", 4)):
        for name, grey in (("cat", 50), ("dog", 200)):
            folder = tmp_path / "tree" / part / name
            folder.mkdir(parents=True)
            for i in range(n):
                suffix, mode = kinds[i % len(kinds)]
                image = Image.new("RGB", (8 + i, 30 - i), (grey, grey, grey)).convert(mode)
                image.save(folder / f"{i:02}.{suffix}")
    return tmp_path / "tree"


def folder(tree: Path, **knobs: object) -> ImageFolder:
    return ImageFolder(root=str(tree), **{"size": 8, "workers": 2, **knobs})  # type: ignore[arg-type]


def test_a_folder_of_images_becomes_a_data_set(tree: Path) -> None:
    data = folder(tree).load()
    assert sizes(data) == (36, 4, 8)
    assert data.outputs == 2
    assert data.val.targets.tolist() == [0, 0, 1, 1]
    assert data.train.inputs.shape == (36, 3, 8, 8)
    for split in (data.train, data.val, data.test):
        assert torch.equal((split.inputs[:, 1, 4, 4] > 125).long(), split.targets)


def test_some_classes_of_a_folder_are_a_data_set_of_their_own(tree: Path, cache: Path) -> None:
    for part in ("train", "test"):
        shutil.copytree(tree / part / "cat", tree / part / "ape")
    data = folder(tree, only=["dog", "cat"]).load()
    assert data.labels == ("cat", "dog")
    assert data.fingerprint != folder(tree).load().fingerprint
    for part in ("train", "test"):
        shutil.rmtree(tree / part / "ape")
    assert folder(tree).load().fingerprint == data.fingerprint
    with pytest.raises(UserError, match=r"dataset\.only=frog does not exist; .* choose from cat, dog"):
        folder(tree, only=["cat", "frog"]).load()
    with pytest.raises(UserError, match="name two classes or more"):
        folder(tree, only=["cat"]).load()


def test_images_are_decoded_once_and_again_when_something_changed(
    tree: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    first = folder(tree).load()
    kept = list(cache.rglob("*"))
    assert [path.suffix for path in kept if path.is_file()] == [".safetensors"]
    with monkeypatch.context() as patch:
        patch.setattr("ltx.data.folder.decode_all", lambda *_, **__: pytest.fail("decoded again"))
        assert folder(tree, workers=1).load().fingerprint == first.fingerprint
    Image.new("RGB", (9, 9), (255, 0, 0)).save(tree / "train/cat/00.png")
    assert folder(tree).load().fingerprint != first.fingerprint
    assert folder(tree, size=4).load().train.inputs.shape == (36, 3, 4, 4)


def test_every_corrupt_image_is_named(tree: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = ["test/dog/00.png", "train/cat/01.jpg", "train/dog/02.bmp"]
    for name in bad:
        content = (tree / name).read_bytes()
        (tree / name).write_bytes(content[: len(content) // 2])
    (tree / "train/cat/03.gif").write_bytes(b"")
    (tree / "train/dog/away.png").symlink_to("nowhere")
    for _ in range(2):  # the second time as well, since nothing was kept
        with pytest.raises(UserError) as error:
            folder(tree).load()
        assert "5 corrupt images" in message(error)
        assert all(name in message(error) for name in [*bad, "train/cat/03.gif", "train/dog/away.png"])
        assert "dataset.skip_corrupt=true" in message(error)
    assert not list(cache.rglob("*.safetensors"))

    data = folder(tree, skip_corrupt=True).load()
    assert sizes(data) == (33, 4, 7)
    assert all(name in caplog.text for name in bad)
    assert torch.equal((data.train.inputs[:, 1, 4, 4] > 125).long(), data.train.targets)
    with pytest.raises(UserError, match="5 corrupt images"):  # what was skipped once is not forgotten
        folder(tree).load()


def test_sixteen_bit_grey_is_scaled_not_clipped(tree: Path) -> None:
    for path in (tree / "test/cat").iterdir():
        path.unlink()
    Image.fromarray(np.full((8, 8), 50 * 256, np.uint16)).save(tree / "test/cat/deep.png")
    assert folder(tree).load().test.inputs[0].unique().tolist() == [50]


def test_a_palette_with_transparency_is_read_without_a_word(tree: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 50, 50, 50])
    image.save(tree / "test/cat/palette.png", transparency=b"\x80\x40")
    assert len(folder(tree).load().test) == 9


def test_other_files_are_left_alone(tree: Path) -> None:
    (tree / "train/cat/notes.txt").write_text("a cat")
    (tree / "train/cat/.hidden.png").write_text("no image")
    (tree / "train/.cache").mkdir()
    (tree / "train/cat/more").mkdir()
    (tree / "train/cat/00.png").rename(tree / "train/cat/more/00.PNG")
    assert sizes(folder(tree).load()) == (36, 4, 8)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda tree: tree.rename(tree.with_name("moved")), "no folder train/"),
        (lambda tree: (tree / "test").rename(tree / "valid"), "no folder test/"),
        (lambda tree: (tree / "test/dog").rename(tree / "test/hound"), "differ in the classes dog, hound"),
        (lambda tree: [path.unlink() for path in (tree / "test/dog").iterdir()], "no images in test/dog"),
        (
            lambda tree: [(tree / part / "dog").rename(tree / part / ".dog") for part in ("train", "test")],
            "1 class folders: at least two",
        ),
    ],
)
def test_a_tree_of_the_wrong_shape_is_explained(tree: Path, spoil, says: str) -> None:
    spoil(tree)
    with pytest.raises(UserError) as error:
        folder(tree).load()
    assert says in message(error)
    assert str(tree) in message(error)


@pytest.mark.parametrize("harm", ["cut", "bit", "metadata", "words", "other"])
def test_a_damaged_cache_is_decoded_again(tree: Path, cache: Path, harm: str) -> None:
    first = folder(tree).load().fingerprint
    (kept,) = cache.rglob("*.safetensors")
    content = kept.read_bytes()
    tensors = load_file(kept)
    if harm == "cut":
        kept.write_bytes(content[:100])
    elif harm == "bit":
        kept.write_bytes(content[:-9] + bytes([content[-9] ^ 4]) + content[-8:])
    elif harm == "other":
        save_file(tensors, kept, {"corrupt": "[]", "sha256": "0" * 64})
    else:
        save_file(tensors, kept, None if harm == "metadata" else {"corrupt": "no json", "sha256": "0"})
    harmed = kept.read_bytes()
    assert folder(tree).load().fingerprint == first
    assert kept.read_bytes() != harmed
    assert folder(tree).load().fingerprint == first


def test_another_tree_of_the_same_names_sizes_and_times_is_another(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for path in sorted(tree.rglob("*")):
        copy = other / path.relative_to(tree)
        if path.is_dir():
            copy.mkdir(parents=True)
            continue
        Image.new("RGB", (8, 8), (9, 9, 9) if "cat" in str(path) else (250, 250, 250)).save(
            copy.with_suffix(".bmp")
        )
    one = tmp_path / "one"
    shutil.copytree(other, one)
    for path in one.rglob("*.bmp"):
        content, when = bytearray(path.read_bytes()), path.stat()
        content[-1] ^= 0x40  # the same length
        path.write_bytes(content)
        os.utime(path, ns=(when.st_atime_ns, when.st_mtime_ns))
        os.utime(other / path.relative_to(one), ns=(when.st_atime_ns, when.st_mtime_ns))
    assert folder(other).load().fingerprint != folder(one).load().fingerprint


def test_nothing_but_raster_formats_is_opened(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An .eps is for Ghostscript, whatever it is called."""
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    monkeypatch.setattr(
        "PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was asked")
    )
    (tree / "train/cat/art.eps").write_bytes(program)
    assert sizes(folder(tree).load()) == (36, 4, 8)
    (tree / "train/cat/art.png").write_bytes(program)
    with pytest.raises(UserError, match=r"1 corrupt images .*train/cat/art\.png"):
        folder(tree).load()


def test_a_pipe_and_a_device_are_no_images(tree: Path) -> None:
    os.mkfifo(tree / "train/cat/pipe.png")
    (tree / "train/cat/zero.png").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"1 corrupt images .*pipe\.png \(no regular file\)"):
        folder(tree).load()


def test_links_lead_nowhere_else_and_every_file_counts_once(
    tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "secret.png")
    (tree / "train/cat/out.png").symlink_to(tmp_path / "secret.png")
    (tree / "train/dog/again").symlink_to(tree, target_is_directory=True)
    (tree / "train/dog/cat.png").symlink_to(tree / "train/cat/00.png")
    os.link(tree / "train/cat/05.png", tree / "test/cat/hard.png")
    assert sizes(folder(tree).load()) == (36, 4, 8)
    assert "2 links in" in caplog.text
    assert "train/cat/out.png, train/dog/again" in caplog.text


def test_an_image_stands_as_its_exif_says(tree: Path) -> None:
    upright = Image.new("RGB", (8, 8), (50, 50, 50))
    upright.paste((250, 250, 250), (0, 0, 8, 4))  # bright above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right when it is shown
    for path in (tree / "test/cat").iterdir():
        path.unlink()
    upright.rotate(90, expand=True).save(tree / "test/cat/turned.png", exif=exif)
    found = folder(tree).load().test.inputs[0]
    assert int(found[0, 0, 4]) == 250
    assert int(found[0, 7, 4]) == 50


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [9_000, 9_600, 14_000])
def test_an_image_of_too_many_pixels_is_told_by_its_size(tree: Path, side: int) -> None:
    Image.new("1", (side, side)).save(tree / "train/cat/vast.png")
    with pytest.raises(UserError, match=r"train/cat/vast\.png \(.*pixels.*\)"):
        folder(tree).load()


def test_images_that_are_all_the_same_teach_nothing(tree: Path) -> None:
    for path in tree.rglob("*.*"):
        path.unlink()
    for i, part in enumerate(["train/cat", "train/dog", "test/cat", "test/dog"] * 3):
        Image.new("RGB", (8, 8), (7, 7, 7)).save(tree / part / f"{i}.png")
    with pytest.raises(UserError, match="gives the same inputs for all examples"):
        folder(tree).load()


def test_images_both_in_train_and_in_test_are_told(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i, grey in enumerate(range(0, 200, 5)):
        name = "cat" if i % 2 else "dog"
        Image.new("RGB", (8, 8), (grey, 3, 3)).save(tree / "train" / name / f"new{i}.png")
    shutil.copy(tree / "train/cat/new1.png", tree / "test/cat/new1.png")
    folder(tree).load()
    assert "different inputs both in train and in test" in caplog.text


def test_a_cache_that_cannot_be_written_is_named(tree: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot keep the decoded images"):
        folder(tree).load()


@pytest.mark.parametrize(
    ("knobs", "key"), [({"root": ""}, "root"), ({"size": 0}, "size"), ({"workers": 0}, "workers")]
)
def test_a_wrong_knob_is_named_as_typed(knobs: dict[str, object], key: str) -> None:
    with pytest.raises(UserError, match=rf"dataset\.{key}"):
        ImageFolder(**{"root": "somewhere", **knobs})  # type: ignore[arg-type]


def test_splits_know_their_length() -> None:
    split = Split(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 2]))
    assert len(split) == 3
    assert split.take(torch.tensor([2, 0])).targets.tolist() == [2, 0]
