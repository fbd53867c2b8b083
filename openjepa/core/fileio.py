"""Write files atomically and durably: write a temporary file, fsync it, rename it."""

from __future__ import annotations

import errno
import filecmp
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openjepa.core.console import warn
from openjepa.core.errors import UserError
from openjepa.core.locks import lock_file
from openjepa.core.outputs import mark_output

MAX_JSON_BYTES = 2**24  # a larger JSON file is refused

CHUNK_BYTES = 2**23  # bytes written and hashed at a time

WINDOWS = os.name == "nt"

BINARY = getattr(os, "O_BINARY", 0)  # Windows would change line ends otherwise

NO_FOLDER_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)  # what a network folder answers that cannot flush names


class atomic_write:
    """Yield a temporary file next to `file`, which replaces it on success and is removed on failure.

    A picture or table is then marked as output, so that no command reads it as data.
    """

    def __init__(self, file: Path):
        self.file, self.temporary = file, file.with_name(f".{file.name}.{os.getpid()}")

    def __enter__(self) -> Path:
        make_folder(self.file.parent)
        self.temporary.touch()
        self.mode = self.temporary.stat().st_mode  # restored later: some libraries make files private to their owner
        return self.temporary

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None:
                self.temporary.chmod(self.mode)
                fsync_path(self.temporary)
                mark_output(self.file)  # first: a kill in between must not leave a picture that counts as data
                replace_file(self.temporary, self.file)
                fsync_path(self.file.parent)
        finally:
            self.temporary.unlink(missing_ok=True)


def replace_file(source: Path, target: Path) -> None:
    """Give a file a name that may exist already, also on Windows, which does not rename or replace a mapped file.

    There, a mapped target stays as it is if its contents are the same, and a mapped source is copied.
    """
    try:
        source.replace(target)
    except PermissionError:
        if not WINDOWS:
            raise
        if not target.exists():
            shutil.copyfile(source, target)
        elif not filecmp.cmp(source, target, shallow=False):
            raise


def write_text(file: Path, text: str) -> Path:
    """Write a text file atomically in UTF-8 and return its path.

    Surrogates, which stand for bytes of names that are not UTF-8, become the escapes that JSON has for them.
    """
    with atomic_write(file) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return file


def write_durable(file: Path, content: bytes) -> str:
    """Write a new file, fsync its contents and return their SHA-256.

    The file's name is durable only after its folder is fsynced, too.
    """
    digest, left = hashlib.sha256(), memoryview(content)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o666)
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
    """Return the SHA-256 of a file's contents as hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_version(path: str | Path) -> tuple[int, int, int, int]:
    """Return size, time of modification, time of any change, and inode: one differs after a file has changed.

    Programs can set the time of modification back, but not the time of change.
    """
    status = os.stat(path)  # noqa: PTH116 (speed)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def absolute_path(path: str) -> str:
    """Return the absolute path of an existing file or folder; links keep their names, other text stays as it is."""
    expanded = os.path.expanduser(path)  # noqa: PTH111 (a Path would drop a leading ./ of text that is no path)
    return os.path.abspath(expanded) if path and os.path.exists(expanded) else path  # noqa: PTH100, PTH110


def check_roots(roots: Sequence[str]) -> None:
    """Raise UserError if a path of data is empty, which Python takes for the working folder."""
    if any(not root.strip() for root in roots):
        raise UserError("--data.root is empty: give a path (. is the working folder)")


def expand_home(path: str | Path) -> Path:
    """Return a path with ~ replaced by the home folder; ~ stays where the user has none, as in some containers."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (pathlib raises an error then)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents and make their names durable."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_path(folder.parent)


def fsync_path(path: Path) -> None:
    """Flush a file's contents, or the names in a folder, to disk.

    Names cannot be flushed on Windows, which opens no folders, and on some network folders.
    """
    folder = path.is_dir()
    if WINDOWS and folder:
        return
    handle = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)  # Windows flushes only what it may write
    try:
        os.fsync(handle)
    except OSError as error:
        if not folder or error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)


def read_json(file: Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises ValueError if the file is too large, is nested too deeply, or holds something else.
    """
    if file.stat().st_size > max_bytes:
        raise ValueError(f"{file.name} is larger than {max_bytes // 2**20} MiB")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{file.name} is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} must contain a JSON object, got {type(content).__name__}")
    return content


@contextmanager
def lock_folder(folder: Path, activity: str) -> Iterator[None]:
    """Keep other processes out of a folder while the context is open.

    `activity` says in the error message what the other process does, e.g. "training". Where the system or the file
    system has no locks, warns and goes on.
    Raises UserError if another process holds the lock.
    """
    make_folder(folder)
    with (folder / "lock").open("wb") as stream:
        try:
            if not lock_file(stream):
                warn(f"{folder} cannot be locked on this system: start nothing else that writes into it")
        except (BlockingIOError, PermissionError) as error:
            raise UserError(f"another process is {activity} in {folder}: wait for it or use another folder") from error
        yield
