"""`jepa decode train`: a decoder on top of a run, which stays as it is."""

from __future__ import annotations

from pathlib import Path

from openjepa.core.errors import UserError
from openjepa.recipes.decoder import TrainDecoder, decoder_config
from openjepa.training.config import config_differences, load_config
from openjepa.training.run import pretrain


def train(settings: TrainDecoder) -> Path:
    """The decoder's folder, a run like any other: resumed exactly, logged, with its curves."""
    wanted = decoder_config(settings)
    if (wanted.out / "config.json").is_file():
        other = [each for each in config_differences(load_config(wanted.out), wanted) if each.startswith("method.")]
        if other:
            raise UserError(
                f"{wanted.out} holds another decoder ({'; '.join(other)}): give those settings, or another --out"
            )
    pretrain(wanted)
    return wanted.out
