"""Mark what commands write, so that it is never read as data: pictures, tables and runs below a folder of images."""

from __future__ import annotations

from pathlib import Path

MARK = ".openjepa-output"  # a hidden text file that names the outputs in its folder, one per line; *: all of them

ALL = "*"


def mark_output_folder(folder: Path) -> Path:
    """Mark everything in a folder as output, create the folder if needed, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    return add_names(folder, [ALL]) and folder


def mark_output_files(*files: Path) -> None:
    """Mark single files as output, in the folder that they are, or will be, in."""
    for folder in {file.parent for file in files}:
        folder.mkdir(parents=True, exist_ok=True)
        add_names(folder, [file.name for file in files if file.parent == folder])


def add_names(folder: Path, names: list[str]) -> Path:
    """Add names to the mark of a folder; a folder whose outputs are all marked stays as it is."""
    marked = output_names(str(folder))
    if ALL not in marked and (new := [name for name in names if name not in marked]):
        with (folder / MARK).open("a", encoding="utf-8", errors="surrogateescape") as stream:
            stream.writelines(f"{name}\n" for name in new)
    return folder


def output_names(folder: str) -> frozenset[str]:
    """Return the names of the outputs in a folder; `*` among them stands for all."""
    try:
        text = Path(folder, MARK).read_text(encoding="utf-8", errors="surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    return frozenset(text.splitlines())


def is_output_folder(folder: str, names: frozenset[str]) -> bool:
    """Return whether a folder with these entries is an output: it is marked, or is a run or a check of before marks."""
    if MARK in names:
        return ALL in output_names(folder)
    is_run = "config.json" in names and not names.isdisjoint({"checkpoints", "metrics.jsonl", "encoder.safetensors"})
    return is_run or {"doctor.json", "doctor.png"} <= names
