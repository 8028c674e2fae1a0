"""A tree of class folders as a data set, decoded once and kept in the cache."""

import hashlib
import json
import logging
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from platformdirs import user_cache_dir
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ltx.data.base import Data, Dataset, Split, hold_out
from ltx.data.decode import decode_all, extensions
from ltx.data.sound import demand_sound
from ltx.errors import UserError, demand, unknown
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
    only: list[str] = knob([], None, "class folders to read, as in [cat,dog]; none named = all")

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
        """Read the decoded images from the cache, decoding the tree first if it or the cache has changed."""
        classes = self.chosen(class_names(self.folder))
        tree = listed(self.folder, classes)
        cache = Path(user_cache_dir("ltx"), "image_folder", f"{self.key(tree)}.safetensors")
        if (found := self.cached(cache)) is None:
            found = self.decode_into(cache, tree)
        train, test = found
        for part, split in zip(PARTS, (train, test), strict=True):
            counts = torch.bincount(split.targets, minlength=len(classes)).tolist()
            if empty := [f"{part}/{name}" for name, n in zip(classes, counts, strict=True) if n == 0]:
                raise UserError(f"{self.folder} has no images in {', '.join(empty)}: every class needs some")
        kept, held = hold_out(train.targets, max(1, round(len(train) / 10)))
        splits = {"train": train.take(kept), "val": train.take(held), "test": test}
        demand_sound(splits, str(self.folder))
        data = Data.of_images(*splits.values(), classes=len(classes))
        return replace(data, labels=tuple(classes))

    def fetch(self) -> None:
        """Decode the tree into the cache."""
        self.load()

    def chosen(self, names: list[str]) -> list[str]:
        """Those of the class folders that are to be read, in order; raises UserError."""
        for name in self.only:
            if name not in names:
                raise unknown("dataset.only", name, names)
        demand(len(set(self.only)) != 1, "dataset.only", self.only, "name two classes or more")
        return [name for name in names if name in self.only] or names

    def key(self, tree: Tree) -> str:
        """A hash of what decoding depends on: root, size, and what the system tells of every file."""
        root = os.path.realpath(self.folder)
        digest = hashlib.sha256(os.fsencode(f"{root}\n{self.size}\n"))
        for name in (name for part in PARTS for group in tree[part] for name in group):
            try:
                stat = os.stat(os.path.join(root, name))
            except OSError:  # such as a link to nowhere, which decoding will name
                digest.update(os.fsencode(name) + b"\0unreadable\n")
            else:
                # Archives and `cp -p` give other files the same time; nothing gives them the same change of it.
                facts = stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
                digest.update(os.fsencode(name) + f"\0{facts}\n".encode())
        return digest.hexdigest()[:32]

    def decode_into(self, cache: Path, tree: Tree) -> tuple[Split, Split]:
        """Decode every image of the tree, and write the file `cache`, whole or not at all."""
        tensors: dict[str, Tensor] = {}
        corrupt: list[str] = []
        for part in PARTS:
            names = [name for group in tree[part] for name in group]
            labels = torch.repeat_interleave(torch.tensor([len(group) for group in tree[part]]))
            images, failed = decode_all(
                [self.folder / name for name in names],
                size=self.size,
                workers=self.workers,
                title=f"decoding {part}",
            )
            readable = torch.tensor([i not in failed for i in range(len(names))], dtype=torch.bool)
            tensors[f"{part}.images"], tensors[f"{part}.labels"] = images[readable], labels[readable]
            corrupt += [f"{names[i]} ({why})" if why else names[i] for i, why in sorted(failed.items())]
        self.tolerate(corrupt)  # before anything is kept, so that the next load looks at the files again
        self.keep(cache, tensors, corrupt)
        return parts(tensors)

    def keep(self, cache: Path, tensors: dict[str, Tensor], corrupt: list[str]) -> None:
        """Write decoded images with their checksum."""
        partial = cache.with_suffix(f".{secrets.token_hex(8)}")
        metadata = {"corrupt": json.dumps(corrupt), "sha256": checksum(tensors)}
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, partial, metadata=metadata)
            partial.replace(cache)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                partial.unlink()
            raise UserError(f"cannot keep the decoded images in {cache.parent}: {error}") from error

    def cached(self, cache: Path) -> tuple[Split, Split] | None:
        """Train and test as decoded earlier; None if there is no such file, or it is not as it was written."""
        try:
            with safe_open(cache, framework="pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            corrupt = json.loads(about["corrupt"])
            whole = about["sha256"] == checksum(tensors) and all(isinstance(name, str) for name in corrupt)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):  # none yet, or damaged
            return None
        if not whole:
            return None
        self.tolerate(corrupt)
        return parts(tensors)

    def tolerate(self, corrupt: list[str]) -> None:
        """Stop at corrupt images, naming them all; or say so, if told to skip them."""
        if corrupt and not self.skip_corrupt:
            raise UserError(
                f"{len(corrupt)} corrupt images in {self.folder}: {', '.join(corrupt)}; "
                "mend or remove them, or set dataset.skip_corrupt=true"
            )
        if corrupt:
            log.warning("skipped %d corrupt images in %s: %s", len(corrupt), self.folder, ", ".join(corrupt))


def parts(tensors: dict[str, Tensor]) -> tuple[Split, Split]:
    """Train and test of the cache's tensors."""
    train, test = (Split(tensors[f"{part}.images"], tensors[f"{part}.labels"]) for part in PARTS)
    return train, test


def checksum(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def class_names(root: Path) -> list[str]:
    """The class folders' names in order, the same in train/ and test/ and at least two; raises UserError."""
    for part in PARTS:
        if not (root / part).is_dir():
            raise UserError(
                f"dataset.root={root} has no folder {part}/: it takes train/CLASS/* and test/CLASS/*"
            )
    train, test = (
        {
            path.name
            for path in (root / part).iterdir()
            if path.is_dir() and not path.is_symlink() and not path.name.startswith(".")
        }
        for part in PARTS
    )
    if differ := sorted(train ^ test):
        raise UserError(
            f"train/ and test/ of {root} differ in the classes {', '.join(differ)}: name them alike"
        )
    if len(train) < 2:
        raise UserError(f"{root / 'train'} has {len(train)} class folders: at least two are needed")
    return sorted(train)


def real_folder(path: Path) -> bool:
    """Whether a path is a folder that is no link and not hidden."""
    return path.is_dir() and not path.is_symlink() and not path.name.startswith(".")


def listed(root: Path, classes: list[str]) -> Tree:
    """The image files of each class, in order, each real file once, none outside the root.

    Links to folders are not followed, nor links to files that lead out of the root; so much is said.
    """
    known, seen, away = extensions(), set[tuple[int, int]](), list[str]()
    inside = os.path.realpath(root) + os.sep

    def mine(file: str) -> bool:
        path = os.path.join(root, file)
        if os.path.islink(path) and not os.path.realpath(path).startswith(inside):
            away.append(file)
            return False
        try:
            about = os.stat(path)
        except OSError:  # a link to nowhere, which decoding will name
            return True
        real = about.st_dev, about.st_ino
        first = real not in seen
        seen.add(real)
        return first

    def below(part: str, name: str) -> list[str]:
        found = [
            os.path.relpath(os.path.join(at, file), root)
            for at, folders, files in os.walk(root / part / name)
            for file in files + [one for one in folders if os.path.islink(os.path.join(at, one))]
            if not (file.startswith(".") or "/." in os.path.relpath(at, root))
        ]
        links = [file for file in found if os.path.isdir(root / file)]
        away.extend(links)
        images = {file for file in found if os.path.splitext(file)[1].lower() in known} - set(links)
        return [file for file in sorted(images) if mine(file)]

    tree = {part: [below(part, name) for name in classes] for part in PARTS}
    if away:
        log.warning("%d links in %s are not followed: %s", len(away), root, ", ".join(sorted(away)[:10]))
    return tree
