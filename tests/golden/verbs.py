"""Results of one small run: features, probes, search, figures, exports, masks; and a run of format 1, resumed."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image as Pillow
from safetensors.torch import load_file

from openjepa.cli.cluster import cluster
from openjepa.cli.convert import convert
from openjepa.cli.decoder import measure_decoder
from openjepa.cli.duplicates import duplicates
from openjepa.cli.embed import embed
from openjepa.cli.export import export
from openjepa.cli.predict import predict
from openjepa.cli.pretrain import pretrain
from openjepa.cli.probe import probe
from openjepa.cli.search import search
from openjepa.cli.settings import Cluster, Convert, Duplicates, Embed, Export, MeasureDecoder, Predict, Probe
from openjepa.core.rng import CounterRNG, epoch_order
from openjepa.core.types import Layout, Masks
from openjepa.data.loader import Steps
from openjepa.data.synthetic.scenes import render
from openjepa.evaluation.decoder import decoder_conditions, decoder_mask, sample_images
from openjepa.evaluation.decoder import load_decoder as opened_decoder
from openjepa.evaluation.dense import measure_dense as measure_patches
from openjepa.evaluation.dense import patch_labels as truth_of_patches
from openjepa.evaluation.features import DatasetEncoder
from openjepa.evaluation.label_free import label_free_metrics
from openjepa.evaluation.predictive_runs import load_predictive_method
from openjepa.evaluation.settings import LabeledData, Search
from openjepa.interop.adapters import load_any
from openjepa.interop.load import load
from openjepa.masking.block import Block
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.official import Official
from openjepa.masking.quadrants import Quadrants
from openjepa.masking.random import Random
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
from openjepa.recipes.decoder import decoder_config
from openjepa.recipes.settings import TrainDecoder
from openjepa.training.checkpoint import load_newest
from openjepa.training.config import Pretrain
from openjepa.training.config import load_config as settings_of
from openjepa.training.device import Device
from openjepa.training.optim import Optim
from openjepa.viz.embedding_map import project_features
from openjepa.viz.features import Basis, foreground_mask
from openjepa.viz.inputs import load_encoder, load_images, patch_features
from openjepa.viz.masks import measure_coverage
from openjepa.viz.prediction_error import predict_hidden
from openjepa.viz.predictions import prediction_masks
from openjepa.viz.settings import FigureOptions, PredictionOptions
from openjepa.viz.similarity import patch_at, patch_cosines
from openjepa.viz.spectrum import variance_shares
from tests.golden.training import outcome, pictures
from tests.golden.values import bits, exact, numbers, tensors

FIRST_FORMAT = Path(__file__).parents[1] / "formats" / "1"
CPU = Device(torch.device("cpu"), bf16=False)
SAMPLERS = {  # of masks, under words of ours
    "blocks": MultiBlock(),
    "blocks of little context": MultiBlock(context_fraction=0.5, targets=6),
    "as released": Official(),
    "quadrants": Quadrants(),
    "one block": Block(),
    "random": Random(),
    "random, some asked for": Random(mask_ratio=0.75, target_fraction=0.5),
    "blocks twice": MultiBlock(masks_per_sample=2),
    "random twice": Random(masks_per_sample=2),
}


class Small(NamedTuple):
    """A run, and pictures to ask it about."""

    folder: Path
    run: Path
    album: Path  # with some near copies
    labelled: Path

    def fresh(self, name: str) -> Path:
        """Give a place where nothing is yet."""
        return Path(tempfile.mkdtemp(dir=self.folder)) / name


@functools.cache
def small_run(folder: Path) -> Small:
    """Train the run: 30 steps on 96 scenes; and write the pictures."""
    root = pictures(folder / "learnt", side=32)
    method = JEPA(
        ViTConfig(dim=48, depth=4, num_heads=2),
        PredictorConfig(dim=24, depth=2),
        target_layers=(0, 1, 2, 3),
        target_transforms=("standardize",),
        pixel_loss_weight=0.5,
    )
    pretrain(
        Pretrain(
            data=Image(root=(str(root),), size=(32, 32), patch=4),
            method=method,
            optim=Optim(warmup=0.1, ema_momentum=0.99),
            steps=30,
            batch_size=16,
            device="cpu",
            precision="fp32",
            threads=1,
            workers=0,
            log_every=5,
            save_every=10,
            keep_last=3,
            out=folder / "run",
            report=False,
        )
    )
    album = pictures(folder / "album", 64, 32, seed=8)
    for number, file in enumerate(sorted(album.rglob("*.png"))[::9]):
        copied = np.asarray(Pillow.open(file)).astype(int) + 4 + number
        Pillow.fromarray(copied.clip(0, 255).astype(np.uint8)).save(file.with_name(f"copy-{file.name}"))
    return Small(folder, folder / "run", album, pictures(folder / "labelled", 160, 32, seed=11, labelled=True))


def files(folder: Path) -> list[str]:
    """Give every picture of a folder, in order."""
    return [str(file) for file in sorted(folder.rglob("*.png"))]


def small_run_itself(small: Small) -> dict[str, Any]:
    """Give losses, weights and what is exported at the end of the run."""
    return outcome(small.run) | {"encoder": tensors(load_file(small.run / "export" / "encoder.safetensors"))}


def features(small: Small) -> dict[str, Any]:
    """Give features of pictures, of either encoder, at the trained size and at another."""
    trained, learner = load(small.run), load(small.run, "context")
    asked = files(small.album)[:20]
    expected = trained.predict(asked[0], range(32), [[40, 41, 48], [60, 61, 63]])
    return {
        "last layer": numbers(trained.features(asked)),
        "last four layers": numbers(trained.features(asked, "last4")),
        "patches": numbers(trained.features(asked, "patches")),
        "larger pictures": numbers(trained.features(asked, size=(48, 40))),
        "the encoder that learns": numbers(learner.features(asked)),
        "at the end of the run": numbers(load(small.run / "export").features(asked)),
        "what is expected of patches": numbers(expected),
        "pictures as they are cut": exact(torch.stack([trained.transform(each) for each in asked])),
    }


def probe_of(small: Small) -> Probe:
    """Give a probe of the run alone, to be changed."""
    return Probe(
        run=str(small.run),
        data=LabeledData(root=(str(small.labelled),)),
        baselines=False,
        device="cpu",
        precision="fp32",
        out=small.fresh("probes"),
    )


def scores(asked: Probe) -> list[list[float]]:
    """Return accuracies with their intervals: of the encoder and, with baselines, before training and of pixels."""
    return [[value / 100 for value in each[3:6]] for each in probe(asked)]


def quick_probes(small: Small) -> dict[str, Any]:
    """Give scores of probes of stored features, a kept classifier, and what it says."""
    plain, out = probe_of(small), small.fresh("probes")
    probe(replace(plain, probes=("logistic",), out=out))
    head = out / "labelled-head.safetensors"
    answers = predict(Predict(run=str(small.run), images=str(small.album), head=head, device="cpu", precision="fp32"))
    return {
        "logistic regression": scores(replace(plain, probes=("logistic",), baselines=True)),
        "logistic regression, last four layers": scores(replace(plain, probes=("logistic",), features="last4")),
        "neighbours": scores(replace(plain, probes=("knn",), baselines=True)),
        "few labels": scores(replace(plain, probes=("lowshot",), shots=(1.0, 5.0, 0.2), repeats=3)),
        "classifier": {name: numbers(x) for name, x in zip("bw", sorted_tensors(head), strict=True)},
        "answers": [Path(each.file).name + " " + " ".join(each.classes) for each in answers[:20]],
        "chances": [list(map(float, each.probabilities)) for each in answers[:20]],
    }


def sorted_tensors(file: Path) -> list[torch.Tensor]:
    """Give a file's tensors, the smallest first, whatever they are called."""
    return sorted(load_file(file).values(), key=lambda x: x.numel())


def slow_probes(small: Small) -> dict[str, Any]:
    """Give scores of probes that train for longer, or on crops."""
    plain = probe_of(small)
    linear, tuned = replace(plain, probes=("linear",)), replace(plain, probes=("finetune",))
    return {
        "linear": scores(replace(linear, baselines=True)),
        "linear by LARS": scores(replace(linear, linear="in1k")),
        "linear by steps": scores(replace(linear, linear="places205")),
        "linear on crops": scores(replace(linear, augment=True)),
        "attentive": scores(replace(plain, probes=("attentive",))),
        "fine-tuned": scores(tuned),
        "fine-tuned on few labels": scores(replace(tuned, finetune="lowshot", shots=(2.0,), repeats=2)),
    }


def without_labels(small: Small) -> dict[str, Any]:
    """Give what features are worth before any label is seen, and what patches of scenes tell."""
    this = load_any(str(small.run))
    this.network.eval()
    there = replace(this.data, root=(str(small.album),))
    trained, parts = load(small.run), []
    for count, first in ((40, 0), (20, 1000)):
        scenes = render(count, (32, 32), 3, first)
        patches = trained.features(scenes.image, "patches").flatten(0, 1)
        parts.append((patches, truth_of_patches(scenes, this.data.grid)))
    pooled = trained.features(files(small.album))
    found = label_free_metrics(DatasetEncoder(this, there.dataset(there.listing()), CPU), pooled, 0)
    return {
        "meters": [float(value) for value in found.values()][:6],
        "depth and shape of patches": [float(each.value) for each in measure_patches("this", parts[0], parts[1])[:4]],
    }


def embed_of(small: Small) -> Embed:
    """Give what embeds the album, to be changed."""
    out = small.fresh("album.safetensors")
    return Embed(run=str(small.run), data=str(small.album), out=out, device="cpu", precision="fp32")


def retrieval(small: Small) -> dict[str, Any]:
    """Give what is found by search, near copies, and clusters."""
    index, wide = embed(embed_of(small)), embed(replace(embed_of(small), features="last4"))
    parts = embed(replace(embed_of(small), features="patches"))
    picture = files(small.labelled)[5]
    asked = {
        "a row": Search(index=index, query="row:3", count=6, page=False),
        "a row, features as they are": Search(index=index, query="row:3", count=6, whiten=False, page=False),
        "another picture": Search(index=index, query=picture, count=6, page=False),
        "a part": Search(index=index, query="row:7", box=(0.25, 0.25, 0.75, 0.75), count=6, page=False),
        "four layers": Search(index=wide, query="row:3", count=6, page=False),
        "whole among patches": Search(index=parts, query=picture, count=6, page=False),
        "a part among patches": Search(index=parts, query="row:7", box=(0.0, 0.0, 0.5, 0.5), count=6, page=False),
    }
    hits = {name: search(each) for name, each in asked.items()}
    found = cluster(Cluster(index=index, clusters=4))
    return {
        "index": numbers(load_file(index)["features"]),
        "hits": {name: [[Path(hit.file).name, hit.row, float(hit.cosine)] for hit in hits[name]] for name in hits},
        "near copies": duplicates(Duplicates(index=index)),
        "near copies, more": duplicates(Duplicates(index=index, threshold=0.6)),
        "clusters": found.cluster.tolist(),
        "cosine to centres": numbers(found.cosine),
        "agreement": [float(value) for value in found.agreement.values()],
    }


def drawn_masks(masks: tuple[Masks, ...]) -> str:
    """Digest masks."""
    return exact(*(each for mask in masks for each in (mask.context, mask.target, mask.context_valid)))


def masks(small: Small) -> dict[str, Any]:
    """Give the masks of three steps of every sampler, over all and as the second of two processes has them."""
    found: dict[str, Any] = {}
    for name, masking in SAMPLERS.items():
        numbers_ = np.arange(48)
        whole = [CounterRNG.of(3, step, numbers_ + 48 * step) for step in range(3)]
        half = [replace(each, index=each.index[24:], offset=24) for each in whole]
        found[name] = [drawn_masks(masking(Layout.grid(12, 14), None, None, draws, 0.1)) for draws in (*whole, *half)]
    found["on a line"] = drawn_masks(
        MultiBlock()(Layout.grid(1, 32), None, None, CounterRNG.of(0, 1, np.arange(16)), 0.0)
    )
    found["shapes"] = {
        name: exact(torch.tensor(masking.shapes(Layout.grid(12, 14)))) for name, masking in SAMPLERS.items()
    }
    found["order"] = epoch_order(5, 2, 12).tolist()
    return found


def batches(small: Small) -> dict[str, Any]:
    """Give what steps are made of: crops, mirrors, colours, masks; alone and as the second of two processes."""
    data = Image(
        root=(str(small.album),), size=(32, 32), patch=4, flip=True, color_jitter=0.5, mean=(0.5,) * 3, std=(0.2,) * 3
    )
    samples, found = data.dataset(data.listing()), {}
    for rank, ranks in ((0, 1), (1, 2)):
        steps = Steps(
            samples,
            MultiBlock(),
            data.layout,
            batch_size=16,
            total_steps=9,
            seed=2,
            rank=rank,
            world_size=ranks,
            num_views=2,
        )
        for number in (0, 6):
            step = steps[number]
            found[f"step {number}, process {rank + 1} of {ranks}"] = {
                "pictures": bits(*step.batch.views),
                "numbers": step.batch.index.tolist(),
                "masks": drawn_masks(step.batch.masks),
            }
    return found


def figures(small: Small) -> dict[str, Any]:
    """Return the numbers behind the figures of a run, except for the UMAP map."""
    asked = PredictionOptions(run=str(small.run), images=(str(small.album),), count=4)
    run, method = load_predictive_method(small.run)
    assert isinstance(run.data, Image)
    found = load_images(asked, run.data, 24)
    expected = predict_hidden(method, run, found, prediction_masks(asked, run, found))
    boxed = replace(asked, box=(0.25, 0.25, 0.75, 0.75))
    in_box = predict_hidden(method, run, found, prediction_masks(boxed, run, found))
    plain = FigureOptions(run=str(small.run), images=(str(small.album),), count=4)
    patches = patch_features(plain, load_encoder(plain), found)
    deeper = patch_features(plain, load_encoder(plain), found, 1)
    basis = Basis.of(patches.x)
    pooled = load(small.run).features(files(small.album))
    cover = measure_coverage(run, run.data.grid, seed=0, samples=256)
    place = patch_at(0.5, 0.25, run.data.grid)
    assert expected.pixels is not None
    return {
        "prediction": {
            "asked for": exact(expected.target),
            "expected": numbers(expected.predicted),
            "there": numbers(expected.truth),
            "errors": [numbers(each) for each in expected.errors],
            "pixels": numbers(expected.pixels),
            "errors in a box": [numbers(each) for each in in_box.errors],
        },
        "coverage": {"shown": numbers(cover.context), "asked for": numbers(cover.target)},
        "features": {
            "coordinates": numbers(basis.project(patches.x)),
            "colours": numbers(basis.colors(patches.x)),
            "share": float(basis.share),
            "front": exact(foreground_mask(basis, patches.x, patches.grid)),
            "second block": numbers(deeper.x),
        },
        "similarity": numbers(patch_cosines(patches.x - basis.mean, place)),
        "spectrum": numbers(variance_shares(pooled)),
        "map by t-SNE": numbers(project_features(pooled.numpy(), "tsne", 0)),
    }


def slow_map(small: Small) -> dict[str, Any]:
    """Give the map by UMAP."""
    return {"map by UMAP": numbers(project_features(load(small.run).features(files(small.album)).numpy(), "umap", 0))}


def exported(small: Small, to: str) -> Path:
    """Write an export."""
    return export(Export(run=str(small.run), format=to, out=small.fresh(to)))  # type: ignore[arg-type]


def looked_at(small: Small) -> torch.Tensor:
    """Give normalised pictures for an exported program."""
    trained = load(small.run)
    view = torch.stack([trained.transform(each) for each in files(small.album)[:6]])
    return trained.data.normalize(view)


def exports(small: Small) -> dict[str, Any]:
    """Give tensors of every export that is a file of tensors, and read it back where that can be."""
    ours, theirs, timm = (exported(small, to) for to in ("safetensors", "hf", "timm"))
    official = exported(small, "official") / "model.pth.tar"
    content = torch.load(official, map_location="cpu", weights_only=True)
    asked, converted = files(small.album)[:6], small.fresh("converted")
    convert(Convert(source=str(official), out=converted, num_heads=2))
    folders = {"safetensors": ours, "Hugging Face": theirs, "timm": timm, "authors": converted}
    configs = {"Hugging Face": theirs / "config.json", "timm": timm / "config.json"}
    processor = json.loads((theirs / "preprocessor_config.json").read_text())
    return {
        "safetensors": tensors(load_file(ours / "encoder.safetensors")),
        "Hugging Face": tensors(load_file(theirs / "model.safetensors")),
        "timm": tensors(load_file(timm / "model.safetensors")),
        "authors": {name.replace("_", " "): tensors(state) for name, state in content.items() if name != "epoch"},
        "configs": {name: json.dumps(json.loads(file.read_text()), sort_keys=True) for name, file in configs.items()},
        "processor": json.dumps(processor, sort_keys=True),
        "features read back": {name: numbers(load(folder).features(asked)) for name, folder in folders.items()},
    }


def programs(small: Small) -> dict[str, Any]:
    """Give outputs of exported programs, and of the other libraries' models."""
    import onnx
    import onnxruntime
    from transformers import AutoModel

    x = looked_at(small)
    program = torch.export.load(exported(small, "torch") / "model.pt2").module()
    graph = exported(small, "onnx") / "model.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    kept = {
        each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy())
        for each in onnx.load(graph).graph.initializer
    }
    with torch.no_grad():
        model = AutoModel.from_pretrained(exported(small, "hf")).eval()
        theirs = model(pixel_values=x).last_hidden_state
        traced = [numbers(each) for each in program(x)]
    return {
        "torch": traced,
        "ONNX": [numbers(each) for each in session.run(None, {session.get_inputs()[0].name: x.numpy()})],
        "numbers in ONNX": tensors({name: value for name, value in kept.items() if value.is_floating_point()})[
            "without names"
        ],
        "transformers": numbers(theirs),
    }


def decoders(small: Small) -> dict[str, Any]:
    """Give decoders of either condition, started from the run: their training, what they draw, how it agrees."""
    found = {}
    for name, condition in (("features", "features"), ("prediction", "prediction")):
        asked = TrainDecoder(
            run=str(small.run),
            out=small.fresh("decoder"),
            condition=condition,  # type: ignore[arg-type]
            dim=32,
            depth=2,
            num_heads=2,
            batch_size=16,
            steps=12,
            device="cpu",
            precision="fp32",
            threads=1,
        )
        out = pretrain(replace(decoder_config(asked), report=False, log_every=1, workers=0))
        decoder = opened_decoder(out, "cpu", "fp32")
        view = torch.stack([load(small.run).transform(each) for each in files(small.album)[:3]])
        mask = decoder_mask(decoder, 3, None, 1)
        drawn = sample_images(decoder, view, decoder_conditions(decoder, view, mask), mask, 2, 1, 4)
        agreed = measure_decoder(
            MeasureDecoder(
                decoder=str(out), images=(str(small.album),), count=24, steps=3, device="cpu", precision="fp32"
            )
        )
        found[name] = outcome(out) | {"drawn": numbers(drawn.raw), "agreement": [float(each) for each in agreed]}
    return found


def first_format(small: Small) -> dict[str, Any]:
    """Go on with the stored run of the first format, on pictures of ours, and give its features before."""
    out = small.fresh("first")
    shutil.copytree(FIRST_FORMAT, out)
    before = load_newest(out / "checkpoints")
    assert before is not None
    view = render(6, (16, 16), 4).image
    seen_before = {"target": load(out).features(view), "context": load(out, "context").features(view)}
    began = settings_of(out)
    pretrain(
        replace(
            began,
            data=replace(began.data, root=(str(small.album),)),
            steps=15,
            log_every=1,
            out=out,
            resume="yes",
            allow_data_change=True,
            report=False,
        )
    )
    return {
        "weights": tensors(before.model),
        "moments": tensors(before.optimizer),
        "features": {"averaged": numbers(seen_before["target"]), "learning": numbers(seen_before["context"])},
        "gone on with": outcome(out),
    }


QUICK = {
    "the small run": small_run_itself,
    "features": features,
    "probes of features": quick_probes,
    "meters without labels": without_labels,
    "retrieval": retrieval,
    "masks": masks,
    "batches": batches,
    "figures": figures,
    "exports": exports,
    "first format": first_format,
}
SLOW = {
    "probes that train": slow_probes,
    "map": slow_map,
    "programs": programs,
    "decoders": decoders,
}
