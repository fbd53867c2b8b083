"""Read and write folders of Hugging Face's `vjepa2`: V-JEPA 2, encoder and predictor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, read_json
from openjepa.interop.huggingface import (
    EPS,
    WEIGHTS_FILE,
    channel_values,
    license_of_card,
    positive_int,
    read_config,
    read_tensors,
    write_json,
)
from openjepa.interop.imported import IMAGENET_MEAN_STD, ImportedWeights, ImportOptions, empty_network
from openjepa.interop.key_maps import KeyMap, StateDict, check_tensors, empty_tensors
from openjepa.interop.pretrained import PretrainedEncoder
from openjepa.masking.tube import Tube
from openjepa.methods.jepa import JEPA
from openjepa.modalities.video import Video
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViT, ViTConfig
from openjepa.training.config import Pretrain
from openjepa.training.run_folder import Provenance

MODEL_TYPE, PROCESSOR_FILE = "vjepa2", "video_preprocessor_config.json"

POSITIONS = "rope_vjepa2"

PREFIX, HEAD_PREFIXES = "vjepa2.", ("pooler.", "classifier.")  # of VJEPA2ForVideoClassification

ENCODER = KeyMap(
    block="encoder.layer.{}",
    parts={
        "norm1": ("norm1",),
        "attn.qkv": tuple(f"attention.{name}" for name in ("query", "key", "value")),
        "attn.proj": ("attention.proj",),
        "norm2": ("norm2",),
        "mlp.fc1": ("mlp.fc1",),
        "mlp.fc2": ("mlp.fc2",),
    },
    modules={"patch_embed.proj": "encoder.embeddings.patch_embeddings.proj", "norm": "encoder.layernorm"},
    table="",
)

PREDICTOR = ENCODER._replace(
    block="predictor.layer.{}",
    modules={
        "embed": "predictor.embeddings.predictor_embeddings",
        "norm": "predictor.layernorm",
        "proj": "predictor.proj",
    },
)

MASK_TOKENS = "predictor.embeddings.mask_tokens"  # n 1 1 D there, n 1 D here

FIXED = {"hidden_act": "gelu", "qkv_bias": True, "pred_mlp_ratio": 4.0}  # of the architecture

DEFAULTS = {  # of transformers' VJEPA2Config: a config may leave them out
    "patch_size": 16, "crop_size": 256, "frames_per_clip": 64, "tubelet_size": 2, "in_chans": 3, "layer_norm_eps": EPS,
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "mlp_ratio": 4.0, "pred_hidden_size": 384,
    "pred_num_hidden_layers": 12, "pred_num_attention_heads": 12, "pred_num_mask_tokens": 10,
}  # fmt: skip

FPS = 4.0  # frames per second in the training of the released networks


def is_vjepa2_folder(folder: Path) -> bool:
    """Return whether a folder holds a V-JEPA 2 model of the transformers library."""
    return read_config(folder).get("model_type") == MODEL_TYPE


def read_vjepa2(folder: Path, options: ImportOptions) -> ImportedWeights:
    """Read the encoder and the predictor of a folder.

    A classifier on top is left out. Raises UserError if the folder is damaged, incomplete or of another architecture.
    """
    config = DEFAULTS | read_config(folder)
    data, notes = read_video(folder, config)
    settings = read_settings(folder, config, data)
    state = {name.removeprefix(PREFIX): x for name, x in read_tensors(folder).items()}
    state = {name: x for name, x in state.items() if not name.startswith(HEAD_PREFIXES)}
    has_predictor = any(name.startswith("predictor.") for name in state)
    roles = ("target", "predictor") if has_predictor else ("target",)
    own = {role: empty_tensors(empty_network(settings, role)) for role in roles}
    check_tensors(state, to_external(own["target"], own.get("predictor")), str(folder), "V-JEPA 2")
    networks = {"target": ENCODER.from_external(state)}
    if has_predictor:
        networks["predictor"] = PREDICTOR.from_external(state) | {"mask_token": state[MASK_TOKENS][:, 0].float()}
    if config["layer_norm_eps"] != EPS:
        notes += (f"its LayerNorm epsilon is {config['layer_norm_eps']}, ours is {EPS:g}",)
    license = options.license or license_of_card(folder)
    return ImportedWeights(settings, networks, Provenance(folder.name, "hf", license, notes))


def read_settings(folder: Path, config: dict[str, Any], data: Video) -> Pretrain:
    """Return the settings whose networks have the sizes of a config. Raises UserError if ours cannot have them."""
    for name, value in FIXED.items():
        if config.get(name, value) != value:
            raise UserError(
                f"{folder} does not have V-JEPA 2's architecture: {name} must be {value}, got {config[name]}"
            )
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    dim, depth, heads = (size(folder, config, name) for name in names)
    narrow_dim, narrow_depth, narrow_heads = (size(folder, config, f"pred_{name}") for name in names)
    tokens = size(folder, config, "pred_num_mask_tokens")
    if type(config["mlp_ratio"]) not in (int, float) or not 0 < config["mlp_ratio"] < 100:
        raise UserError(f"{folder}/config.json: mlp_ratio must be a number above 0, got {config['mlp_ratio']!r}")
    encoder = ViTConfig(dim, depth, heads, float(config["mlp_ratio"]), POSITIONS)
    masks = Tube((Tube.blocks * tokens)[:tokens], (Tube.scale * tokens)[:tokens])  # a mask for each mask token
    predictor = PredictorConfig(narrow_dim, narrow_depth, narrow_heads, mask_tokens=tokens)
    return Pretrain(data, JEPA(encoder, predictor, loss="l1"), masks)


def size(folder: Path, config: dict[str, Any], name: str) -> int:
    """Return an integer of a config. Raises UserError if it is not one above 0."""
    value = positive_int(config, name)
    if not value:
        raise UserError(f"{folder}/config.json: {name} must be an integer above 0, got {config[name]!r}")
    return value


def read_video(folder: Path, config: dict[str, Any]) -> tuple[Video, tuple[str, ...]]:
    """Read what a clip is and how it is normalized, with notes on what was assumed."""
    patch = config["patch_size"]
    if isinstance(patch, list) and len(patch) == 2 and patch[0] == patch[1]:
        config = config | {"patch_size": patch[0]}
    names = ("frames_per_clip", "crop_size", "patch_size", "tubelet_size", "in_chans")
    frames, side, patch, tubelet, channels = (size(folder, config, name) for name in names)
    file, notes = folder / PROCESSOR_FILE, ()
    try:
        processor = read_json(file) if file.is_file() else {}
    except ValueError as error:
        raise UserError(f"{file} cannot be read ({error}): is the download complete?") from error
    mean, std = (channel_values(processor.get(name)) for name in ("image_mean", "image_std"))
    if len(mean) != channels or len(std) != channels:
        mean, std = (values[:channels] for values in IMAGENET_MEAN_STD)
        notes += ("ImageNet's mean and standard deviation are used, because its files state none",)
    stride, fps, assumed = read_pace(processor)
    margin = processor.get("size") != {"shortest_edge": side}  # as transformers' own processor always does
    data = Video(
        frames=frames, stride=stride, fps=fps, size=(side, side), patch=patch, tubelet=tubelet, channels=channels,
        mean=mean, std=std, eval_crop="margin" if margin else "crop",
    )  # fmt: skip
    return data, notes + assumed


def read_pace(processor: dict[str, Any]) -> tuple[int, float, tuple[str, ...]]:
    """Return stride and frames per second of clips (one is 0), with a note if the processor states none."""
    stride, fps = positive_int(processor, "frame_stride"), processor.get("fps", 0)
    if stride:
        return stride, 0.0, ()
    if isinstance(fps, int | float) and 0 < fps < 1000:
        return 0, float(fps), ()
    return 0, FPS, (f"clips have {FPS:g} frames per second, as in V-JEPA 2's training, because its files state none",)


def to_external(encoder: StateDict, predictor: StateDict | None) -> StateDict:
    """Return our tensors under the names of transformers."""
    tensors = ENCODER.to_external(encoder)
    if predictor is not None:
        tensors |= PREDICTOR.to_external(predictor) | {MASK_TOKENS: predictor["mask_token"][:, None].contiguous()}
    return tensors


def write_vjepa2(encoder: PretrainedEncoder, folder: Path) -> bool:
    """Write a folder for AutoModel and AutoVideoProcessor; return whether it has a predictor.

    Raises UserError if their V-JEPA 2 cannot represent our encoder.
    """
    check_is_vjepa2(encoder)
    method, predictor = encoder.config.method, None
    if encoder.predictor is not None and isinstance(method, JEPA) and method.target_dim == method.encoder.dim:
        rows = encoder.predictor.state_dict()  # without those of the output that predict pixels
        predictor = {name: x[: method.target_dim] if name.startswith("proj.") else x for name, x in rows.items()}
    with atomic_write(folder / WEIGHTS_FILE) as temporary:
        save_file(to_external(encoder.encoder.state_dict(), predictor), temporary, {"format": "pt"})
    write_json(vjepa2_config(encoder, predictor is not None), folder / "config.json")
    write_json(processor_config(encoder.data), folder / PROCESSOR_FILE)
    return predictor is not None


def check_is_vjepa2(encoder: PretrainedEncoder) -> None:
    """Raise UserError if transformers' V-JEPA 2 cannot represent a part of our encoder."""
    method, data = encoder.config.method, encoder.data
    parts = {
        "networks of a plug-in": type(encoder.network) is not ViT,
        f"positions other than --method.encoder.positions {POSITIONS}": method.encoder.positions != POSITIONS,
        "frames that are not square": data.size[0] != data.size[1],
    }
    if unsupported := [name for name, is_used in parts.items() if is_used]:
        raise UserError(
            f"Hugging Face's vjepa2 has no {' and no '.join(unsupported)}: try --format safetensors or torch"
        )


def vjepa2_config(encoder: PretrainedEncoder, has_predictor: bool) -> dict[str, Any]:
    """Return the fields of transformers' VJEPA2Config."""
    method, data = encoder.config.method, encoder.data
    sizes = method.encoder
    predictor = {}
    if has_predictor:
        narrow = method.predictor
        predictor = {
            "pred_hidden_size": narrow.dim,
            "pred_num_hidden_layers": narrow.depth,
            "pred_num_attention_heads": narrow.num_heads or sizes.num_heads,
            "pred_num_mask_tokens": narrow.mask_tokens,
        }
    return {
        "architectures": ["VJEPA2Model"],
        "model_type": MODEL_TYPE,
        "hidden_size": sizes.dim,
        "num_hidden_layers": sizes.depth,
        "num_attention_heads": sizes.num_heads,
        "mlp_ratio": sizes.mlp_ratio,
        "layer_norm_eps": EPS,
        "crop_size": data.size[0],
        "patch_size": data.patch,
        "frames_per_clip": data.frames,
        "tubelet_size": data.tubelet,
        "in_chans": data.channels,
        **FIXED,
        **predictor,
    }


def processor_config(data: Video) -> dict[str, Any]:
    """Return the processor for our evaluation view: bilinear, our mean and std.

    The distance of frames is for our reader; transformers takes the frames that it is given.
    Differs: transformers' VJEPA2VideoProcessor ignores `size` and always crops the middle 7/8 of the largest box.
    """
    side = data.size[0]
    return {
        "video_processor_type": "VJEPA2VideoProcessor",
        "do_convert_rgb": data.channels == 3,
        "do_resize": True,
        "resample": 2,
        "size": {"shortest_edge": side * 256 // 224 if data.eval_crop == "margin" else side},
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(data.mean),
        "image_std": list(data.std),
        **({"fps": data.fps} if data.fps else {"frame_stride": data.stride}),
    }
