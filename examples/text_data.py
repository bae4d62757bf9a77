"""Bytes of text to train on: the sources of Python's standard library, or files of one's own."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np

END_OF_FILE = b"\0"  # no text has it
SKIPPED = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib", "lib2to3", "ensurepip"}
EVALUATED = 20  # one of so many files is kept to measure the loss on


def read_text(path: Path | None, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The bytes to train with and those to measure the loss on, two uint8 arrays.

    Args:
        path: a file, a folder (all .py, .txt and .md files below it), or None for the standard library's sources.
        most: bytes in all, at most.

    Raises:
        OSError: there is nothing at `path`.
        ValueError: there is too little text for two parts.
    """
    if path is not None and path.is_file():
        data = np.frombuffer(path.read_bytes()[:most], np.uint8)
        cut = len(data) - len(data) // EVALUATED
        return data[:cut], data[cut:]
    root = path or Path(sysconfig.get_path("stdlib"))
    if not root.is_dir():
        raise FileNotFoundError(f"there is no text at {root}: give a file or a folder with --text")
    endings = {".py"} if path is None else {".py", ".txt", ".md"}
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    size = number = 0
    for file in _files(root, endings, SKIPPED if path is None else set()):
        if size >= most:
            break
        text = file.read_bytes()[: most - size] + END_OF_FILE
        size += len(text)
        # The second of each group, so that two files are enough.
        parts[number % EVALUATED == 1].append(text)
        number += 1
    if number < 2:
        raise ValueError(f"{root} has {number} files of text ({', '.join(sorted(endings))}): at least 2 are needed")
    training, evaluation = (np.frombuffer(b"".join(files), np.uint8) for files in parts)
    return training, evaluation


def _files(root: Path, endings: set[str], skipped: set[str]) -> Iterator[Path]:
    """In the same order everywhere. What is skipped is not even looked into: site-packages can be huge."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - skipped)
        yield from (Path(folder, name) for name in sorted(names) if Path(name).suffix in endings)


def fingerprint(data: np.ndarray) -> str:
    """A short text that tells whether two runs have the same data."""
    return hashlib.blake2b(data.data, digest_size=8).hexdigest()


class Windows:
    """An endless sequence of windows of a text: each epoch cuts it at other places and mixes the pieces anew.

    What stands at a position follows from the seed and the position alone, so that a run that is resumed needs to know
    only how many windows were taken.

    Args:
        data: uint8 (N,).
        length: of a window.
        seed: of the order.

    Raises:
        ValueError: the text is shorter than two windows.
    """

    def __init__(self, data: np.ndarray, length: int, seed: int) -> None:
        if len(data) < 2 * length:
            raise ValueError(f"a text of {len(data)} bytes is too short for windows of {length}: lower --context")
        self.data, self.length, self.seed = data, length, seed
        self.per_epoch = (
            len(data) // length - 1
        )  # one less: the first piece begins anywhere in the first `length` bytes
        self._epoch = -1

    def take(self, position: int, count: int) -> np.ndarray:
        """The windows number position, position + 1, ...: int32 (count, length)."""
        rows = [self._window(position + i) for i in range(count)]
        return np.stack(rows).astype(np.int32)

    def _window(self, position: int) -> np.ndarray:
        epoch, place = divmod(position, self.per_epoch)
        if epoch != self._epoch:
            random = np.random.default_rng((self.seed, epoch))
            self._epoch, self._shift = epoch, int(random.integers(self.length))
            self._order = random.permutation(self.per_epoch)
        start = self._shift + int(self._order[place]) * self.length
        return self.data[start : start + self.length]
