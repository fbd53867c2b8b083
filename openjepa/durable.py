"""Files that are there whole or not at all, and stay when the power goes: written aside, made durable, renamed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

LARGEST = 2**24  # bytes of JSON that are read
PIECE = 2**23  # bytes hashed and written at a time


class replacing:
    """A temporary name beside `file` to write to, renamed onto it on success, removed on failure."""

    def __init__(self, file: Path):
        self.file, self.temporary = file, file.with_name(f".{file.name}.{os.getpid()}")

    def __enter__(self) -> Path:
        make_folder(self.file.parent)
        self.temporary.touch()
        self.mode = self.temporary.stat().st_mode  # some libraries write what its owner alone may read
        return self.temporary

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None:
                self.temporary.chmod(self.mode)
                flush(self.temporary)
                self.temporary.replace(self.file)
                flush(self.file.parent)
        finally:
            self.temporary.unlink(missing_ok=True)


def store(file: Path, content: bytes) -> str:
    """Writes a new file, contents durable (its name is not, before its folder is flushed); returns its SHA-256."""
    digest, left = hashlib.sha256(), memoryview(content)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        while left:
            written = os.write(handle, left[:PIECE])
            digest.update(left[:written])
            left = left[written:]
        os.fsync(handle)
    finally:
        os.close(handle)
    return digest.hexdigest()


def digest(file: Path) -> str:
    """SHA-256 of a file's contents."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def make_folder(folder: Path) -> None:
    """A folder and its parents, their names durable."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        flush(folder.parent)


def flush(path: Path) -> None:
    """Makes a file's contents, or a folder's names, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(file: Path, largest: int = LARGEST) -> dict[str, Any]:
    """What a JSON file holds, whatever it holds. ValueError in a sentence unless that is one object of sensible size."""
    if file.stat().st_size > largest:
        raise ValueError(f"{file.name} is larger than {largest // 2**20} MiB")
    try:
        content = json.loads(file.read_text())
    except RecursionError as error:
        raise ValueError(f"{file.name} is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} holds no object")
    return content
