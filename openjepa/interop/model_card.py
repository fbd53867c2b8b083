"""Write the model card of exported weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from openjepa.core.capabilities import Describes, Exports, modality_name, plural_of
from openjepa.core.fileio import read_json
from openjepa.core.markdown import markdown_name
from openjepa.core.registry import name_of
from openjepa.interop.pretrained import PretrainedEncoder
from openjepa.interop.raw_values import range_text
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.modalities.image_pair import ImagePair
from openjepa.modalities.video import Video
from openjepa.nn.vit import ViT
from openjepa.training.config import Pretrain

USAGE = {
    "hf": """```python
from transformers import AutoImageProcessor, AutoModel

processor, model = AutoImageProcessor.from_pretrained("{folder}"), AutoModel.from_pretrained("{folder}")
patches = model(**processor(image, return_tensors="pt")).last_hidden_state  # (1, {patches}, {width}), no class token
features = patches.mean(1)
```""",
    "hf of video": """```python
from transformers import AutoModel, AutoVideoProcessor

processor, model = AutoVideoProcessor.from_pretrained("{folder}"), AutoModel.from_pretrained("{folder}")
frames = processor(video, return_tensors="pt")["pixel_values_videos"]  # of a video as an array (F, H, W, 3)
tubelets = model(frames, skip_predictor=True).last_hidden_state  # (1, {patches}, {width})
features = tubelets.mean(1)
```""",
    "timm": """```python
import timm

model = timm.create_model("local-dir:{folder}", pretrained=True)
features = model(images)  # normalized images (batch, {channels}, height, width) → (batch, {width}), mean over patches
```""",
    "onnx": """```python
import onnxruntime

session = onnxruntime.InferenceSession("{folder}/model.onnx")
patches, pooled = session.run(None, {{"{input_name}": inputs}})  # float32: {program_input}
```""",
    "torch": """```python
import torch

encoder = torch.export.load("{folder}/model.pt2").module()
patches, pooled = encoder(inputs)  # float32: {program_input}
```""",
    "safetensors": """```python
import openjepa

features = openjepa.load("{folder}").features("{example}")  # (1, {width}), mean over tokens
```""",
    "official": "The released code's `load_checkpoint` reads `{folder}/model.pth.tar`.",
}


def model_card(encoder: PretrainedEncoder, form: str, folder: Path, license: str, run: Path, results: str) -> str:
    """Return the model card in Markdown, with the front matter that the Hugging Face hub reads."""
    images, kind = plural_of(encoder.modality) == "images", modality_name(encoder.modality)
    is_video, method = isinstance(encoder.modality, Video), encoder.config.method
    libraries = {"hf": "transformers", "timm": "timm"}
    front = [f"license: {license}"] if license else []
    front += [f"library_name: {libraries[form]}"] if form in libraries else []
    front += ["pipeline_tag: image-feature-extraction"] if images else []
    front += ["tags:", "- jepa", "- self-supervised-learning"]
    facts = [*encoder_facts(encoder), *training_facts(encoder, run)]
    facts += [f"Note: {note}." for note in encoder.provenance.notes]
    sections = [
        "---\n" + "\n".join(front) + "\n---",
        f"# {markdown_name(run.name or 'encoder')}",
        f"An encoder of {'images' if images else kind} trained without labels by {approach(method, is_video)}.",
        "\n".join(f"* {fact}" for fact in facts),
        "## Use",
        format_usage(encoder, form, folder),
        "## Results",
        results or "Not measured yet.",
        "## License",
        f"License: {license}." if license else "License: not stated by the authors of these weights.",
    ]
    return "\n\n".join(sections) + "\n"


def approach(method: Any, is_video: bool) -> str:
    """Name the method in words."""
    if not isinstance(method, JEPA):
        return type(method).__name__
    paper = "V-JEPA, arXiv 2404.08471" if is_video else "I-JEPA, arXiv 2301.08243"
    return f"a joint-embedding predictive architecture ({paper})"


def format_usage(encoder: PretrainedEncoder, form: str, folder: Path) -> str:
    """Return an example of how to use the weights, in Python."""
    data, program = encoder.data, encoder.modality if isinstance(encoder.modality, Exports) else None
    return USAGE["hf of video" if form == "hf" and isinstance(data, Video) else form].format(
        folder=folder,
        patches=data.layout.count,
        width=encoder.encoder.dim,
        channels=getattr(data, "channels", ""),
        input_name=program.input_name if program else "",
        program_input=program.input_text if program else "",
        example="photo.jpg" if plural_of(data) == "images" else "FILE",
    )


def encoder_facts(encoder: PretrainedEncoder) -> list[str]:
    """Describe the architecture and the preprocessing."""
    data, method = encoder.data, encoder.config.method
    networks = (
        f"a vision transformer, {method.encoder.describe()}" if type(encoder.network) is ViT else method.describe()
    )
    architecture = f"Encoder: {networks}"
    if not isinstance(data, Image | ImagePair):
        size = f", {data.describe()}" if isinstance(data, Describes) else ""
        return [architecture.replace("vision ", ""), f"Input: {modality_name(data)}{size}", input_settings(data)]
    raw = range_text(data) if isinstance(data, Image) else ""
    return [f"{architecture}; patches of {data.patch} px, no class token", image_facts(data), *([raw] if raw else [])]


def input_settings(data: Any) -> str:
    """List the settings by which files become inputs, statistics of the normalization among them."""
    names = [each.name for each in dataclasses.fields(data) if each.name != "root"]
    return f"Settings of the input: {', '.join(f'{name} {plain(getattr(data, name))}' for name in names)}"


def plain(value: Any) -> str:
    """Return a setting as text, values of a tuple one after the other."""
    if isinstance(value, tuple):
        return " ".join(map(plain, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def image_facts(data: Any) -> str:
    """Describe how images are cropped and normalized."""
    statistics = ", ".join(f"{name} {' '.join(f'{x:g}' for x in getattr(data, name))}" for name in ("mean", "std"))
    views = {
        "crop": "the largest centered box",
        "margin": "the middle 7/8 of the largest centered box",
        "squash": "the whole image, squashed",
    }
    return (
        f"Images: {data.size[0]}×{data.size[1]} px, {views[data.eval_crop]}, bilinear; "
        f"pixel values in [0, 1] with {statistics}"
    )


def training_facts(encoder: PretrainedEncoder, run: Path) -> list[str]:
    """Describe the training data and the recipe, or the source of converted weights."""
    provenance = encoder.provenance
    if provenance.source:
        return [f"Source: {provenance.source}, converted from the layout “{provenance.layout}”"]
    data = read_json(run / "data.json") if (run / "data.json").is_file() else {}
    count = (
        f"{data['count']:,} {plural_of(encoder.modality)}, no labels" if type(data.get("count")) is int else "not known"
    )
    return [f"Data: {count}", f"Training: {describe_recipe(encoder.config, encoder.step)}"]


def describe_recipe(config: Pretrain, step: int) -> str:
    """Describe the method, masks, steps and optimizer in one line."""
    method: Any = config.method
    optimizer = "Muon" if config.optim.optimizer == "muon" else "AdamW"
    layers = getattr(method, "target_layers", ())
    target = f", targets: features of blocks {' '.join(map(str, layers))}" if layers else ""
    return (
        f"{type(method).__name__}{target}; masks “{name_of('masks', config.masks)}”; {step:,} steps of "
        f"{config.batch_size} {plural_of(config.data)}, {optimizer} at {config.optim.lr:g}, seed {config.seed}"
    )
