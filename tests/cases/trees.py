"""Random trees of files as they lie on disks, for every modality: names, folders, broken files, things beside them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image as Pillow

NAMES = [
    "a", "b", "IMG_0001", "scan 1", "x.y.z", "ünï", "猫", "[red]", "a[/b]", "$5_$10", "%d", "a&b<i>", "-o", "CON",
    "né\u0301", "very" * 20, "#1", "50%", "a;b", "'q'", '"dq"', "tab\tname", "new\nline", "\u202egpj", "~", "=1+1",
    "..x", "a|b", "\\back", "\udcff",
]  # fmt: skip

FOLDERS = [
    "cat",
    "dog",
    "Train",
    "test",
    "val",
    "2019",
    "images",
    "部屋",
    "[bold]x",
    "$x$",
    "a b",
    ".hidden",
    "__MACOSX",
]

BESIDE = {  # files that are no data
    ".DS_Store": b"\0\0\0\1Bud1", "Thumbs.db": b"x", "notes.txt": b"hello", "README": b"read me", "list.xml": b"<a/>",
    "model.zip": b"PK\3\4",
}  # fmt: skip


class Entry(NamedTuple):
    """One file of a tree: its path and its content."""

    path: str
    content: bytes


def image_bytes(rng: random.Random, folder: Path) -> tuple[str, bytes]:
    """Return the suffix and the bytes of a small picture, or of a broken or empty file."""
    kind = rng.choice(
        [".png", ".jpg", ".JPG", ".bmp", ".gif", ".npy", ".webp", ".tif", "gray", "deep", "broken", "empty"]
    )
    array = np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (rng.randint(1, 24), rng.randint(1, 24), 3))
    file = folder / "one"
    if kind == "empty":
        return ".jpg", b""
    if kind == "broken":
        return ".png", bytes(rng.getrandbits(8) for _ in range(rng.randint(1, 80)))
    if kind == ".npy":
        np.save(folder / "one.npy", array.astype(np.uint8))
        return kind, (folder / "one.npy").read_bytes()
    if kind == "deep":
        Pillow.fromarray((array[..., 0] * 16).astype(np.uint16)).save(file, "PNG")
        return ".png", file.read_bytes()
    picture = (
        Pillow.fromarray(array.astype(np.uint8)) if kind != "gray" else Pillow.fromarray(array[..., 0].astype("u1"))
    )
    names = {".jpg": "JPEG", ".JPG": "JPEG", ".tif": "TIFF", "gray": "PNG"}
    picture.save(file, names.get(kind, kind[1:].upper()))
    return ".png" if kind == "gray" else kind, file.read_bytes()


def series_bytes(rng: random.Random, folder: Path) -> tuple[str, bytes]:
    """Return the suffix and the bytes of a signal; some signals have gaps or are too short."""
    kind = rng.choice(["good", "good", "good", "gap", "short", "int"])
    values = np.random.default_rng(rng.getrandbits(32)).normal(size=(1, rng.randint(4, 15) if kind == "short" else 40))
    if kind == "gap":
        values[0, rng.randrange(40)] = np.nan
    file = folder / "one.npy"
    np.save(file, values.astype(np.int16) if kind == "int" else values.astype(np.float32))
    return ".npy", file.read_bytes()


def video_bytes(rng: random.Random, folder: Path) -> tuple[str, bytes]:
    """Return the suffix and the bytes of a clip; some have one frame, no color, or are not readable."""
    kind = rng.choice(["good", "good", "good", "gif", "one frame", "gray", "float", "broken"])
    clip = np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (rng.randint(2, 9), 12, 16, 3), np.uint8)
    if kind == "broken":
        return ".mp4", b"\0\0\0\x18ftypisom" + bytes(rng.getrandbits(8) for _ in range(rng.randint(1, 80)))
    if kind == "gif":
        frames = [Pillow.fromarray(frame) for frame in clip]
        frames[0].save(folder / "one.gif", save_all=True, append_images=frames[1:])
        return ".gif", (folder / "one.gif").read_bytes()
    values = {"one frame": clip[:1], "gray": clip[..., 0], "float": clip / 255.0}.get(kind, clip)
    np.save(folder / "one.npy", values)
    return ".npy", (folder / "one.npy").read_bytes()


WRITERS: dict[str, Callable[[random.Random, Path], tuple[str, bytes]]] = {
    "image": image_bytes, "series": series_bytes, "video": video_bytes,
}  # fmt: skip


def random_tree(modality: str, seed: int, work: Path) -> list[Entry]:
    """Return the files of a random tree: with or without splits and classes, and with things beside them."""
    rng = random.Random(seed)
    depth, write = rng.randint(0, 3), WRITERS[modality]
    folders = ["/".join(rng.choice(FOLDERS) for _ in range(rng.randint(0, depth))) for _ in range(rng.randint(1, 6))]
    entries: dict[str, bytes] = {}
    for number in range(rng.randint(1, 24)):
        suffix, content = write(rng, work)
        name = rng.choice(NAMES) if rng.random() < 0.6 else f"{number:03d}"
        entries[f"{rng.choice(folders)}/{name}{suffix}".lstrip("/")] = content
    for name, content in BESIDE.items():
        if rng.random() < 0.3:
            entries[f"{rng.choice(folders)}/{name}".lstrip("/")] = content
    return [Entry(path, content) for path, content in entries.items()]


def write_tree(root: Path, entries: list[Entry], order: int) -> None:
    """Write the files in a random order."""
    root.mkdir(parents=True)
    for entry in random.Random(order).sample(entries, len(entries)):
        file = root / entry.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(entry.content)
