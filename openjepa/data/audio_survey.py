"""Choose the rate and the length of a stretch by the recordings."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from openjepa.core.errors import UserError
from openjepa.data.audio_io import open_sound
from openjepa.data.image_io import Undecodable

SURVEYED = 256  # recordings whose headers are read

USUAL_RATE = 16_000  # Hz, the highest that is chosen: most encoders of sound have it

LONGEST = 10.0  # seconds of a stretch

FINE, COARSE = 8, 16  # sides of a patch, for stretches up to FINE_SECONDS and longer ones

FINE_SECONDS = 2.0


class Survey(NamedTuple):
    """What the headers of sampled recordings say."""

    rates: Counter[int]
    seconds: np.ndarray


def survey_sounds(paths: list[str]) -> Survey:
    """Read the headers of evenly spaced recordings. Raises UserError if none can be decoded."""
    rates, seconds, reason = Counter[int](), [], ""
    for at in np.linspace(0, len(paths) - 1, min(SURVEYED, len(paths))).astype(int).tolist():
        try:
            with open_sound(paths[at]) as sound:
                rates[sound.rate] += 1
                seconds.append(sound.frames / sound.rate)
        except Undecodable as error:
            reason = reason or f"{paths[at]}: {error}"
    if not seconds:
        raise UserError(f"none of the sampled recordings can be decoded, the first is {reason}")
    return Survey(rates, np.array(seconds))


def suggest_lengths(data: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the modality with a rate and a length that fit the recordings, and the reasons."""
    survey = survey_sounds(data.listing().paths)
    rate, _ = survey.rates.most_common(1)[0]
    typical = float(np.percentile(survey.seconds, 90))
    seconds = min(max(typical, 0.3), LONGEST)
    patch = FINE if seconds <= FINE_SECONDS else COARSE
    frames = max(2, round(seconds / data.hop / patch)) * patch
    chosen = min(rate, USUAL_RATE)
    low, middle, high = np.percentile(survey.seconds, (0, 50, 100))
    rates = ", ".join(f"{each:,} Hz" for each, _ in survey.rates.most_common(3))
    reasons = [
        f"{middle:.1f} s long on the median ({low:.1f} to {high:.1f}), {rates}: stretches of {frames * data.hop:g} s, "
        f"patches of {patch} mel bands × {patch * data.hop:g} s"
    ]
    if chosen < rate:
        reasons.append(f"resampled to {chosen:,} Hz; --data.rate {rate} keeps what is above {chosen // 2:,} Hz")
    return dataclasses.replace(data, rate=chosen, frames=frames, patch=patch), tuple(reasons)
