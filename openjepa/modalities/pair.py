"""Two modalities of the same events, such as lips and sound.   B batch  N tokens  E raw token width"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Annotated, Any, ClassVar

from jaxtyping import Int
from torch import Tensor
from tyro.conf import Suppress

from openjepa.core.capabilities import CountsFlops, DecodesFiles, Describes, Measures
from openjepa.core.config import Registered
from openjepa.core.errors import UserError
from openjepa.core.fileio import expand_home
from openjepa.core.protocols import Dataset, Tokenizer
from openjepa.core.rng import CounterRNG
from openjepa.core.types import FileList, Layout, Samples, Tokens
from openjepa.data.path_list import read_text
from openjepa.modalities.audio import Audio
from openjepa.modalities.image import Image

COLUMNS = ("first", "second")  # of a table of pairs


@dataclass(frozen=True)
class Pair:
    """Pairs of two modalities: the first is encoded, the second is what a frozen teacher sees.

    The settings of each modality are those of `first` and `second`, which recipes and Python set. Encoders are measured
    and used on the first one alone.
    """

    # no files mean pairs by themselves: name them with --modality pair
    suffixes: ClassVar = ()
    arrays: ClassVar = ()
    archives: ClassVar = False
    plural: ClassVar[str] = "pairs"

    # a folder of the first modality and one of the second, paired by the names of files; one folder, if both read the
    # same files, such as pictures and sound of videos; or a .csv table with columns first and second
    root: tuple[str, ...] = ()
    first: Annotated[Any, Registered("modality"), Suppress] = field(default_factory=Image)
    second: Annotated[Any, Registered("modality"), Suppress] = field(default_factory=Audio)

    def __post_init__(self):
        if len(self.root) > 2:
            raise UserError(f"--data.root of pairs takes one or two folders, or a table, got {len(self.root)}")

    @property
    def layout(self) -> Layout:
        return self.first.layout

    @property
    def token_dim(self) -> int:
        return self.first.token_dim

    def listing(self) -> FileList:
        """List the files of the first modality that have a partner. Raises UserError if none has."""
        first, second = self.listings()
        fingerprint = partial(pair_fingerprint, first, second)
        return replace(first, known_fingerprint=fingerprint, earlier=None, roots=self.root)

    def listings(self) -> tuple[FileList, FileList]:
        """Return the files of both modalities, partners at the same position."""
        if not self.root:
            raise UserError("no data given: name two folders, or a table of pairs, with --data.root")
        if Path(self.root[0]).suffix.lower() == ".csv":
            columns = read_pairs(expand_home(self.root[0]))
            return tuple(FileList(paths, partial(list_fingerprint, side, paths)) for side, paths in
                         zip((self.first, self.second), columns, strict=True))  # type: ignore[return-value] # fmt: skip
        first = replace(self.first, root=self.root[:1]).listing()
        second = replace(self.second, root=self.root[-1:]).listing()
        return pair_by_name(first, second)

    def dataset(self, source: FileList, cache: Path | None = None) -> PairedDataset:
        """Open the pairs of a list of files."""
        first, second = self.listings()
        sides = self.first.dataset(first, cache), self.second.dataset(second, cache)
        cls = PairedFiles if any(isinstance(side, DecodesFiles) for side in sides) else PairedDataset
        return cls(*sides, source.known_fingerprint)

    def synthetic(self, size: int, seed: int) -> Dataset:
        """Generate samples of both modalities; their labels are those of the first, and not alike."""
        sides = self.first.synthetic(size, seed), self.second.synthetic(size, seed)
        return PairedDataset(*sides, f"{sides[0].fingerprint}-{sides[1].fingerprint}")

    def tokens(self, view: Any) -> Tokens:
        """Cut a view of the first modality into tokens."""
        return self.first.tokens(view)

    def tokenizer(self, dim: int) -> Tokenizer:
        return self.first.tokenizer(dim)

    def tokenizer_flops(self, dim: int) -> int:
        return self.first.tokenizer_flops(dim) if isinstance(self.first, CountsFlops) else 0

    def single(self) -> Any:
        """Return the first modality."""
        return self.first

    @property
    def statistics(self) -> dict[str, Any]:
        return self.first.statistics if isinstance(self.first, Measures) else {}

    def measure(self, data: Dataset) -> Pair:
        """Return the modality with the statistics of both sides."""
        assert isinstance(data, PairedDataset)
        first, second = (
            side.measure(own) if isinstance(side, Measures) else side
            for side, own in ((self.first, data.first), (self.second, data.second))
        )
        return self if (first, second) == (self.first, self.second) else replace(self, first=first, second=second)

    def describe(self) -> str:
        return " with ".join(side.describe() for side in (self.first, self.second) if isinstance(side, Describes))


class PairedDataset:
    """Samples of two data sets, partners at the same index: training views of the first, fixed ones of the second."""

    def __init__(self, first: Dataset, second: Dataset, fingerprint: Any):
        self.first, self.second, self.known_fingerprint = first, second, fingerprint
        if len(first) != len(second):
            raise UserError(f"the two sides have {len(first)} and {len(second)} samples: set no `every` for pairs")

    @property
    def fingerprint(self) -> str:
        return self.known_fingerprint if isinstance(self.known_fingerprint, str) else self.known_fingerprint()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.first.classes

    def __len__(self) -> int:
        return len(self.first)

    def source(self, index: int) -> str:
        return self.first.source(index)

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        """Load pairs for training; without `rng`, evaluation views of the first modality alone."""
        samples = self.first.read(index, rng)
        if rng is None:
            return samples
        other = self.second.read(index, None)
        return samples._replace(views=(samples.views[0], other.views[0]), skipped=(*samples.skipped, *other.skipped))


class PairedFiles(PairedDataset):
    """Pairs that are decoded from files."""

    decodes_files: ClassVar[bool] = True


def pair_by_name(first: FileList, second: FileList) -> tuple[FileList, FileList]:
    """Keep the files that both lists have under the same name, without its ending, below their folders.

    Raises UserError without any, or if a name is not unique.
    """
    names = [unique_names(files) for files in (first, second)]
    shared = [name for name in names[0] if name in names[1]]
    if not shared:
        raise UserError(
            f"no file of {first.roots[0]} has the name of one of {second.roots[0]}: call partners alike, as in "
            "lips/a.mp4 and sounds/a.wav, or give a table with columns first,second"
        )
    return tuple(  # type: ignore[return-value]
        replace(files, paths=[own[name] for name in shared], labels=(), groups=())
        for files, own in zip((first, second), names, strict=True)
    )


def unique_names(files: FileList) -> dict[str, str]:
    """Return the files by their names below the root, without endings. Raises UserError if two have the same."""
    root, names = expand_home(files.roots[0]), dict[str, str]()
    for path in files.paths:
        name = str(PurePath(path).relative_to(root).with_suffix("")) if PurePath(path).is_relative_to(root) else path
        if names.setdefault(name, path) != path:
            raise UserError(f"{names[name]} and {path} have the same name, so a partner has two: rename one")
    return names


def read_pairs(file: Path) -> tuple[list[str], list[str]]:
    """Return the columns of a table of pairs, as paths. Raises UserError if a column or a file is missing."""
    rows = list(csv.DictReader(read_text(file).splitlines()))
    if not rows or not set(COLUMNS) <= rows[0].keys():
        raise UserError(f"{file} must have a header with the columns first and second, and a line for each pair")
    columns = tuple([str(file.parent / expand_home(row[name] or "")) for row in rows] for name in COLUMNS)
    for path in (*columns[0], *columns[1]):
        if not Path(path).exists():
            raise UserError(f"{file} names {path}, which does not exist: correct the path or remove the line")
    return columns  # type: ignore[return-value]


def list_fingerprint(modality: Any, paths: list[str]) -> str:
    """Return a hash of the contents of listed files, in their order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(replace(modality, root=(path,)).listing().fingerprint.encode())
    return digest.hexdigest()[:32]


def pair_fingerprint(first: FileList, second: FileList) -> str:
    """Return a hash of both lists and of the pairs that they form."""
    names = "\0".join(PurePath(path).name for path in (*first.paths, *second.paths))
    text = f"{first.fingerprint}\0{second.fingerprint}\0{names}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
