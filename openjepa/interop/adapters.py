"""Adapt any encoder to one interface: views in, features of tokens and pooled features out."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Real
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.interop.huggingface import MODEL_TYPE as IJEPA
from openjepa.interop.huggingface import is_huggingface_folder
from openjepa.interop.huggingface_audio import AUDIO_MODELS, from_huggingface_audio
from openjepa.interop.load import load
from openjepa.interop.pretrained import LAST_LAYERS, LayerFeatures, PretrainedEncoder
from openjepa.interop.vjepa2 import MODEL_TYPE as VJEPA2
from openjepa.interop.vjepa2 import is_vjepa2_folder
from openjepa.modalities.image import Image


def load_any(spec: str, which: str = "") -> PretrainedEncoder:
    """Load the encoder that `spec` names, for evaluation.

    `spec` is a run, an export, an official checkpoint, a folder of timm or Hugging Face, hf:ID, or module:function,
    which returns a PretrainedEncoder.

    Raises:
        UserError: there is no such encoder.
    """
    if not spec.strip():
        raise UserError("the run is empty: give the folder of a run or an encoder, . for the working folder")
    folder = Path(spec)
    if folder.is_file() or (folder.is_dir() and (is_vjepa2_folder(folder) or not is_huggingface_folder(folder))):
        return dataclasses.replace(load(folder, which), name=folder.name)
    if which:
        raise UserError(f"{spec} has only one encoder: omit --encoder")
    if spec.startswith("hf:") or folder.is_dir():
        return from_huggingface(spec.removeprefix("hf:"), spec)
    module, _, function = spec.partition(":")
    if not function:
        raise UserError(f"{spec} is not an encoder: give a run, a Hugging Face folder, hf:ID, or module:function")
    return from_function(module, function)


def from_function(module: str, function: str) -> PretrainedEncoder:
    """Call your own function, which returns a PretrainedEncoder. The module's source is part of the fingerprint."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # as python itself would
    try:
        loaded = importlib.import_module(module)
        build = getattr(loaded, function)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(f"cannot import {module}:{function} ({error}): run from the folder that contains it") from error
    encoder = build()
    if not isinstance(encoder, PretrainedEncoder):
        raise UserError(
            f"{module}:{function} returned a {type(encoder).__name__}: it must return an openjepa.PretrainedEncoder"
        )
    source = hashlib.sha256(inspect.getsource(loaded).encode()).hexdigest()
    return dataclasses.replace(encoder, made_by=f"{module}:{function} {source}")


def from_huggingface(source: str, name: str) -> PretrainedEncoder:
    """Load a transformer of Hugging Face: I-JEPA, V-JEPA 2, ViT, ViT-MAE, DINOv2; of sound wav2vec 2.0 or AST.

    I-JEPA and V-JEPA 2 become encoders of ours. Of the others, the final norm is applied to each of the last four
    blocks, as in VISSL, the pooled feature is the class token, and images are normalized as the processor states. Only
    safetensors are read.
    """
    try:
        from transformers import AutoConfig, AutoImageProcessor, AutoModel
    except ImportError as error:
        raise UserError("Hugging Face encoders need an extra: pip install 'openjepa[hf]'") from error
    model_type = AutoConfig.from_pretrained(source).model_type
    if model_type in (IJEPA, VJEPA2):
        return dataclasses.replace(load(name), name=name)
    if model_type in AUDIO_MODELS:
        return from_huggingface_audio(source, name)
    network = AutoModel.from_pretrained(source, use_safetensors=True)
    processor = AutoImageProcessor.from_pretrained(source)
    mean_std = (processor.image_mean, processor.image_std)

    def untrained() -> PretrainedEncoder:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return wrap_transformers(AutoModel.from_config(network.config), mean_std, "before training")

    return dataclasses.replace(wrap_transformers(network, mean_std, name), untrained=untrained)


def wrap_transformers(network: Any, mean_std: tuple[Sequence[float], Sequence[float]], name: str) -> PretrainedEncoder:
    """Wrap a model of the transformers library. Raises UserError if it is not one of its vision transformers."""
    network, config = network.eval().requires_grad_(False), network.config
    norm = getattr(network, "layernorm", None)
    if norm is None or not hasattr(config, "patch_size") or not hasattr(config, "image_size"):
        raise UserError(
            f"{name} ({config.model_type}) is not a supported vision transformer: "
            "wrap it in a function and give module:function"
        )
    height, width = config.image_size if isinstance(config.image_size, list | tuple) else (config.image_size,) * 2
    mean, std = (tuple(map(float, values)) for values in mean_std)
    data = Image(size=(height, width), patch=config.patch_size, channels=config.num_channels, mean=mean, std=std)
    is_mae = config.model_type == "vit_mae"  # masks patches and shuffles the others by default
    if is_mae:
        config.mask_ratio = 0.0

    def layers(view: Real[Tensor, "B C H W"]) -> LayerFeatures:
        order = torch.linspace(0, 1, data.grid[0] * data.grid[1], device=view.device).expand(len(view), -1)
        extra = {"noise": order} if is_mae else {}  # increasing noise keeps the order of patches
        out = network(pixel_values=data.normalize(view), output_hidden_states=True, **extra)
        return (*(norm(hidden) for hidden in out.hidden_states[1:][-LAST_LAYERS:-1]), out.last_hidden_state)

    prefix = 2 if config.model_type == "deit" else 1 + getattr(config, "num_register_tokens", 0)
    return PretrainedEncoder(name, data, network, layers, prefix, "class", made_by=config.to_json_string())
