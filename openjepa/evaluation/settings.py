"""Settings of labeled data, probes and search; without torch, so that --help is quick."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from openjepa.core.arguments import Features, FirstFrame, Folder, Query, Run, SecondFrame, Videos
from openjepa.core.fileio import check_roots
from openjepa.core.options import Box, EvalCrop, PooledKind, Precision
from openjepa.evaluation.probes.finetune_recipes import FinetuneRecipeName
from openjepa.evaluation.probes.linear_recipes import LinearRecipeName

LABEL_TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet")  # endings of tables of labels

SplitName = Literal["auto", "random", "k-fold", "groups", "time-blocks"]


@dataclass(frozen=True)
class LabeledData:
    """Labeled data: folders or a table of classes, a CLEVR_v1.0 folder, or rendered scenes. See jepa labels."""

    # folder with one sub-folder per class, or with train/ and test/ (or val/) that contain such sub-folders
    root: tuple[str, ...] = ()
    # auto: what is found in root, see jepa labels; folders: sub-folder names alone; FILE: a .csv, .json, .jsonl or
    # .parquet with a row for each file; clevr-count, clevr-dist: root is a CLEVR_v1.0 folder; scenes-count,
    # scenes-distance, scenes-kind: rendered images, need no root; moving-direction, moving-speed, moving-hit,
    # moving-reversed, moving-count: rendered clips, need no root; sounds-pitch, sounds-rhythm, sounds-rising,
    # sounds-sources: generated sounds, need no root; video-reversed: whether a clip runs backwards, by
    # files; series-hour: hour of the day at which a segment of a .csv file with dates starts, in blocks of time
    labels: Annotated[str, arg(aliases=["--labels"])] = "auto"
    # crop: largest centered square; margin: its middle 7/8, as 256 -> 224; squash: whole image, aspect ratio changed
    eval_crop: EvalCrop = "crop"
    eval_clips: int = 0  # video, audio: clips of each file, evenly spaced, that are averaged; 0: as the run
    # auto: the test folder, else a random fifth; k-fold: every sample is tested once, in folds with the same classes;
    # groups: the same, folds hold whole groups (subjects, recordings); time-blocks: folds are contiguous in time
    split: SplitName = "auto"
    folds: int = 5  # folds of k-fold, groups and time-blocks
    gap: int = 1  # of time-blocks: samples left out of training on each side of a test block, so that none overlaps it
    train: tuple[str, ...] = ()  # folders of training data, in place of root; with --data.test
    test: tuple[str, ...] = ()  # folders of test data
    label: Annotated[str, arg(aliases=["--label"])] = ""  # column of classes in the table of --data.labels
    group: Annotated[str, arg(aliases=["--group"])] = ""  # its column of subjects, patients …, for --data.split groups
    # regular expression whose first group is the class in a file's path, e.g. '^([a-z]+)_' for cat_001.jpg
    pattern: Annotated[str, arg(aliases=["--pattern"])] = ""
    class_depth: int = 1  # which folder is the class: 1 the first one below root, train/ or test/; 2 the one below

    def __post_init__(self):
        check_roots((*self.root, *self.train, *self.test))

    @property
    def name(self) -> str:
        """Return the name of the data in results: folders, column or table of labels or the task, groups, split."""
        if not self.has_classes:
            return "-".join([self.labels, *self.split_names])
        folders = [base_name(root) for root in self.root or self.test]
        name = "+".join(folders if len(folders) <= 3 else [folders[0], f"{len(folders) - 1} more"]) or "data"
        table = [] if self.labels in ("auto", "folders") else [self.label or Path(self.labels).stem]
        return "-".join([name, *table, *self.split_names])

    @property
    def split_names(self) -> list[str]:
        """Return how the test data are chosen, if it was said: results of one split do not replace another's."""
        groups = [f"by-{self.group}"] if self.group else []
        if self.split == "auto":
            return groups
        return [*groups, self.split if self.folds == type(self).folds else f"{self.split}-{self.folds}"]

    @property
    def has_classes(self) -> bool:
        """Return whether the labels are classes of files: not those of a task with a rule of its own."""
        return self.labels in ("auto", "folders") or Path(self.labels).suffix.lower() in LABEL_TABLES


def base_name(root: str) -> str:
    """Return the last part of a path, also of `.`, `..` and of one that ends with a slash."""
    return os.path.basename(os.path.abspath(os.path.expanduser(root)))  # noqa: PTH100, PTH111, PTH119


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """What to measure an encoder with."""

    data: LabeledData = dataclasses.field(default_factory=LabeledData)
    # logistic, linear (sweep of heads, as the paper), knn: frozen, pooled features; lowshot: logistic with few labels;
    # attentive: learned pooling of patch tokens; finetune: trains the whole encoder (slow); ridge: real-valued targets
    probes: tuple[str, ...] = ("logistic", "linear", "knn")
    augment: bool = False  # train linear and attentive heads on random crops and flips; slower, as in the paper
    linear: LinearRecipeName = "default"  # recipe of the linear probe: optimizer, schedule and sweep; default is fast
    finetune: FinetuneRecipeName = "default"  # recipe of the finetune probe; lowshot: with the few labels of --shots
    # input of logistic, knn and lowshot: pooled tokens of the last layer, or of the last four layers, concatenated
    features: PooledKind = "last"
    shots: tuple[float, ...] = (1.0, 10.0)  # labels per class for lowshot and --finetune lowshot; below 1: a fraction
    repeats: int = 5  # random subsets of labels per number of shots
    # name of the encoder; default: the method's first one, of a JEPA target: EMA encoder, as in the paper
    encoder: str = ""
    cache: Path | None = None  # folder in which features are stored and reused; required under torchrun
    seed: int = 0  # seed of the held-out split, the validation split and the heads
    device: str = "auto"  # cpu, cuda, cuda:1, mps; auto: the fastest available
    precision: Precision = "auto"  # auto: bf16 where the hardware multiplies it natively, else fp32


@dataclass(frozen=True, kw_only=True)
class Search:
    """Find the files of an index that are most similar to one. Prints a table; writes a contact sheet and a page."""

    index: Features  # index written by jepa embed
    query: Query  # an image, a clip …, or row:17 for the file in row 17 of the index (counted from 0)
    box: Box | None = None  # search with a part of the query: left, top, right, bottom as fractions from 0 to 1
    count: int = 12  # number of files to find
    whiten: bool = True  # whiten the features before comparing them, which improves the matches
    exact: bool = False  # compare with every row; default: exact up to 200,000 rows, approximate above (needs faiss)
    run: str = ""  # encoder that made the index, if it has moved since
    out: Path | None = None  # path of the PNG and HTML files without suffix; default: INDEX-search next to the index
    page: bool = True  # write an HTML page on which a click on an image searches with it


@dataclass(frozen=True, kw_only=True)
class Surprise:
    """Measure when a video does what a run's predictor does not expect, and list the most surprising moments.

    A window slides over each file; each time step is predicted from those before. Choose a window twice as long as the
    event to look for (--stride, --fps): in a shorter one the end of the event is a surprise, too. Writes a CSV file
    with the error of every time step, and a figure, for each file.

    Example: jepa surprise runs/clips street.mp4 --count 10
    """

    run: Run  # folder of a run that was trained on video
    files: Videos  # video files, or folders of frames
    count: int = 5  # moments to list for each file, at least a second apart
    context: int = 0  # visible time steps of a window; 0: three quarters of it
    fps: float = 0.0  # frames per second of a window; 0: as the run
    stride: int = 0  # frames of the file from one frame of a window to the next, if there is no --fps; 0: as the run
    out: Path | None = None  # folder of the CSV files and figures; default: RUN/surprise
    device: str = "auto"  # cpu, cuda, cuda:1, mps; auto: the fastest available
    precision: Precision = "auto"  # auto: bf16 where the hardware multiplies it natively, else fp32


@dataclass(frozen=True, kw_only=True)
class Anomalies:
    """Score how much files differ from normal ones, and list the most unusual: faults of machines, defects, errors.

    Two scores: how far the features lie from those of normal files (Mahalanobis distance), and how badly the run
    predicts the hardest of all hidden parts of a file; an encoder without a predictor has the first alone. Writes a CSV
    file and a figure.

    Example: jepa anomalies runs/pumps this-week/ --normal known-good/
             jepa anomalies runs/pumps test/ --normal known-good/ --good ok
    """

    run: Run  # run folder, export, Hugging Face folder, hf:REPOSITORY, or module:function that returns an encoder
    files: Folder  # folder of files to score, .tar or .parquet file, or .txt list of paths
    normal: tuple[str, ...] = ()  # folders of normal files; default: those that the run was trained on
    # class of normal files, if the files have classes (sub-folders, or a table of labels): prints how well each score
    # tells them from the other files, beside features without an encoder
    good: str = ""
    count: int = 12  # files to list and to draw
    # name of the encoder; default: the method's first one, of a JEPA target: EMA encoder, as in the paper
    encoder: str = ""
    out: Path | None = None  # path of the CSV and PNG files without suffix; default: RUN/anomalies/FILES
    device: str = "auto"  # cpu, cuda, cuda:1, mps; auto: the fastest available
    precision: Precision = "auto"  # auto: bf16 where the hardware multiplies it natively, else fp32


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """Measure how far ahead a run's predictor knows the features of clips, beside persistence and the mean.

    The first time steps of a clip are visible. The others are predicted at once, and one after another from the
    predictions before. Writes a JSON file and a figure.

    Example: jepa horizon runs/clips clips/ --context 2
    """

    run: Run  # folder of a run that was trained on video
    clips: Folder  # folder of videos
    count: int = 64  # clips to measure, evenly spaced in the listing
    context: int = 0  # visible time steps; 0: half of them
    fps: float = 0.0  # frames per second of a clip; 0: as the run
    stride: int = 0  # frames of the file from one frame of a clip to the next, if there is no --fps; 0: as the run
    out: Path | None = None  # path of the JSON and PNG files without suffix; default: RUN/horizon
    device: str = "auto"  # cpu, cuda, cuda:1, mps; auto: the fastest available
    precision: Precision = "auto"  # auto: bf16 where the hardware multiplies it natively, else fp32


@dataclass(frozen=True, kw_only=True)
class Equivariance:
    """Measure whether an image world model knows what a change of color does to features.

    From a clean image and an action, the predictor imagines the features of the changed image. Their rank among the
    true features of many changed images gives the mean reciprocal rank (MRR): 1 is perfect; chance is printed beside
    it. Writes a JSON file.

    Example: jepa equivariance runs/iwm photos/
    """

    run: Run  # folder of a run of --method iwm
    images: Folder  # folder of images
    count: int = 64  # images to measure, evenly spaced in the listing
    candidates: int = 256  # changed versions of each image among which the right one is searched; 256 as in the paper
    seed: int = 0  # of the changes
    out: Path | None = None  # path of the JSON file; default: RUN/equivariance.json
    device: str = "auto"  # cpu, cuda, cuda:1, mps; auto: the fastest available
    precision: Precision = "auto"  # auto: bf16 where the hardware multiplies it natively, else fp32


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Estimate the optical flow between two frames with a run of --method mc-jepa.

    Writes a flow file and a picture in colors: hue is direction, saturation is length. With the true flow it prints the
    mean end-point error, beside that of no motion.

    Example: jepa flow runs/motion frame10.png frame11.png --truth flow10.flo
    """

    run: Run  # folder of a run of --method mc-jepa
    first: FirstFrame  # image
    second: SecondFrame  # image of the same size
    truth: Path | None = None  # true flow from the first to the second frame: .flo, or .png of 16 bits as in KITTI
    out: Path | None = None  # flow file to write, .flo or .png; default: RUN/flow/FIRST.flo
    device: str = "auto"  # cpu, cuda, cuda:1, mps; auto: the fastest available
    precision: Precision = "auto"  # auto: bf16 where the hardware multiplies it natively, else fp32
