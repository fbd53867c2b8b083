"""Find files of the test data that are also training data, by their contents."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from openjepa.data.archives import member_size, parse_address, read_member

HASHED_BYTES = 2**24  # of a file, which is enough to tell files of the same size apart


def find_overlap(train: Iterable[str], test: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs (training file, test file) with the same contents, one for each test file.

    Only files whose size occurs in both parts are read. Windows of one recording, FILE#NUMBER, are not compared.
    """
    by_size: defaultdict[int, list[str]] = defaultdict(list)
    for path in train:
        by_size[size_of(path)].append(path)
    hashed: dict[int, dict[str, str]] = {}
    pairs = []
    for path in test:
        size = size_of(path)
        if size < 0 or size not in by_size:
            continue
        if size not in hashed:
            hashed[size] = {digest_of(each): each for each in by_size[size]}
        if same := hashed[size].get(digest_of(path)):
            pairs.append((same, path))
    return pairs


def size_of(path: str) -> int:
    """Return the size of a file or member; -1 of a window, or of a file that cannot be read."""
    if address := parse_address(path):
        return member_size(address)
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1


def digest_of(path: str) -> str:
    """Return a hash of the first bytes of a file or member."""
    try:
        if address := parse_address(path):
            content = read_member(address)[:HASHED_BYTES]
        else:
            with Path(path).open("rb") as stream:
                content = stream.read(HASHED_BYTES)
    except OSError:
        return path
    return hashlib.sha256(content).hexdigest()
