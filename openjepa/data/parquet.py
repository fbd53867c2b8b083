"""Read pictures in Parquet files, in the layout of Hugging Face's datasets."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple

from openjepa.core.errors import UserError

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp")  # names that a column of plain bytes may have

LABEL_COLUMNS = ("label", "labels", "cls", "class")

MAX_GROUP_BYTES = 2**31  # bytes of a row group

CACHED_GROUPS = 2  # row groups kept in memory

read_lock = threading.Lock()  # a file is read by one thread at a time


class Columns(NamedTuple):
    """What a file calls things."""

    picture: str
    nested: bool  # {bytes, path}, or bytes alone
    label: str | None
    classes: tuple[str, ...]  # names of the labels' numbers, if they have any


def list_rows(archive: str) -> Iterator[tuple[int, int, int, str]]:
    """Row group, row, a size, and the name in its folder, of every picture. Mistake if the file holds none, or is damaged.

    The size is the whole file's: a fingerprint that reads no picture.
    """
    weight = Path(archive).stat().st_size
    file = open_parquet(archive)
    columns = find_columns(archive, file.schema_arrow)
    wanted = [f"{columns.picture}.path"] * columns.nested + [columns.label] * bool(columns.label)
    for group in range(file.num_row_groups):
        about = file.metadata.row_group(group)
        if about.total_byte_size > MAX_GROUP_BYTES:
            raise UserError(
                f"{archive} has row groups of {about.total_byte_size / 2**30:.0f} GiB: write it again with row groups of 100"
            )
        table = (
            with_readable_errors(archive, lambda group=group: file.read_row_group(group, columns=wanted).to_pydict())
            if wanted
            else {}
        )
        nothing = [None] * about.num_rows
        for row, (path, label) in enumerate(
            zip(table.get(columns.picture, nothing), table.get(columns.label, nothing), strict=True)
        ):
            name = PurePosixPath((path or {}).get("path") or "").name or f"{group}-{row}"
            folder = label_name(label, columns.classes)
            yield group, row, weight, f"{folder}/{name}" if folder else name


def label_name(label: Any, classes: tuple[str, ...]) -> str:
    """A label as the name of a folder."""
    if label is None:
        return ""
    known = type(label) is int and 0 <= label < len(classes)
    return str(classes[label] if known else label).replace("/", "-")


def find_columns(archive: str, schema: Any) -> Columns:
    """Which column holds pictures, and which their labels: as the metadata of Hugging Face say, else by name."""
    arrow = require_pyarrow().types
    said = huggingface_features(schema.metadata or {})
    nested = [
        field.name for field in schema if arrow.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
    ]
    plain = [
        field.name
        for field in schema
        if field.name in IMAGE_COLUMNS and (arrow.is_binary(field.type) or arrow.is_large_binary(field.type))
    ]
    images = [name for name in nested if said.get(name, {}).get("_type") == "Image"] or nested or plain
    if not images:
        raise UserError(
            f"{archive} has no column of pictures ({', '.join(schema.names[:8])}): want one of bytes and path, as Hugging Face's "
            "datasets write it"
        )
    numbered = [name for name in schema.names if said.get(name, {}).get("_type") == "ClassLabel"]
    label = next(iter(numbered or [name for name in schema.names if name in LABEL_COLUMNS]), None)
    classes = said.get(label, {}).get("names", []) if label else []
    return Columns(images[0], images[0] in nested, label, tuple(map(str, classes)) if isinstance(classes, list) else ())


def huggingface_features(metadata: dict[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """What Hugging Face wrote of each column; nothing where it wrote nothing, or nonsense."""
    try:
        found = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {name: each for name, each in found.items() if isinstance(each, dict)} if isinstance(found, dict) else {}


def read_row(archive: str, group: int, row: int) -> bytes:
    """A picture's bytes; none where the row has none. OSError if there is no such row."""
    with read_lock:
        cells = read_group(archive, Path(archive).stat().st_mtime_ns, group)
    if row >= len(cells):
        raise OSError(0, f"row group {group} has no row {row}: the file has changed since it was listed")
    return cells[row].as_py() or b""


@functools.lru_cache(CACHED_GROUPS)
def read_group(archive: str, time: int, group: int) -> Any:
    """The pictures of a row group. `time` is the file's: another file is read again."""
    file = open_parquet(archive)
    picture, nested, *_ = find_columns(archive, file.schema_arrow)
    try:
        column = file.read_row_group(group, columns=[f"{picture}.bytes" if nested else picture]).column(picture)
    except (*damage_errors(), IndexError) as error:
        raise OSError(0, f"row group {group} cannot be read ({error})") from error
    cells = column.combine_chunks()
    return cells.field("bytes") if nested else cells


def open_parquet(archive: str) -> Any:
    """The file, its schema read. Mistake if it is no Parquet file."""
    return with_readable_errors(
        archive,
        lambda: require_pyarrow().parquet.ParquetFile(archive, memory_map=True, page_checksum_verification=True),
    )


def with_readable_errors(archive: str, act: Any) -> Any:
    """What `act` returns. Mistake in a sentence where the file is not what it should be."""
    try:
        return act()
    except damage_errors() as error:
        raise UserError(
            f"{archive} is not a whole Parquet file ({str(error).splitlines()[0]}): copy or make it again"
        ) from error


def damage_errors() -> tuple[type[Exception], ...]:
    return require_pyarrow().ArrowException, OSError, ValueError, UnicodeError


def require_pyarrow() -> ModuleType:
    """pyarrow, which an extra brings. Mistake without it."""
    try:
        import pyarrow
        import pyarrow.parquet
        import pyarrow.types
    except ImportError as error:
        raise UserError("Parquet files want pyarrow: pip install 'openjepa[parquet]'") from error
    return pyarrow
