"""Read and write the official I-JEPA checkpoints (*.pth.tar) without executing anything in them."""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.interop.imported import ImportedWeights, ImportOptions, Preprocessing, config_of_sizes, to_our_names
from openjepa.interop.key_maps import OFFICIAL_PREDICTOR, TIMM, StateDict, position_table, read_sizes, strip_prefix
from openjepa.interop.pretrained import PretrainedEncoder
from openjepa.methods.jepa import JEPA
from openjepa.training.run_folder import Provenance

LICENSE = "cc-by-nc-4.0"  # license of the released weights

MAX_PICKLE_BYTES = 2**24  # size limit of the pickle that lists the tensors

NETWORKS = {"target": "target_encoder", "context": "encoder", "predictor": "predictor"}

KEY_MAPS = {"target": TIMM, "context": TIMM, "predictor": OFFICIAL_PREDICTOR}

PREFIX = "module."

VIDEO_STEM_AXES = 5  # of the weight of a convolution over time, rows and columns

ALLOWED_GLOBALS = frozenset(  # the only names that a list of tensors needs
    {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}
    | {f"torch {kind}Storage" for kind in ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Bool", "Byte")}
)

DAMAGE_ERRORS = (  # what restricted loading raises on damaged files
    pickle.UnpicklingError, RuntimeError, ValueError, KeyError, TypeError, IndexError, EOFError, AttributeError,
    OverflowError, AssertionError, OSError, zipfile.BadZipFile,
)  # fmt: skip


def read_official(file: Path, options: ImportOptions) -> ImportedWeights:
    """Read all networks of an official checkpoint.

    The paper evaluates the target encoder (appendix A.2); Hugging Face and timm publish the context encoder.

    Raises:
        UserError: the file is damaged, incomplete or of another architecture.
    """
    content = load_restricted(file)
    states = {
        name: check_state_dict(content.get(key), f"{file}: {key}") for name, key in NETWORKS.items() if key in content
    }
    if not states.keys() & {"target", "context"}:
        raise UserError(
            f"{file} is not an I-JEPA checkpoint: it has {', '.join(map(str, content))[:80]}, but no encoder"
        )
    if any(x.ndim == VIDEO_STEM_AXES for state in states.values() for x in state.values()):
        raise UserError(
            f"{file} holds networks of video, whose tensors do not say which positions they were trained with: give "
            "V-JEPA 2's folder of Hugging Face, such as hf:facebook/vjepa2-vitl-fpc64-256"
        )
    notes = ()
    if "target" not in states:
        states["target"] = states.pop("context")
        notes = ("the file has no target encoder: this is the context encoder",)
    sizes = {name: read_sizes(state, KEY_MAPS[name], f"{file}: {NETWORKS[name]}") for name, state in states.items()}
    settings = config_of_sizes(sizes["target"], sizes.get("predictor"), options.num_heads, Preprocessing(), str(file))
    networks = {
        name: to_our_names(state, KEY_MAPS[name], settings, name, f"{file}: {NETWORKS[name]}")
        for name, state in states.items()
    }
    epoch = content.get("epoch")
    notes += (f"after {epoch} epochs",) if type(epoch) is int else ()
    return ImportedWeights(settings, networks, Provenance(file.name, "official", options.license or LICENSE, notes))


def check_state_dict(state: Any, source: str) -> StateDict:
    """Return the tensors of one network. Raises UserError if they are not a dict of tensors."""
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()) or not state:
        raise UserError(f"{source} is not a dict of tensors")
    return strip_prefix(state, PREFIX)


def load_restricted(file: Path) -> dict[Any, Any]:
    """Load a torch checkpoint that holds only tensors and plain values, memory-mapped.

    Before loading, check that the file is an archive without compression, that its contents are not larger than the
    file, that its checksums match, and that the pickle names nothing executable. Then torch's restricted loader
    (`weights_only`) reads it.

    Raises:
        UserError: a check fails, or the file is not a dict.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if any(each.compress_type != zipfile.ZIP_STORED for each in members):
                raise UserError(f"{file} is compressed: unpack it, or save it again with torch.save")
            listing = next((each for each in members if each.filename.endswith("/data.pkl")), None)
            if listing is None:
                raise UserError(f"{file} is an archive, but was not written by torch.save: give an official *.pth.tar")
            if sum(each.file_size for each in members) > file.stat().st_size or listing.file_size > MAX_PICKLE_BYTES:
                raise UserError(f"{file} claims contents larger than the file: it is not loaded")
            check_pickle(archive.read(listing), file)
            if bad := archive.testzip():
                raise UserError(f"{file} is damaged at {bad}: download it again")
        content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except DAMAGE_ERRORS as error:
        raise UserError(
            f"{file} is not a complete torch checkpoint ({first_line(error)}): "
            "is it a *.pth.tar, and is the download complete?"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is not a checkpoint: it holds a {type(content).__name__}, not a dict")
    return content


def check_pickle(listing: bytes, file: Path) -> None:
    """Raise UserError unless a pickle names only tensors and their storages."""
    for code, argument, _ in pickletools.genops(listing):
        if code.name == "GLOBAL" and argument not in ALLOWED_GLOBALS:
            raise UserError(f"{file} would run {str(argument).replace(' ', '.')}: it is not loaded")
        if code.name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"):
            raise UserError(f"{file} would create objects ({code.name}): it is not loaded")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, for ours."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def write_official(networks: dict[str, StateDict], encoder: PretrainedEncoder, file: Path) -> Path:
    """Write our networks in the layout of the released code."""
    method, content = encoder.config.method, {}
    assert isinstance(method, JEPA)
    for name, state in networks.items():
        table = position_table(
            encoder.config.data.grid, (method.predictor if name == "predictor" else method.encoder).dim
        )
        external = KEY_MAPS[name].to_external(state, table)
        content[NETWORKS[name]] = {PREFIX + key: x.clone() for key, x in external.items()}
    with atomic_write(file) as temporary:
        torch.save({**content, "epoch": 0}, temporary)
    return file
