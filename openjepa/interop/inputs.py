"""Point a modality at other files, and store it beside what was made with it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from openjepa.core import registry
from openjepa.core.capabilities import EvaluationClips, modality_name, with_root
from openjepa.core.config import from_plain
from openjepa.core.errors import UserError
from openjepa.core.options import EvalCrop
from openjepa.core.protocols import Modality
from openjepa.data.archives import parse_address
from openjepa.data.clips import parse_clip_name


def replace_root(modality: Any, root: tuple[str, ...], eval_crop: EvalCrop = "crop") -> Any:
    """Return the modality for other files. Raises UserError if it crops nothing and another crop is given."""
    if "eval_crop" in {each.name for each in dataclasses.fields(modality)}:
        return dataclasses.replace(modality, root=root, eval_crop=eval_crop)
    if eval_crop != "crop":
        raise UserError(f"--eval-crop {eval_crop} is for images, not for {modality_name(modality)}: leave it out")
    return with_root(modality, root)


def with_eval_clips(encoder: Any, clips: int) -> Any:
    """Return an encoder that averages features over so many clips of a sample; 0: as its modality says.

    Raises UserError if samples of its modality are not clips.
    """
    if not clips:
        return encoder
    if not isinstance(encoder.modality, EvaluationClips):
        raise UserError(f"--eval-clips {clips} is for video, not for {modality_name(encoder.modality)}: leave it out")
    return dataclasses.replace(encoder, modality=dataclasses.replace(encoder.data, eval_clips=clips))


def modality_to_text(modality: Any) -> str:
    """Return the settings of a modality without its files as JSON."""
    plain = dataclasses.asdict(with_root(modality, ()))
    return json.dumps({"type": registry.name_of("modality", modality), **plain})


def modality_from_text(text: str) -> Modality:
    """Return the modality that `modality_to_text` wrote. Raises UserError if it is unknown."""
    plain = json.loads(text)
    return from_plain(registry.find("modality", plain.pop("type", None)), plain)


def source_exists(source: str) -> bool:
    """Return whether the file of a sample exists: a file, a folder of frames, or an archive that contains it.

    Of FILE#NUMBER and FILE#t=SECONDS, the file.
    """
    address = parse_address(source)
    file, _, part = source.rpartition("#")
    names_part = part.isdecimal() or parse_clip_name(source)[1] is not None
    return Path(address.archive if address else source).exists() or (names_part and Path(file).exists())


def with_every(modality: Any, seconds: float) -> Any:
    """Return a modality with a sample every so many seconds of a file. Raises UserError if its files are not cut so."""
    if "every" in {each.name for each in dataclasses.fields(modality)}:
        return dataclasses.replace(modality, every=seconds)
    if seconds:
        raise UserError(f"--every {seconds:g} is for video, not for {modality_name(modality)}: leave it out")
    return modality
