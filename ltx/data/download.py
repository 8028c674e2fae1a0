"""Data sets that torchvision can download: finding, fetching and checking their files."""

import gzip
import hashlib
import os
import socket
import zlib
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from filelock import FileLock
from platformdirs import user_cache_dir

from ltx.data.base import Data, Dataset, Split, hold_out
from ltx.errors import UserError
from ltx.knobs import knob

HELD_OUT = 5_000  # validation examples taken from the training images (Frankle & Carbin 2019)
UNPACKED = 1 << 30  # bytes
SILENCE = 4.0  # seconds a server may say nothing; torchvision itself would wait for ever


@dataclass(frozen=True)
class Downloaded(Dataset):
    """A data set of files laid out as torchvision lays them out, with 5,000 training images held out."""

    files: ClassVar[dict[str, str | None]]  # path below the folder -> md5, where its publisher gives one

    root: str | None = knob(
        None,
        None,
        "folder of the data; otherwise $LTX_DATA, otherwise the user's cache folder",
        result=False,
    )

    @property
    def folder(self) -> Path:
        """Where the files are looked for."""
        return Path(self.root or os.environ.get("LTX_DATA") or user_cache_dir("ltx")).expanduser()

    @abstractmethod
    def read(self) -> tuple[Split, Split]:
        """The published training and test examples; raises UserError naming a file that is damaged."""

    @abstractmethod
    def download(self, folder: Path) -> None:
        """Let torchvision bring the files into `folder`; raises RuntimeError or OSError."""

    def load(self) -> Data:
        """Read the files, fetching them first if any is missing, and hold out the validation examples."""
        if not all(self.there(name) for name in self.files):
            self.fetch()
        published, test = self.read()
        kept, held = hold_out(published.targets, HELD_OUT)
        assert self.outputs is not None  # only a folder of images has to look
        return Data.of_images(published.take(kept), published.take(held), test, classes=self.outputs)

    def fetch(self) -> None:
        """Download what is missing or damaged, one process at a time, giving up on a silent server."""
        if self.intact():
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f".{self.name}.lock"), impatience(SILENCE):
                if not self.intact():  # a process that held the lock before may have brought the files
                    self.replace_files()
        except (RuntimeError, OSError) as error:  # URLError and TimeoutError are OSErrors
            raise UserError(
                f"{self.name} is not in {self.folder} and could not be downloaded: put there "
                f"{', '.join(self.files)}, run `ltx data fetch {self.name}` on a machine with network, "
                f"or try dataset=digits ({' '.join(str(error).split()) or type(error).__name__})"
            ) from error

    def replace_files(self) -> None:
        """Download beside the folder's files and then move in, so that nobody ever reads half a file."""
        with TemporaryDirectory(dir=self.folder, prefix=f".{self.name}.") as stage:
            self.download(Path(stage))
            for name in self.files:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(stage) / name).replace(self.folder / name)

    def intact(self) -> bool:
        """Whether every file is there and can be read."""
        try:
            self.read()
        except UserError:
            return False
        return True

    def there(self, name: str) -> bool:
        """Whether a file is in the folder, as it is or packed by gzip."""
        return any((self.folder / file).is_file() for file in (name, f"{name}.gz"))

    def contents(self, name: str) -> bytearray:
        """A file's bytes, checked against its md5 where one is known."""
        path = self.folder / name
        try:
            payload = bytearray(
                path.read_bytes() if path.exists() else unpacked(path.with_name(f"{path.name}.gz"))
            )
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self.damaged(f"{name}.gz", str(error)) from error
        except OSError as error:
            raise UserError(f"cannot read {self.folder / name}: {error.strerror}") from error
        md5 = self.files[name]
        if md5 is not None and hashlib.md5(payload, usedforsecurity=False).hexdigest() != md5:
            raise self.damaged(name, "its checksum is not the published one")
        return payload

    def damaged(self, name: str, why: str) -> UserError:
        """The error that names a damaged file and what replaces it."""
        path = self.folder / name
        return UserError(f"{path} is damaged ({why}): `ltx data fetch {self.name}` replaces it")


def unpacked(path: Path) -> bytes:
    """What a gzip file holds, of which no data set here has more than `UNPACKED`."""
    with gzip.open(path) as file:
        return file.read(UNPACKED)


@contextmanager
def impatience(seconds: float) -> Iterator[None]:
    """Sockets opened meanwhile raise TimeoutError after so many silent seconds."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
