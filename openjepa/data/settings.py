"""Settings of `jepa shards` and `jepa labels`; without torch, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass

from openjepa.core.arguments import Folder, OptionalFolders, Output


@dataclass(frozen=True)
class Shards:
    """Pack the images of a folder or of other archives into tar files.

    Run the same command again to resume after an interruption.
    """

    root: Folder  # folder, .txt file of paths, .tar or .parquet file
    out: Output  # output folder OUT, for OUT-000000.tar, OUT-000001.tar, …
    size: int = 0  # resize larger images to this shorter side in pixels and store them as JPEG; 0: copy files unchanged
    quality: int = 95  # JPEG quality of resized images, 1 to 100
    samples: int = 1000  # images per tar file
    workers: int = -1  # processes; -1: one per core


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Describe labeled data: classes, splits, how they were found, what is left out and why, and what looks wrong.

    probe, compare and suite use the same description.

    Example: jepa labels photos/ --labels photos.csv --label species --group animal
    """

    folder: OptionalFolders = ()  # folders, archives or lists of paths; none with --train and --test
    labels: str = "auto"  # a table of labels: .csv, .json, .jsonl or .parquet; auto: what is found; folders: no table
    label: str = ""  # column of classes in that table
    group: str = ""  # its column of subjects, patients …, for --data.split groups
    pattern: str = ""  # regular expression whose first group is the class in a file's path, e.g. '^([a-z]+)_'
    class_depth: int = 1  # which folder is the class: 1 the first one below FOLDER, train/ or test/; 2 the one below
    train: tuple[str, ...] = ()  # folders of training data, in place of FOLDER; with --test
    test: tuple[str, ...] = ()  # folders of test data
    modality: str = ""  # of the files; default: as the files tell
    count: int = 20  # classes to print
