"""Adapt any encoder to one interface: pictures in, patch features and pooled features out."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from openjepa.core.errors import UserError
from openjepa.interop.huggingface import is_huggingface_folder as of_hugging_face
from openjepa.interop.imported import IMAGENET_MEAN_STD
from openjepa.interop.load import load
from openjepa.interop.pretrained import build_untrained
from openjepa.modalities.image import Image
from openjepa.nn.vit import ViT
from openjepa.training.config import Pretrain

LAST_LAYERS = 4  # layers of the paper's `last4`

PooledKind = Literal["last", "last4"]

POOLED_KINDS: tuple[PooledKind, ...] = ("last", "last4")

LayerFeatures = tuple[Float[Tensor, "B N D"], ...]


class EncoderOutput(NamedTuple):
    """What an encoder makes of pictures."""

    patches: Float[Tensor, "B N D"]  # of the last layer, in raster order, no class token
    last: Float[Tensor, "B D"]  # the last layer, pooled
    last4: Float[Tensor, "B F"]  # the last four layers, each pooled, side by side, the oldest first


@dataclass(frozen=True)
class EncoderAdapter:
    """An encoder to be measured: ours, a peer's, or yours.

    `layers` gives the final-normed tokens of the last four blocks, the oldest first, for a uint8 batch of `data.size`.
    Pooling is the mean over patches, as the paper does; of a model trained with a class token, that token.
    """

    name: str
    data: Image  # how its pictures are cut and normalised
    network: nn.Module
    layers: Callable[[UInt8[Tensor, "B C H W"]], LayerFeatures]
    prefix: int = 0  # leading tokens that are no patches: class token, registers
    pool: Literal["mean", "class"] = "mean"
    untrained: Callable[[], EncoderAdapter] | None = None  # the same encoder before training: the baseline
    made_by: str = ""  # what, beside the weights, its features depend on

    def encode(self, view: UInt8[Tensor, "B C H W"]) -> EncoderOutput:
        """Features of a batch of evaluation views, in fp32."""
        layers = [tokens.float() for tokens in self.layers(view)]
        if not layers or layers[-1].ndim != 3 or len(layers[-1]) != len(view):
            raise UserError(f"{self.name} gives no tokens of shape (batch, tokens, width): see docs/evaluation.md")
        pooled = [x[:, 0] if self.pool == "class" else x[:, self.prefix :].mean(1) for x in layers[-LAST_LAYERS:]]
        return EncoderOutput(layers[-1][:, self.prefix :], pooled[-1], torch.cat(pooled, 1))

    @property
    def fingerprint(self) -> str:
        """Changes with the weights, and with how pictures are cut."""
        digest = hashlib.sha256(
            repr((dataclasses.replace(self.data, root=()), self.prefix, self.pool, self.made_by)).encode()
        )
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]


def load_adapter(spec: str, which: Literal["target", "context"] = "target") -> EncoderAdapter:
    """The encoder that `spec` names: a run or an export; a checkpoint of the authors or a folder of timm's; a Hugging Face
    folder, or hf:ID; or module:function.

    Mistake in a sentence if there is none.
    """
    folder = Path(spec)
    if folder.is_file() or (folder.is_dir() and not of_hugging_face(folder)):
        return from_run(folder, which)
    if which == "context":
        raise UserError(f"{spec} has one encoder, no context and target: leave --encoder out")
    if spec.startswith("hf:") or folder.is_dir():
        return from_huggingface(spec.removeprefix("hf:"), spec)
    module, _, function = spec.partition(":")
    if not function:
        raise UserError(f"{spec} is no encoder: give a run, a Hugging Face folder, hf:ID, or module:function")
    return from_function(module, function)


def from_run(folder: Path, which: Literal["target", "context"] = "target") -> EncoderAdapter:
    """The encoder of a run or an export of ours; the target encoder unless asked otherwise, as the paper evaluates."""
    found = load(folder, which)
    return from_ours(found.encoder, found.config, folder.name)


def from_untrained(config: Pretrain) -> EncoderAdapter:
    """The encoder as the run started it."""
    return from_ours(build_untrained(config), config, "before training")


def from_ours(encoder: ViT, config: Pretrain, name: str) -> EncoderAdapter:
    """An encoder of ours; of fewer than four blocks, all of them. Mistake if it was trained on signals."""
    if not isinstance(config.data, Image):
        raise UserError(f"{name} was trained on signals: folders of images are all that is measured so far")
    wanted, tokens = tuple(range(max(-LAST_LAYERS, -len(encoder.blocks)), 0)), config.data.tokens
    return EncoderAdapter(
        name,
        config.data,
        encoder,
        lambda view: tuple(seen.x for seen in encoder(tokens(view), wanted)),
        untrained=lambda: from_untrained(config),
        made_by=repr(config.method),
    )


def from_function(module: str, function: str) -> EncoderAdapter:
    """What a function of yours gives: a Candidate."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # as python itself would
    try:
        found = importlib.import_module(module)
        make = getattr(found, function)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(f"{module}:{function} cannot be had ({error}): it must be importable from here") from error
    made = make()
    if not isinstance(made, EncoderAdapter):
        raise UserError(f"{module}:{function} gave a {type(made).__name__}: it must return an openjepa.Candidate")
    source = hashlib.sha256(inspect.getsource(found).encode()).hexdigest()
    return dataclasses.replace(made, made_by=f"{module}:{function} {source}")


def from_huggingface(source: str, name: str) -> EncoderAdapter:
    """A vision transformer of Hugging Face: I-JEPA, ViT, ViT-MAE, DINOv2 and their like.

    Its final norm is applied to each of the last four blocks, as VISSL did. I-JEPA has no class token (token 0 is a
    patch); of the others it is what is pooled. Pictures are normalised as its processor says, except for I-JEPA, whose
    published processors say 0.5 where training used ImageNet's mean and deviation.
    """
    try:
        from transformers import AutoImageProcessor, AutoModel
    except ImportError as error:
        raise UserError("encoders of Hugging Face need an extra: pip install 'openjepa[hf]'") from error
    network = AutoModel.from_pretrained(source)
    told = None if network.config.model_type == "ijepa" else AutoImageProcessor.from_pretrained(source)
    colours = (told.image_mean, told.image_std) if told else IMAGENET_MEAN_STD

    def fresh() -> EncoderAdapter:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return wrap_transformers(AutoModel.from_config(network.config), colours, "before training")

    return dataclasses.replace(wrap_transformers(network, colours, name), untrained=fresh)


def wrap_transformers(network: Any, colours: tuple[Sequence[float], Sequence[float]], name: str) -> EncoderAdapter:
    """A model of the transformers library. Mistake if it is not built as their vision transformers are."""
    network, config = network.eval().requires_grad_(False), network.config
    norm = getattr(network, "layernorm", None)
    if norm is None or not hasattr(config, "patch_size") or not hasattr(config, "image_size"):
        raise UserError(f"{name} ({config.model_type}) is no vision transformer known here: wrap it as module:function")
    height, width = config.image_size if isinstance(config.image_size, list | tuple) else (config.image_size,) * 2
    mean, std = (tuple(map(float, each)) for each in colours)
    data = Image(size=(height, width), patch=config.patch_size, channels=config.num_channels, mean=mean, std=std)
    masked = config.model_type == "vit_mae"  # hides patches and shuffles the rest, unless told not to
    if masked:
        config.mask_ratio = 0.0

    def layers(view: UInt8[Tensor, "B C H W"]) -> LayerFeatures:
        still = torch.linspace(0, 1, data.grid[0] * data.grid[1], device=view.device).expand(len(view), -1)
        extra = {"noise": still} if masked else {}
        out = network(pixel_values=data.normalize(view), output_hidden_states=True, **extra)
        return (*(norm(hidden) for hidden in out.hidden_states[1:][-LAST_LAYERS:-1]), out.last_hidden_state)

    jepa = config.model_type == "ijepa"
    extra_tokens = 2 if config.model_type == "deit" else 1 + getattr(config, "num_register_tokens", 0)
    prefix, pool = (0, "mean") if jepa else (extra_tokens, "class")
    return EncoderAdapter(name, data, network, layers, prefix, pool, made_by=config.to_json_string())
