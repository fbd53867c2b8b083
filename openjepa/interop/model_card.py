"""Write the model card of exported weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openjepa.core.fileio import read_json
from openjepa.interop.pretrained import PretrainedEncoder
from openjepa.methods.jepa import JEPA
from openjepa.training.config import Pretrain

USAGE = {
    "hf": """```python
from transformers import AutoImageProcessor, AutoModel

processor, model = AutoImageProcessor.from_pretrained("{folder}"), AutoModel.from_pretrained("{folder}")
patches = model(**processor(image, return_tensors="pt")).last_hidden_state  # (1, {patches}, {width}), no class token
features = patches.mean(1)
```""",
    "timm": """```python
import timm

model = timm.create_model("local-dir:{folder}", pretrained=True)  # normalised pictures → (batch, {width}), the mean over patches
```""",
    "onnx": """```python
import onnxruntime

session = onnxruntime.InferenceSession("{folder}/model.onnx")
patches, pooled = session.run(None, {{"pixel_values": pictures}})  # normalised float32 (batch, {channels}, height, width)
```""",
    "torch": """```python
import torch

encoder = torch.export.load("{folder}/model.pt2").module()
patches, pooled = encoder(pictures)  # normalised float32 (batch, {channels}, height, width)
```""",
    "safetensors": """```python
import openjepa

features = openjepa.load("{folder}").features("photo.jpg")  # (1, {width}), the mean over patches
```""",
    "official": "The released code's `load_checkpoint` reads `{folder}/model.pth.tar`.",
}


def model_card(trained: PretrainedEncoder, form: str, folder: Path, license: str, run: Path, results: str) -> str:
    """The model card in Markdown, with the lines that Hugging Face's hub reads."""
    data, method, about = trained.data, trained.config.method, trained.provenance
    words = {
        "folder": folder, "patches": data.grid[0] * data.grid[1], "width": method.dim, "channels": data.channels,
    }  # fmt: skip
    front = [f"license: {license}"] if license else []
    front += ["library_name: transformers"] if form == "hf" else ["library_name: timm"] if form == "timm" else []
    front += ["pipeline_tag: image-feature-extraction", "tags:", "- jepa", "- self-supervised-learning"]
    said = "\n".join(f"* {line}" for line in [*encoder_facts(trained), *training_facts(trained, run)])
    notes = "".join(f"\n* Note: {note}." for note in about.notes)
    allowed = f"License: {license}." if license else "License: not stated by who made these weights."
    return (
        "---\n" + "\n".join(front) + f"\n---\n\n# {run.name or 'encoder'}\n\n"
        "An image encoder trained without labels by a joint-embedding predictive architecture (I-JEPA, arXiv 2301.08243).\n\n"
        f"{said}{notes}\n\n## Use\n\n{USAGE[form].format(**words)}\n\n## Results\n\n{results or 'Not measured yet.'}\n\n## License\n\n{allowed}\n"
    )


def encoder_facts(trained: PretrainedEncoder) -> list[str]:
    """The encoder and its pictures."""
    data, method = trained.data, trained.config.method
    colours = ", ".join(f"{name} {' '.join(f'{x:g}' for x in getattr(data, name))}" for name in ("mean", "std"))
    views = {
        "crop": "their largest centred box",
        "margin": "the middle 7/8 of their largest centred box",
        "squash": "the whole picture, squashed",
    }
    return [
        f"Encoder: a vision transformer of width {method.dim}, depth {method.depth}, {method.num_heads} heads; "
        f"patches of {data.patch} px, no class token",
        f"Pictures: {data.size[0]}×{data.size[1]} px, {views[data.eval_crop]}, bilinear; of values in [0, 1]: {colours}",
    ]


def training_facts(trained: PretrainedEncoder, run: Path) -> list[str]:
    """The data and the recipe."""
    about, config = trained.provenance, trained.config
    if about.source:
        return [f"Source: {about.source}, converted from the layout “{about.layout}”"]
    told = read_json(run / "data.json") if (run / "data.json").is_file() else {}
    count = f"{told['count']:,} images, no labels" if type(told.get("count")) is int else "not known"
    return [f"Data: {count}", f"Training: {describe_recipe(config, trained.step)}"]


def describe_recipe(config: Pretrain, step: int) -> str:
    """How it was trained, in a line."""
    method: Any = config.method
    name = type(method).__name__
    mover = "Muon" if config.optim.optimizer == "muon" else "AdamW"
    kind = f"targets of blocks {' '.join(map(str, method.target_layers))}" if isinstance(method, JEPA) else "pixels"
    return (
        f"{name}, {kind}; masks “{config.masks.sampler}”; {step:,} steps of {config.batch_size} images, "
        f"{mover} at {config.optim.lr:g}, seed {config.seed}"
    )
