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

LICENSE = "cc-by-nc-4.0"  # of the released weights

MAX_PICKLE_BYTES = 2**24  # bytes of the pickle that lists the tensors

NETWORKS = {"target": "target_encoder", "context": "encoder", "predictor": "predictor"}

KEY_MAPS = {"target": TIMM, "context": TIMM, "predictor": OFFICIAL_PREDICTOR}

PREFIX = "module."

ALLOWED_GLOBALS = frozenset(  # what a list of tensors names, and nothing else may
    {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}
    | {f"torch {kind}Storage" for kind in ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Bool", "Byte")}
)

DAMAGE_ERRORS = (  # what restricted loading raises on files that are not what they seem
    pickle.UnpicklingError, RuntimeError, ValueError, KeyError, TypeError, IndexError, EOFError, AttributeError,
    OverflowError, AssertionError, OSError, zipfile.BadZipFile,
)  # fmt: skip


def read_official(file: Path, asked: ImportOptions) -> ImportedWeights:
    """All networks of a checkpoint. Mistake in a sentence if it is damaged, incomplete or of another architecture.

    The target encoder is the one that the paper evaluates (appendix A.2); Hugging Face and timm ship the context encoder.
    """
    content = load_restricted(file)
    theirs = {
        name: check_state_dict(content.get(key), f"{file}: {key}") for name, key in NETWORKS.items() if key in content
    }
    if not theirs.keys() & {"target", "context"}:
        raise UserError(
            f"{file} is no checkpoint of I-JEPA: it has {', '.join(map(str, content))[:80]}, and no encoder"
        )
    notes = ()
    if "target" not in theirs:
        theirs["target"] = theirs.pop("context")
        notes = ("the file has no target encoder: this is the context encoder",)
    known = {name: read_sizes(state, KEY_MAPS[name], f"{file}: {NETWORKS[name]}") for name, state in theirs.items()}
    settings = config_of_sizes(known["target"], known.get("predictor"), asked.num_heads, Preprocessing(), str(file))
    networks = {
        name: to_our_names(state, KEY_MAPS[name], settings, name, f"{file}: {NETWORKS[name]}")
        for name, state in theirs.items()
    }
    epoch = content.get("epoch")
    notes += (f"after {epoch} epochs",) if type(epoch) is int else ()
    return ImportedWeights(settings, networks, Provenance(file.name, "official", asked.license or LICENSE, notes))


def check_state_dict(state: Any, where: str) -> StateDict:
    """The tensors of one network. Mistake if they are none."""
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()) or not state:
        raise UserError(f"{where} is no list of tensors")
    return strip_prefix(state, PREFIX)


def load_restricted(file: Path) -> dict[Any, Any]:
    """What a checkpoint of torch holds, its tensors in a map of the file. Mistake unless it is numbers and names alone.

    Looked at before anything is made of it: that it is an archive without compression, no larger inside than outside, whole by
    its check sums, and that what lists the tensors names nothing that could do something. Then torch's own restricted loader
    reads it.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if any(each.compress_type != zipfile.ZIP_STORED for each in members):
                raise UserError(f"{file} is compressed: unpack it, or save it again with torch.save")
            listing = next((each for each in members if each.filename.endswith("/data.pkl")), None)
            if listing is None:
                raise UserError(
                    f"{file} is an archive, but no checkpoint of torch.save: give a *.pth.tar of the authors"
                )
            if sum(each.file_size for each in members) > file.stat().st_size or listing.file_size > MAX_PICKLE_BYTES:
                raise UserError(f"{file} says that it is larger inside than outside: it is not loaded")
            check_pickle(archive.read(listing), file)
            if bad := archive.testzip():
                raise UserError(f"{file} is damaged at {bad}: download it again")
        content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except DAMAGE_ERRORS as error:
        raise UserError(
            f"{file} is no whole checkpoint of torch ({first_line(error)}): is it a *.pth.tar, and the download whole?"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is no checkpoint: it holds a {type(content).__name__}")
    return content


def check_pickle(listing: bytes, file: Path) -> None:
    """Mistake unless a pickle names nothing but tensors and what they are kept in."""
    for code, argument, _ in pickletools.genops(listing):
        if code.name == "GLOBAL" and argument not in ALLOWED_GLOBALS:
            raise UserError(f"{file} wants {str(argument).replace(' ', '.')} to be run: it is not loaded")
        if code.name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"):
            raise UserError(f"{file} wants objects to be made ({code.name}): it is not loaded")


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def write_official(networks: dict[str, StateDict], trained: PretrainedEncoder, file: Path) -> Path:
    """Networks of ours as the released code would have saved them."""
    method, content = trained.config.method, {}
    assert isinstance(method, JEPA)
    for name, state in networks.items():
        table = position_table(*trained.config.data.grid, method.predictor_dim if name == "predictor" else method.dim)
        theirs = KEY_MAPS[name].outward(state, table)
        content[NETWORKS[name]] = {PREFIX + each: x.clone() for each, x in theirs.items()}
    with atomic_write(file) as temporary:
        torch.save({**content, "epoch": 0}, temporary)
    return file
