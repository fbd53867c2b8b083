"""Unpack archives of data for tests and measurements: `python -m scripts.unpack_data ARCHIVES OUT`.

Every archive NAME.tar or NAME.tar.gz in the folder ARCHIVES becomes the folder OUT/NAME. Tests and measurements find
OUT through the environment variable JEPA_DATA.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tarfile
import zlib
from pathlib import Path

from rich.progress import Progress

from openjepa.core.console import console, info
from openjepa.core.errors import UserError
from openjepa.core.fileio import lock_folder

SUFFIXES = (".tar.gz", ".tgz", ".tar")

MARKER = ".unpacked"  # file in every folder that this command has made


def unpack_all(archives: Path, out: Path) -> None:
    """Unpack every archive of a folder that is not unpacked yet, and print how to use the result.

    Raises:
        UserError: there are no archives, or one is damaged, unsafe, or in the way of another folder.
    """
    files = find_archives(archives)
    with lock_folder(out, "unpacking archives"), Progress(console=console) as progress:
        for name, archive in files.items():
            if is_unpacked(out / name):
                progress.console.print(f"{name} is unpacked already", highlight=False)
            else:
                unpack(archive, out / name, progress)
    info(f"export JEPA_DATA={out.resolve()}")


def find_archives(folder: Path) -> dict[str, Path]:
    """Return the archives of a folder by name, without suffix. Raises UserError if it has none, or two of one name."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder of archives first, then the folder to unpack into")
    archives: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        suffix = next((suffix for suffix in SUFFIXES if file.name.endswith(suffix)), None)
        if suffix and file.is_file():
            name = file.name.removesuffix(suffix)
            if name in archives:
                raise UserError(f"{archives[name]} and {file} would unpack into one folder: remove one of them")
            archives[name] = file
    if not archives:
        raise UserError(f"{folder} holds no archives: it needs files ending in {' '.join(SUFFIXES)}")
    return archives


def is_unpacked(folder: Path) -> bool:
    """Return whether this command has unpacked a folder. Raises UserError if something else is in its place."""
    if (folder / MARKER).is_file():
        return True
    if folder.exists():
        raise UserError(f"{folder} exists, but not from this command: remove it, or unpack into another folder")
    return False


def unpack(archive: Path, folder: Path, progress: Progress) -> None:
    """Unpack an archive into a temporary folder, then move it to `folder`, so that `folder` is complete or absent.

    A single top-level folder of the same name in the archive becomes `folder` itself.
    """
    temporary = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)  # of an interrupted try
    temporary.mkdir()
    try:
        with progress.open(archive, "rb", description=folder.name) as stream, tarfile.open(fileobj=stream) as members:
            for member in members:
                members.extract(member, temporary, filter="data")
    except tarfile.FilterError as error:
        raise UserError(f"{archive} is not safe to unpack ({error}): do not use it") from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{archive} is damaged or incomplete ({error}): copy it here again") from error
    inner = temporary / folder.name
    whole = inner if [file.name for file in temporary.iterdir()] == [folder.name] and inner.is_dir() else temporary
    (whole / MARKER).touch()
    whole.rename(folder)
    shutil.rmtree(temporary, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.unpack_data", description="Unpack archives of data for tests."
    )
    parser.add_argument("archives", type=Path, metavar="ARCHIVES", help="folder of .tar and .tar.gz files")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to unpack into")
    arguments = parser.parse_args()
    try:
        unpack_all(arguments.archives, arguments.out)
    except (UserError, OSError) as error:
        sys.exit(f"unpack_data: {error}")


if __name__ == "__main__":
    main()
