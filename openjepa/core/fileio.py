"""Write files atomically and durably: to a temporary file, fsync, rename."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openjepa.core.errors import UserError

MAX_JSON_BYTES = 2**24  # bytes of JSON that are read

CHUNK_BYTES = 2**23  # bytes hashed and written at a time


class atomic_write:
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
                fsync_path(self.temporary)
                self.temporary.replace(self.file)
                fsync_path(self.file.parent)
        finally:
            self.temporary.unlink(missing_ok=True)


def write_durable(file: Path, content: bytes) -> str:
    """Writes a new file, contents durable (its name is not, before its folder is flushed); returns its SHA-256."""
    digest, left = hashlib.sha256(), memoryview(content)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        while left:
            written = os.write(handle, left[:CHUNK_BYTES])
            digest.update(left[:written])
            left = left[written:]
        os.fsync(handle)
    finally:
        os.close(handle)
    return digest.hexdigest()


def sha256_of_file(file: Path) -> str:
    """SHA-256 of a file's contents."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def make_folder(folder: Path) -> None:
    """A folder and its parents, their names durable."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_path(folder.parent)


def fsync_path(path: Path) -> None:
    """Makes a file's contents, or a folder's names, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(file: Path, largest: int = MAX_JSON_BYTES) -> dict[str, Any]:
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


@contextmanager
def lock_folder(folder: Path, doing: str) -> Iterator[None]:
    """Keeps a second process out of the folder. Mistake if one is there."""
    make_folder(folder)
    with (folder / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process is {doing} in {folder}: wait for it, or give another folder") from error
        yield
