"""Read images and videos in Parquet files, in the layout of Hugging Face datasets."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple

from openjepa.core.errors import UserError
from openjepa.core.fileio import file_version

IMAGE_COLUMNS = (  # accepted names for a column of plain bytes
    "image", "img", "jpg", "jpeg", "png", "webp", "video", "mp4", "webm", "avi", "mov",
)  # fmt: skip

LABEL_COLUMNS = ("label", "labels", "cls", "class")

MAX_GROUP_BYTES = 2**31  # per row group, which is read as a whole

CACHED_GROUPS = 2  # row groups held in memory

read_lock = threading.Lock()  # one thread reads at a time


class Columns(NamedTuple):
    """The image and label columns of a file."""

    image: str
    nested: bool  # True: cells are {bytes, path}; False: plain bytes
    label: str | None
    classes: tuple[str, ...]  # class names, if labels are numbers with names


def list_rows(archive: str) -> Iterator[tuple[int, int, int, str]]:
    """Yield row group, row, size and folder/name of every image.

    The size is that of the whole file: enough for a fingerprint, without reading any image.

    Raises:
        UserError: the file is damaged, has no image column, or has row groups above MAX_GROUP_BYTES.
    """
    size = Path(archive).stat().st_size
    file = open_parquet(archive)
    columns = find_columns(archive, file.schema_arrow)
    wanted_columns = [f"{columns.image}.path"] * columns.nested + [columns.label] * bool(columns.label)
    for group in range(file.num_row_groups):
        metadata = file.metadata.row_group(group)
        if metadata.total_byte_size > MAX_GROUP_BYTES:
            raise UserError(
                f"{archive} has a row group of {metadata.total_byte_size / 2**30:.0f} GiB, "
                f"more than {MAX_GROUP_BYTES / 2**30:.0f} GiB: write it again with row groups of 100 rows"
            )
        table = read_columns(archive, file, group, wanted_columns)
        empty: list[Any] = [None] * metadata.num_rows
        cells = zip(table.get(columns.image, empty), table.get(columns.label, empty), strict=True)
        for row, (path, label) in enumerate(cells):
            name = PurePosixPath((path or {}).get("path") or "").name or f"{group}-{row}"
            folder = label_name(label, columns.classes)
            yield group, row, size, f"{folder}/{name}" if folder else name


def read_columns(archive: str, file: Any, group: int, columns: list[str | None]) -> dict[str | None, list[Any]]:
    """Read some columns of a row group as lists."""
    if not columns:
        return {}
    return with_readable_errors(archive, lambda: file.read_row_group(group, columns=columns).to_pydict())


def label_name(label: Any, classes: tuple[str, ...]) -> str:
    """Return a label as a folder name; empty without a label."""
    if label is None:
        return ""
    has_name = type(label) is int and 0 <= label < len(classes)
    return str(classes[label] if has_name else label).replace("/", "-")


def find_columns(archive: str, schema: Any) -> Columns:
    """Find the image and label columns: by Hugging Face metadata, else by type and name.

    Raises:
        UserError: no column holds images.
    """
    arrow = require_pyarrow().types
    features = huggingface_features(schema.metadata or {})
    nested = [
        field.name for field in schema if arrow.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
    ]
    plain = [
        field.name
        for field in schema
        if field.name in IMAGE_COLUMNS and (arrow.is_binary(field.type) or arrow.is_large_binary(field.type))
    ]
    images = [name for name in nested if features.get(name, {}).get("_type") in ("Image", "Video")] or nested or plain
    if not images:
        raise UserError(
            f"{archive} has no image column and no video column among {', '.join(schema.names[:8])}: "
            "it needs a struct column of bytes and path, as Hugging Face datasets write it"
        )
    numbered = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    label = next(iter(numbered or [name for name in schema.names if name in LABEL_COLUMNS]), None)
    classes = features.get(label, {}).get("names", []) if label else []
    return Columns(images[0], images[0] in nested, label, tuple(map(str, classes)) if isinstance(classes, list) else ())


def huggingface_features(metadata: dict[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """Return the Hugging Face description of each column; empty if it is missing or malformed."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def read_row(archive: str, group: int, row: int) -> bytes:
    """Return an image's bytes; empty if the row has none.

    Raises:
        OSError: there is no such row.
    """
    with read_lock:
        cells = read_group(archive, file_version(archive), group)
    if row >= len(cells):
        raise OSError(0, f"row group {group} has no row {row}: the file has changed since it was listed")
    return cells[row].as_py() or b""


@functools.lru_cache(CACHED_GROUPS)
def read_group(archive: str, version: tuple[int, ...], group: int) -> Any:
    """Read the images of a row group. `version` is that of the file: a changed file is read again."""
    file = open_parquet(archive)
    image, nested, *_ = find_columns(archive, file.schema_arrow)
    try:
        column = file.read_row_group(group, columns=[f"{image}.bytes" if nested else image]).column(image)
    except (*damage_errors(), IndexError) as error:
        raise OSError(0, f"row group {group} cannot be read ({error})") from error
    cells = column.combine_chunks()
    return cells.field("bytes") if nested else cells


def open_parquet(archive: str) -> Any:
    """Open a file and read its schema.

    Raises:
        UserError: it is not a Parquet file, or pyarrow is missing.
    """
    return with_readable_errors(
        archive,
        lambda: require_pyarrow().parquet.ParquetFile(archive, memory_map=True, page_checksum_verification=True),
    )


def with_readable_errors(archive: str, function: Callable[[], Any]) -> Any:
    """Call `function` and return its result.

    Raises:
        UserError: pyarrow reports that the file is damaged.
    """
    try:
        return function()
    except damage_errors() as error:
        raise UserError(
            f"{archive} is not a complete Parquet file ({str(error).splitlines()[0]}): copy or create it again"
        ) from error


def damage_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that pyarrow raises on a damaged file."""
    return require_pyarrow().ArrowException, OSError, ValueError, UnicodeError


def require_pyarrow() -> ModuleType:
    """Import pyarrow, an optional dependency.

    Raises:
        UserError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
        import pyarrow.types
    except ImportError as error:
        raise UserError("reading Parquet files requires pyarrow: pip install 'openjepa[parquet]'") from error
    return pyarrow
