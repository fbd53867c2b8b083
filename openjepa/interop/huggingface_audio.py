"""Encoders of sound from Hugging Face, as peers: wav2vec 2.0 and its successors, and AST.

B batch  L samples  N tokens  D width
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.interop.pretrained import LAST_LAYERS, LayerFeatures, PretrainedEncoder
from openjepa.modalities.audio import Audio

WAVEFORM_MODELS = ("data2vec-audio", "hubert", "unispeech", "unispeech-sat", "wav2vec2", "wav2vec2-conformer", "wavlm")

SPECTROGRAM_MODEL = "audio-spectrogram-transformer"

AUDIO_MODELS = (*WAVEFORM_MODELS, SPECTROGRAM_MODEL)

FRAMES = 400  # of 10 ms that a model of waveforms gets, which takes any length

HOP = 0.01  # seconds


def from_huggingface_audio(source: str, name: str) -> PretrainedEncoder:
    """Load an encoder of sound, with the preprocessing that its feature extractor states.

    Features are the mean over the tokens of a waveform; of AST, its class token.
    """
    from transformers import AutoFeatureExtractor, AutoModel

    network = AutoModel.from_pretrained(source, use_safetensors=True)
    extractor = AutoFeatureExtractor.from_pretrained(source)

    def untrained() -> PretrainedEncoder:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return wrap_audio(AutoModel.from_config(network.config), extractor, "before training")

    return dataclasses.replace(wrap_audio(network, extractor, name), untrained=untrained)


def wrap_audio(network: Any, extractor: Any, name: str) -> PretrainedEncoder:
    """Wrap a model of the transformers library that encodes sound."""
    network, config = network.eval().requires_grad_(False), network.config
    is_ast = config.model_type == SPECTROGRAM_MODEL
    if getattr(extractor, "sampling_rate", None) is None:
        raise UserError(
            f"{name} ({config.model_type}) has no feature extractor for sound: add preprocessor_config.json"
        )
    frames = config.max_length if is_ast else FRAMES
    patch = config.patch_size if is_ast else 8
    bands = config.num_mel_bins // patch * patch if is_ast else 64
    data = Audio(
        rate=extractor.sampling_rate, frames=frames // patch * patch, bands=bands, patch=patch, hop=HOP,
        short="silence", pooling="mean",
    )  # fmt: skip

    def layers(view: Float[Tensor, "B C L"]) -> LayerFeatures:
        waves = list(view.mean(1).cpu().numpy())
        inputs = extractor(waves, sampling_rate=data.rate, return_tensors="pt")["input_values"]
        hidden = network(inputs.to(view.device), output_hidden_states=True).hidden_states[1:][-LAST_LAYERS:]
        return tuple(network.layernorm(each) for each in hidden) if is_ast else tuple(hidden)

    prefix, pool = (2, "class") if is_ast else (0, "mean")
    return PretrainedEncoder(name, data, network, layers, prefix, pool, made_by=config.to_json_string())
