"""A pretrained encoder from anywhere: features, predictions, targets.

B batch  N tokens  D width  M blocks  T tokens per block
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.capabilities import Pairs, Pools, Reads, plural_of, require, with_root
from openjepa.core.errors import UserError
from openjepa.core.options import FeatureKind, PooledKind
from openjepa.core.protocols import Encoder, Modality
from openjepa.core.types import Tokens
from openjepa.methods.jepa import JEPA
from openjepa.nn.predictor import Predictor
from openjepa.training.config import Pretrain, load_config
from openjepa.training.run_folder import (
    ENCODER_FILE,
    PREDICTOR_FILE,
    Provenance,
    exported_encoders,
    load_newest_method,
    load_weights_into,
    read_provenance,
    read_weights_metadata,
)

LAST_LAYERS = 4  # layers of "last4", the paper's appendix A.2
BATCH = 64  # samples per forward pass
OWN_RUN = Provenance()

BEFORE_TRAINING = "before training"  # name of an encoder with its first weights

POOLED_KINDS: tuple[PooledKind, ...] = ("last", "last4")
PatchIndices = Sequence[int] | Tensor  # of tokens; of images: patches in raster order
View = Tensor  # a batch of evaluation views, of a shape and dtype that the modality chooses
LayerFeatures = tuple[Float[Tensor, "B N D"] | Tokens, ...]  # Tokens where some are padding


class EncoderOutput(NamedTuple):
    """Features of a batch, in fp32."""

    patches: Float[Tensor, "B N D"]  # of each token in the last layer, without a class token; images: in raster order
    last: Float[Tensor, "B D"]  # last layer, pooled
    last4: Float[Tensor, "B F"]  # last four layers, each pooled, concatenated, the earliest first


@dataclass(frozen=True)
class PretrainedEncoder:
    """An encoder in evaluation mode: ours, another project's, or yours.

    `layers` returns the final-normed tokens of the last four blocks, the earliest first, for a batch of evaluation
    views. Pooling is the mean over tokens, as in the paper, unless the modality `Pools`; or a class token is taken.
    """

    name: str
    modality: Modality  # how inputs are read, normalized and cut into tokens
    network: nn.Module
    layers: Callable[[View], LayerFeatures]
    prefix: int = 0  # leading tokens that are not patches: class token, registers
    pool: Literal["mean", "class"] = "mean"
    untrained: Callable[[], PretrainedEncoder] | None = None  # the same encoder before training, as a baseline
    made_by: str = ""  # what the features depend on beside the weights
    settings: Pretrain | None = None  # of the run that trained it, if openjepa did
    step: int = 0  # optimizer steps taken
    predictor: Predictor | None = None
    provenance: Provenance = OWN_RUN

    @property
    def data(self) -> Any:
        """Return the modality, with the fields of its own class."""
        return self.modality

    @property
    def config(self) -> Pretrain:
        """Return the settings of the run that trained this encoder; raise UserError for another project's model."""
        if self.settings is None:
            raise UserError(f"{self.name} was not trained by openjepa: give a run, an export, or converted weights")
        return self.settings

    @property
    def encoder(self) -> Encoder:
        """Return the network, if it is one of ours."""
        return self.network  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def to(self, device: str | torch.device) -> PretrainedEncoder:
        """Move the networks to a device."""
        predictor = self.predictor.to(device) if self.predictor else None
        return dataclasses.replace(self, network=self.network.to(device), predictor=predictor)

    @property
    def fingerprint(self) -> str:
        """Hash the weights and the preprocessing."""
        digest = hashlib.sha256(repr((with_root(self.data, ()), self.prefix, self.pool, self.made_by)).encode())
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def encode(self, view: View) -> EncoderOutput:
        """Compute the features of a batch of evaluation views."""
        layers = self.layers(view)
        last = token_values(layers[-1]) if layers else None
        if last is None or last.ndim != 3 or len(last) != len(view):
            raise UserError(f"{self.name} must return (batch, tokens, width): see docs/reference/evaluation.md")
        pooled = [self.pool_tokens(x) for x in layers[-LAST_LAYERS:]]
        return EncoderOutput(last.float()[:, self.prefix :], pooled[-1], torch.cat(pooled, 1))

    def pool_tokens(self, tokens: Tensor | Tokens) -> Float[Tensor, "B D"]:
        """Pool the tokens of each sample; padding does not count."""
        if isinstance(tokens, Tokens):
            return tokens.mean()
        x = tokens.float()
        if self.pool == "class":
            return x[:, 0]
        x = x[:, self.prefix :]
        pools = isinstance(self.modality, Pools) and getattr(self.network, "same_tokens", True)
        return self.modality.pool(x) if pools else x.mean(1)  # type: ignore[union-attr]

    def encode_batches(self, view: View, batch: int = BATCH) -> Iterator[EncoderOutput]:
        """Yield the features of many evaluation views, `batch` at a time."""
        for part in view.split(batch):
            with torch.no_grad():  # here and not as a decorator, which fails on a generator that is wrapped
                output = self.encode(part)
            yield output

    def pooled(self, view: View) -> Float[Tensor, "B D"]:
        """Compute the pooled features of the last layer for many evaluation views."""
        return torch.cat([output.last for output in self.encode_batches(view)])

    def transform(self, source: Any, size: Any = None) -> Tensor:
        """Read one source as for evaluation, at the trained size or at `size`.

        Of images: their largest centered box as bytes, from a path, a PIL image, a uint8 array (H, W) or (H, W, C), or
        a uint8 tensor (C, H, W); one that has the size already is returned as it is. Of signals: a path or an array
        (channels, samples). Raises UserError for anything else, and for files that cannot be decoded.
        """
        return self.reader.read(source, size)

    @property
    def reader(self) -> Reads:
        """Return the modality, if it reads single sources."""
        return require(self.modality, Reads, "an encoder's features")

    @torch.no_grad()
    def features(
        self, sources: Any, kind: FeatureKind = "last", size: Any = None, batch: int = BATCH
    ) -> Float[Tensor, "B *F"]:
        """Compute features of sources, in fp32 on the CPU.

        Returns (B, D) for "last", the mean over tokens as in the paper; (B, 4 D) for "last4", four layers concatenated
        (appendix A.2); (B, N, D) for "patches": every token, of images in raster order. Takes one source or many, each
        as for `transform`, or a batch of them in one tensor or array. At another `size` than trained, positions of
        patches are rescaled to the trained extent.
        """
        if kind not in get_args(FeatureKind):
            raise UserError(f"unknown features {kind!r}: use last, last4 or patches")
        rows, queue = [], self.reader.iterate(sources)
        while part := list(islice(queue, batch)):
            view = torch.stack([self.transform(source, size) for source in part]).to(self.device)
            rows.append(getattr(self.encode(view), kind).cpu())
        if not rows:
            raise UserError(f"no {plural_of(self.modality).removesuffix('s')} was given")
        return torch.cat(rows)

    @torch.no_grad()
    def predict(
        self,
        source: Any,
        context: PatchIndices,
        targets: PatchIndices | Sequence[Sequence[int]],
        mask_token: int = 0,
    ) -> Float[Tensor, "M T D"]:
        """Predict the features at `targets`, one block of tokens (T) or several (M, T), from the `context` tokens.

        Patches are numbered in raster order, windows from the first. Compare with `layer_norm` of the features there:
        the training target. `mask_token` chooses one of V-JEPA's: 0 was trained on small blocks, 1 on large ones.
        Raises UserError if the weights come without a predictor.
        """
        if self.predictor is None or not isinstance(self.config.method, JEPA):
            raise UserError(
                "these weights have no predictor of features: load the run's folder, or a file that has one"
            )
        tokens = self.data.tokens(self.transform(source)[None].to(self.device))
        inputs, outputs = (patch_indices(indices).to(self.device) for indices in (context, targets))
        count = tokens.x.shape[1]
        for indices in (inputs, outputs):
            if not indices.numel() or indices.min() < 0 or indices.max() >= count:
                raise UserError(f"patches are numbered from 0 to {count - 1}: give some for context and for targets")
        blocks = outputs if outputs.ndim == 2 else outputs[None]
        (encoded,) = self.encoder(tokens.take(inputs.flatten()[None]))
        predicted = self.predictor(encoded, tokens.pos[:, blocks], mask_sets=(mask_token,))
        return predicted[0, :, :, : self.target_dim].float().cpu()

    @property
    def target_dim(self) -> int:
        """Return the width of the predicted features; predicted pixels follow after them in the predictor's output."""
        method = self.config.method
        return method.target_dim if isinstance(method, JEPA) else method.encoder.dim

    @torch.no_grad()
    def targets(self, sources: Any) -> Float[Tensor, "B N D"]:
        """Compute what `predict` is compared with: LayerNorm without affine on every token, as released."""
        x = self.features(sources, "patches")
        return F.layer_norm(x, x.shape[-1:])


def check_patch_tokens(name: str, patches: Float[Tensor, "B N D"], count: int) -> None:
    """Raise UserError unless there is a token for each patch; S-JEA's level 2, for one, has others."""
    if patches.shape[1] != count:
        raise UserError(f"{name} has {patches.shape[1]} tokens for {count} patches: an encoder of patches is needed")


def token_values(tokens: Tensor | Tokens) -> Tensor:
    """Return the features of tokens, padding included."""
    return tokens.x if isinstance(tokens, Tokens) else tokens


def patch_indices(patches: PatchIndices | Sequence[Sequence[int]]) -> Tensor:
    """Convert patch numbers, or a boolean mask over all patches, to indices."""
    indices = torch.as_tensor(patches)
    if indices.dtype == torch.bool and indices.ndim == 1:
        return indices.nonzero()[:, 0]
    if indices.numel() and (indices.dtype == torch.bool or indices.is_floating_point()):
        raise UserError("give patches by their numbers, or as one boolean mask over all patches")
    return indices.long()


def from_network(
    network: Encoder,
    settings: Pretrain,
    name: str,
    step: int = 0,
    predictor: Predictor | None = None,
    provenance: Provenance = OWN_RUN,
    which: str = "",
) -> PretrainedEncoder:
    """Wrap one of a method's encoders; `which` is its name, empty for the default one."""
    data = settings.data.single() if isinstance(settings.data, Pairs) else settings.data
    layers, tokens = tuple(range(max(-LAST_LAYERS, -network.depth), 0)), data.tokens
    return PretrainedEncoder(
        name,
        data,
        network,
        lambda view: tuple(x.x if x.valid is None else x for x in network(tokens(view), layers=layers)),
        untrained=lambda: untrained_encoder(settings, which),
        made_by=repr(settings.method),
        settings=settings,
        step=step,
        predictor=predictor,
        provenance=provenance,
    )


def untrained_encoder(settings: Pretrain, which: str = "") -> PretrainedEncoder:
    """Build the encoder with the weights that the run's seed gives it; a run with --init-from started elsewhere."""
    network = settings.method.build(settings.data, settings.seed).encoder(which).eval()
    return from_network(network, settings, BEFORE_TRAINING, which=which)


def load_run(folder: Path, which: str = "") -> PretrainedEncoder:
    """Load the encoder of a run (from its newest valid checkpoint) or of an export."""
    settings = load_config(folder)
    if (folder / ENCODER_FILE).is_file():
        return load_export(folder, settings, which)
    method, step = load_newest_method(folder, settings)
    predictor = getattr(method, "predictor", None)  # for joint embedding an expander, which predicts nothing
    predictor = predictor if isinstance(predictor, Predictor) else None
    provenance = read_provenance(folder)
    return from_network(method.encoder(which), settings, folder.name, step, predictor, provenance, which)


def load_export(folder: Path, settings: Pretrain, which: str) -> PretrainedEncoder:
    """Load an encoder from a folder of weights."""
    files = exported_encoders(folder)
    if which and which not in files:
        raise UserError(f"{folder} has no encoder {which!r}: try --encoder {' or '.join(files)}, or the run's folder")
    file = folder / (files[which] if which else ENCODER_FILE)
    predictor = None
    if (folder / PREDICTOR_FILE).is_file():
        predictor = load_weights_into(settings.method.build_predictor(settings.data), folder / PREDICTOR_FILE)  # type: ignore[union-attr]
    network = load_weights_into(settings.method.build_encoder(settings.data, which), file)
    step = int(read_weights_metadata(file).get("step", settings.steps))
    return from_network(network, settings, folder.name, step, predictor, read_provenance(folder), which)
