"""Settings of the commands, whose comments are their --help; without torch, so that --help is quick.

Those that other rooms use, too, are in data/, recipes/, evaluation/ and viz/settings.py, those of a run in training/.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from openjepa.core.arguments import Exported, Features, Folder, Folders, Images, Repository, Run, Runs, Source
from openjepa.core.options import FLOW_STEPS, Box, EvalCrop, ExportFormat, FeatureKind, Precision
from openjepa.core.registry import summaries
from openjepa.data.settings import Labels, Shards
from openjepa.evaluation.settings import Anomalies, Equivariance, Flow, Horizon, ProbeSettings, Search, Surprise
from openjepa.planning.settings import Collect, Diagnose, Plan
from openjepa.recipes.settings import TrainDecoder
from openjepa.viz.settings import Explore, FigureOptions


@dataclass(frozen=True)
class Doctor:
    """Checks every image, video or recording of a folder: damaged files, duplicates, odd sizes and formats."""

    root: Folders  # folders, archives, or text files of paths
    modality: str = ""  # image, video or audio; empty: from the files
    out: Path = Path("runs/doctor")  # folder for doctor.json, which names every file, and the histograms doctor.png
    workers: int = -1  # processes; -1: one per core
    near_duplicates: bool = True  # also look for near duplicates
    channels: int = 0  # as --data.channels of the run; 0: as jepa pretrain chooses: 1 if all are gray, of .npy its own


DemoName = Annotated[str, Positional, arg(metavar="DEMO", help=summaries("demo"))]


@dataclass(frozen=True)
class Demo:
    """Generate data, pretrain on it without labels, and measure what was learned: a table and a figure."""

    name: DemoName = "scenes"
    out: Path = Path("demo")  # folder for the data, the run, demo.json and the figure
    samples: int = 0  # for pretraining, without labels; 0: the demo's own (scenes 8,000, video 12,000)
    labeled: int = 0  # of these samples, with labels, to train the probes; 0: the demo's own
    test: int = 0  # held-out samples, in rooms tasks; 0: the demo's own
    epochs: float = 0.0  # passes through the samples, in rooms a factor of the steps; 0: the demo's own
    budget: str = ""  # time limit of pretraining, such as 12m; empty: the demo's own, in rooms none
    seed: int = 0

    def with_defaults(self, defaults: dict[str, Any]) -> Demo:
        """Return the settings with a demo's own values where none is given."""
        return dataclasses.replace(self, **{name: getattr(self, name) or value for name, value in defaults.items()})


@dataclass(frozen=True, kw_only=True)
class Probe(ProbeSettings):
    """Measure a frozen encoder on labeled images: probes' scores with 95 % intervals, next to baselines.

    Example: jepa probe runs/photos --data.root labeled/ --probes logistic knn
    """

    run: Run  # run folder, export, Hugging Face folder, hf:REPOSITORY, or module:function that returns an encoder
    # also measure the encoder before training, raw pixels as features, and of video clips without motion or order
    baselines: bool = True
    out: Path | None = None  # folder of the results; default: RUN/probes


@dataclass(frozen=True, kw_only=True)
class Compare(ProbeSettings):
    """Measure several frozen encoders on the same labeled images, in one table with raw pixels as the baseline.

    Example: jepa compare runs/a runs/b hf:facebook/dinov2-small --data.root labeled/
    """

    runs: Runs  # run folders, exports, Hugging Face folders, hf:REPOSITORY, or module:function
    out: Path = Path("comparison")  # folder of the results


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Measure an encoder on every task of a suite, next to baselines. Resumes after an interruption.

    small: CIFAR-10 and rendered scenes (count, distance, kind of objects; depth and shape per patch). paper: the frozen
    evaluations of I-JEPA's tables 1 to 4. Tasks without a folder are skipped.

    Example: jepa suite runs/photos --folders cifar10=data/cifar10
    """

    run: Run  # run folder, export, Hugging Face folder, hf:REPOSITORY, or module:function that returns an encoder
    suite: Literal["small", "paper"] = "small"  # set of tasks
    folders: tuple[str, ...] = ()  # NAME=FOLDER for each task that needs data, e.g. cifar10=data/cifar10
    # name of the encoder; default: the method's first one, of a JEPA target: EMA encoder, as in the paper
    encoder: str = ""
    out: Path | None = None  # folder of the results; default: RUN/suite
    seed: int = 0  # seed of splits, scenes and probes
    device: str = "auto"  # cpu, cuda, cuda:1, mps; auto: the fastest available
    precision: Precision = "auto"  # auto: bf16 where the hardware multiplies it natively, else fp32


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Classify images with the logistic regression that `jepa probe` trained and saved.

    Example: jepa probe runs/photos --data.root labeled/ and then jepa predict runs/photos new/ --out predictions.csv
    """

    run: Run  # run folder, export, or weights of another project
    images: Folder  # image, folder of images, .tar or .parquet file, or .txt list of paths
    head: Path | None = None  # classifier saved by jepa probe; default: the only one in RUN/probes
    out: Path | None = None  # .csv file for all predictions: the three most likely classes and their probabilities
    # name of the encoder; default: the method's first one, of a JEPA target: EMA encoder, as in the paper
    encoder: str = ""
    # crop: largest centered square; margin: its middle 7/8; squash: whole image, aspect ratio changed
    eval_crop: EvalCrop = "crop"
    device: str = "auto"  # cpu, cuda, cuda:1, mps; auto: the fastest available
    precision: Precision = "auto"  # auto: bf16 where the hardware multiplies it natively, else fp32


@dataclass(frozen=True, kw_only=True)
class Show(FigureOptions):
    """Draw masks, features, similarity and, if the run has a predictor, its predictions, on one page.

    One figure with more settings: jepa show masks|features|similarity|track|prediction|imagine|map|spectrum RUN FILES.
    Of a run's log: jepa show curves RUN. Of a world model of rooms: jepa show plan|value|levels RUN.
    """


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write one HTML page about a run: curves, probes, figures, throughput, warnings, settings. Self-contained."""

    runs: Runs
    out: Path | None = None  # .html file to write; by default RUN/report.html, for several runs ./report.html
    pictures: bool = True  # draw masks, features, predictions, neighbors and spectrum on images of the training data


@dataclass(frozen=True, kw_only=True)
class SampleDecoder:
    """Sample images several times from what a representation contains of them.

    What all samples of an image share is in the representation; what differs between them is not.

    Example: jepa decoder sample runs/photos/decoder photos/ --count 6
    """

    decoder: Run  # folder of a decoder, trained with jepa decoder train
    images: Images = ()  # images or folders of images; default: the decoder's training images
    count: int = 6  # number of images
    samples: int = 6  # samples per image, 1 to 32
    # block to sample: left, top, right, bottom as fractions from 0 to 1; only for a decoder trained with --condition
    # prediction; default: a random block
    box: Box | None = None
    steps: int = FLOW_STEPS  # integration steps of the flow; fewer are faster but less exact
    seed: int = 0  # seed of the noise and of the random blocks
    device: str = "auto"  # cpu, cuda, cuda:1, mps; auto: the fastest available
    precision: Precision = "auto"  # auto: bf16 where the hardware multiplies it natively, else fp32
    out: Path | None = None  # path of the .png figure; default: DECODER/figures/samples.png


@dataclass(frozen=True, kw_only=True)
class MeasureDecoder:
    """Measure whether samples agree with the features they were sampled from, next to a control that should not.

    Samples each image once, encodes the sample, and looks for the most similar image among all. The control is a
    sample from another image's features.

    Example: jepa decoder measure runs/photos/decoder new-photos/
    """

    decoder: Run  # folder of a decoder, trained with jepa decoder train
    images: Images = ()  # images that the decoder was not trained on; default: its training images
    count: int = 256  # number of images; chance is 1 / count
    steps: int = FLOW_STEPS  # integration steps of the flow; fewer are faster but less exact
    seed: int = 0  # seed of the noise and of the control
    device: str = "auto"  # cpu, cuda, cuda:1, mps; auto: the fastest available
    precision: Precision = "auto"  # auto: bf16 where the hardware multiplies it natively, else fp32


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Write an index: a row of features for every image, clip or signal. The same call resumes after an interruption.

    Files that cannot be decoded get a row of NaN. Next to a .safetensors or .npy file, a CSV file lists the file and
    its folder for each row. Under torchrun the ranks share the work.

    Example: jepa embed runs/photos photos/ --out photos.safetensors
    """

    run: Run  # run folder, export, Hugging Face folder, hf:REPOSITORY, or module:function that returns an encoder
    data: Folder  # folder of files (with or without sub-folders), .tar or .parquet file, or .txt list of paths
    out: Path  # a .safetensors, .npy or .parquet file; rows are in the order of the paths
    # last: mean over the patches of the last layer; last4: last four layers concatenated; patches: all, in raster order
    features: FeatureKind = "last"
    # name of the encoder; default: the method's first one, of a JEPA target: EMA encoder, as in the paper
    encoder: str = ""
    # crop: largest centered square; margin: its middle 7/8; squash: whole image, aspect ratio changed
    eval_crop: EvalCrop = "crop"
    eval_clips: int = 0  # video, audio: clips of each file, evenly spaced, that are averaged; 0: as the run
    every: float = 0.0  # video, audio: a row every so many seconds of a file, named FILE#t=SECONDS; 0: one a file
    batch: int = 256  # samples per forward pass; lower it if memory runs out
    device: str = "auto"  # cpu, cuda, cuda:1, mps; auto: the fastest available
    precision: Precision = "auto"  # auto: bf16 where the hardware multiplies it natively, else fp32


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Find groups of nearly identical files in an index. Deletes nothing.

    Writes a CSV file of the groups and a figure of pairs around the threshold, from which to adjust it.

    Example: jepa duplicates photos.safetensors --threshold 0.85
    """

    index: Features  # index written by jepa embed, with one vector per file
    threshold: float = 0.85  # cosine of whitened features from which two files count as duplicates
    out: Path | None = None  # path of the CSV and PNG without suffix; default: INDEX-duplicates next to the index


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Cluster the files of an index by k-means; if they are in class folders, measure the agreement.

    Writes a CSV file with each file's cluster, and a page with the files nearest each center.

    Example: jepa cluster photos.safetensors --clusters 20
             jepa cluster level1.safetensors --sub-clusters 3 --sub-features level2.safetensors
    """

    index: Features  # index written by jepa embed, with one vector per file
    clusters: int = 0  # number of clusters; 0 = the number of class folders or, without them, sqrt(files / 2)
    sub_clusters: int = 0  # divide each cluster into so many again; 0: do not
    # index of other features of the same files, by which clusters are divided, such as those of S-JEA's level 2
    sub_features: Path | None = None
    seed: int = 0  # seed of k-means
    out: Path | None = None  # path of the CSV and HTML without suffix; default: INDEX-clusters next to the index


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write an encoder for other tools, with a model card."""

    run: Run  # a run, an export, or weights of another project, as for jepa convert
    format: ExportFormat = "hf"  # torch: a torch.export program; official: the *.pth.tar layout of the I-JEPA authors
    out: Path | None = None  # the folder to create; default: RUN/FORMAT
    # name of the encoder; default: the method's first one, of a JEPA target: EMA encoder, as in the paper
    encoder: str = ""
    head: Path | None = None  # a classifier to include (format hf): RUN/probes/NAME-head.safetensors
    license: str = ""  # license of your own weights, such as apache-2.0; converted weights keep theirs


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Convert weights of another project into a folder that every command reads, also --init-from."""

    source: Source  # official *.pth.tar; a folder of Hugging Face or timm; hf:ID; *.safetensors
    out: Path  # the folder to create
    num_heads: int = 0  # attention heads; 0: from the config beside the weights, or as in the paper's models
    license: str = ""  # license of the weights, if their source states none; the released weights are cc-by-nc-4.0


@dataclass(frozen=True, kw_only=True)
class Push:
    """Upload an exported folder to a repository on the Hugging Face hub. Log in first: hf auth login."""

    folder: Exported  # a folder that jepa export wrote
    repository: Repository  # NAME/REPOSITORY; created if it does not exist
    private: bool = False  # create a private repository


SETTINGS: dict[str, type] = {
    "collect": Collect,
    "demo": Demo,
    "doctor": Doctor,
    "labels": Labels,
    "shards": Shards,
    "probe": Probe,
    "compare": Compare,
    "suite": Suite,
    "predict": Predict,
    "report": Report,
    "explore": Explore,
    "embed": Embed,
    "search": Search,
    "duplicates": Duplicates,
    "cluster": Cluster,
    "anomalies": Anomalies,
    "surprise": Surprise,
    "horizon": Horizon,
    "equivariance": Equivariance,
    "flow": Flow,
    "plan": Plan,
    "diagnose": Diagnose,
    "export": Export,
    "convert": Convert,
    "push": Push,
}
DECODER_ACTIONS: dict[str, type] = {"train": TrainDecoder, "sample": SampleDecoder, "measure": MeasureDecoder}
