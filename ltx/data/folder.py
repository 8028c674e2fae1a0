"""A tree of class folders as a data set, decoded once and kept in the cache."""

import hashlib
import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from glob import escape, glob
from pathlib import Path
from typing import ClassVar

import torch
from platformdirs import user_cache_dir
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ltx.data.base import Data, Dataset, Split, hold_out
from ltx.data.decode import decode_all, extensions
from ltx.errors import UserError
from ltx.knobs import at_least, knob

log = logging.getLogger(__name__)

PARTS = ("train", "test")
Tree = dict[str, list[list[str]]]  # for train and test, each class's files, relative to the root


@dataclass(frozen=True)
class ImageFolder(Dataset):
    """Images in ROOT/train/CLASS/ and ROOT/test/CLASS/; a stratified tenth of train is for validation."""

    name: ClassVar[str] = "image_folder"
    summary: ClassVar[str] = "your own images: dataset.root/train/CLASS/* and dataset.root/test/CLASS/*"
    shape: ClassVar[None] = None
    outputs: ClassVar[None] = None
    train_size: ClassVar[None] = None

    root: str = knob("", None, "folder that holds train/ and test/; required", result=False)
    size: int = knob(32, at_least(1), "pixels; every image is resized to size × size and converted to RGB")
    workers: int = knob(4, at_least(1), "threads that decode", result=False)
    skip_corrupt: bool = knob(False, None, "leave unreadable images out instead of stopping")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.root:
            raise UserError(
                "dataset.root is required: the folder that holds train/ and test/ of class folders"
            )

    @property
    def folder(self) -> Path:
        """Where the tree is looked for."""
        return Path(self.root).expanduser()

    def load(self) -> Data:
        """Read the decoded images from the cache, decoding the tree first if it has changed."""
        classes = class_names(self.folder)
        tree: Tree = {part: [images_below(self.folder, part, name) for name in classes] for part in PARTS}
        cache = Path(user_cache_dir("ltx"), "image_folder", f"{self.key(tree)}.safetensors")
        if not cache.is_file():
            self.decode_into(cache, tree)
        train, test = self.cached(cache)
        for part, split in zip(PARTS, (train, test), strict=True):
            counts = torch.bincount(split.targets, minlength=len(classes)).tolist()
            if empty := [f"{part}/{name}" for name, n in zip(classes, counts, strict=True) if n == 0]:
                raise UserError(f"{self.folder} has no images in {', '.join(empty)}: every class needs some")
        kept, held = hold_out(train.targets, max(1, round(len(train) / 10)))
        data = Data.of_images(train.take(kept), train.take(held), test, classes=len(classes))
        return replace(data, labels=tuple(classes))

    def fetch(self) -> None:
        """Decode the tree into the cache."""
        self.load()

    def key(self, tree: Tree) -> str:
        """A hash of what decoding depends on: size, and every file's relative path, length and mtime."""
        digest = hashlib.sha256(f"{self.size}\n".encode())
        root = str(self.folder)  # a Path per file would double the time that a large tree takes
        for name in (name for part in PARTS for group in tree[part] for name in group):
            try:
                stat = os.stat(os.path.join(root, name))
            except OSError:  # such as a link to nowhere, which decoding will name
                digest.update(os.fsencode(name) + b"\0unreadable\n")
            else:
                digest.update(os.fsencode(name) + f"\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:32]

    def decode_into(self, cache: Path, tree: Tree) -> None:
        """Decode every image of the tree and write the file `cache`, whole or not at all."""
        tensors: dict[str, Tensor] = {}
        corrupt: list[str] = []
        for part in PARTS:
            names = [name for group in tree[part] for name in group]
            labels = torch.repeat_interleave(torch.tensor([len(group) for group in tree[part]]))
            images, readable = decode_all(
                [self.folder / name for name in names],
                size=self.size,
                workers=self.workers,
                title=f"decoding {part}",
            )
            tensors[f"{part}.images"], tensors[f"{part}.labels"] = images[readable], labels[readable]
            corrupt += [names[i] for i in (~readable).nonzero().flatten().tolist()]
        self.tolerate(corrupt)  # before anything is kept, so that the next load looks at the files again
        partial = cache.with_suffix(f".{os.getpid()}")
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, partial, metadata={"corrupt": json.dumps(corrupt)})
            partial.replace(cache)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                partial.unlink()
            raise UserError(f"cannot keep the decoded images in {cache.parent}: {error}") from error

    def cached(self, cache: Path) -> tuple[Split, Split]:
        """Train and test as decoded earlier, with a word on what was skipped then."""
        try:
            with safe_open(cache, framework="pt") as file:
                corrupt = json.loads(file.metadata()["corrupt"])
                train, test = (
                    Split(file.get_tensor(f"{part}.images"), file.get_tensor(f"{part}.labels"))
                    for part in PARTS
                )
        except (OSError, SafetensorError) as error:
            raise UserError(f"the cache {cache} is damaged ({error}): delete it") from error
        self.tolerate(corrupt)
        if corrupt:
            log.warning("skipped %d corrupt images in %s: %s", len(corrupt), self.folder, ", ".join(corrupt))
        return train, test

    def tolerate(self, corrupt: list[str]) -> None:
        """Stop at corrupt images, naming them all, unless told to skip them."""
        if corrupt and not self.skip_corrupt:
            raise UserError(
                f"{len(corrupt)} corrupt images in {self.folder}: {', '.join(corrupt)}; "
                "mend or remove them, or set dataset.skip_corrupt=true"
            )


def class_names(root: Path) -> list[str]:
    """The class folders' names in order, the same in train/ and test/ and at least two; raises UserError."""
    for part in PARTS:
        if not (root / part).is_dir():
            raise UserError(
                f"dataset.root={root} has no folder {part}/: it takes train/CLASS/* and test/CLASS/*"
            )
    train, test = (
        {path.name for path in (root / part).iterdir() if path.is_dir() and not path.name.startswith(".")}
        for part in PARTS
    )
    if differ := sorted(train ^ test):
        raise UserError(
            f"train/ and test/ of {root} differ in the classes {', '.join(differ)}: name them alike"
        )
    if len(train) < 2:
        raise UserError(f"{root / 'train'} has {len(train)} class folders: at least two are needed")
    return sorted(train)


def images_below(root: Path, part: str, name: str) -> list[str]:
    """The files of one class whose extension PIL reads, in order, as paths relative to the root."""
    known = extensions()
    files = glob(f"{part}/{escape(name)}/**/*", root_dir=root, recursive=True)
    return sorted(file for file in files if os.path.splitext(file)[1].lower() in known)
