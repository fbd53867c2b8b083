"""Mark what commands write, so that it is never read as data: pictures and tables in or below a folder of data."""

from __future__ import annotations

from pathlib import Path

MARK = ".openjepa-output"  # a hidden text file that names the outputs in its folder, one per line

MARKED_SUFFIXES = frozenset({".png", ".jpg", ".csv", ".npy", ".parquet"})  # outputs that a modality could read


def mark_output(file: Path) -> None:
    """Add a file that a command wrote to the mark of its folder, if its ending is one that data may have."""
    name = file.name.replace("\n", "\\n")
    if file.suffix.lower() in MARKED_SUFFIXES and name not in output_names(str(file.parent)):
        with (file.parent / MARK).open("a", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(f"{name}\n")


def output_names(folder: str) -> frozenset[str]:
    """Return the names of the outputs in a folder, as they are in its mark."""
    try:
        text = Path(folder, MARK).read_text(encoding="utf-8", errors="surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    return frozenset(text.split("\n"))


def is_output_folder(names: frozenset[str]) -> bool:
    """Return whether a folder with these entries is a run, or a check by jepa doctor: none of its files is data."""
    is_run = "config.json" in names and not names.isdisjoint({"checkpoints", "metrics.jsonl", "encoder.safetensors"})
    return is_run or {"doctor.json", "doctor.png"} <= names
