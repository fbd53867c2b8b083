"""Read damaged and hostile recordings: none may crash the process, hang, exhaust its memory or open another file.

    python benchmarks/fuzz_audio.py --cases 500

Every case is a function of the seed and its number: a recording of one of many codecs, with one to four changes. A
random stretch is read twice, as a loader does, and must be the same. `jepa doctor` must call usable what the loader
takes; but it reads from the start on, and so refuses an MP3 file whose start is damaged, of which a loader may get a
later stretch. Each case has 2 GiB of memory and 20 seconds, in a process whose crash is seen. Prints the number of
cases per result, and exits with 1 if there was any other result.
"""

import io
import random
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.core.rng import CounterRNG
from openjepa.data.audio_doctor import examine_sound
from openjepa.data.audio_files import Stretch, decode, draw_stretches
from openjepa.data.audio_io import open_sound
from openjepa.data.image_opening import Undecodable
from openjepa.data.wav_files import wav_content
from openjepa.modalities.audio import Audio
from tests.mutants import mutate, run_benchmark

CODECS = {  # suffix -> format and subtypes of soundfile
    "wav": ("WAV", ("PCM_U8", "PCM_24", "FLOAT", "DOUBLE", "ULAW", "MS_ADPCM")),
    "flac": ("FLAC", ("PCM_16",)),
    "ogg": ("OGG", ("VORBIS", "OPUS")),
    "mp3": ("MP3", ("MPEG_LAYER_III",)),
    "aiff": ("AIFF", ("PCM_16",)),
}

DATA = Audio(rate=8000, frames=32, bands=16, patch=4, mean=(-40.0,), std=(20.0,), gain=6.0, speed=(0.8, 1.25))


def sample_sounds() -> dict[str, bytes]:
    """Return short recordings by a name with the right suffix; plain WAV files alone without soundfile."""
    time = np.arange(4000) / 8000
    sound = 0.3 * np.sin(2 * np.pi * 440 * time) + 0.1 * np.random.default_rng(0).normal(size=len(time))
    content = {"plain.wav": wav_content(sound, 8000)}
    try:
        import soundfile
    except ImportError:
        return content
    for suffix, (kind, subtypes) in CODECS.items():
        for subtype in subtypes:
            stream = io.BytesIO()
            soundfile.write(stream, sound, 8000, format=kind, subtype=subtype)
            content[f"{subtype}.{suffix}"] = stream.getvalue()
    return content


class Sounds:
    """Read a stretch of a mutated recording as a loader does."""

    accepted = frozenset({"decoded", "decoded, with findings", "decoded, refused by the doctor", "undecodable"})

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed, self.good = folder, seed, sample_sounds()

    def __call__(self, number: int) -> str:
        dice = random.Random(f"{self.seed} sound {number}")
        name, other = dice.choice(list(self.good)), dice.choice(list(self.good))
        file = self.folder / f"case{Path(name).suffix}"
        file.write_bytes(mutate(self.good[name], dice, self.good[other]))
        ((stretch,),) = draw_stretches(DATA, 1, CounterRNG.of(0, number, np.array([number])))
        try:
            one, same = (read_stretch(str(file), stretch) for _ in range(2))
        except Undecodable as error:
            assert str(error) and "\n" not in str(error)
            return "undecodable"
        assert torch.equal(one, same) and one.isfinite().all() and DATA.tokens(one[None]).x.isfinite().all()
        facts = examine_sound(str(file))
        if not facts.is_usable and name.endswith(".mp3"):
            return "decoded, refused by the doctor"
        assert facts.is_usable, f"the doctor refuses what the loader takes: {facts.reason}"
        return "decoded, with findings" if facts.findings else "decoded"


def read_stretch(file: str, stretch: Stretch) -> torch.Tensor:
    """Read a stretch of a recording as a loader does."""
    with open_sound(file) as sound:
        return torch.from_numpy(decode(DATA, sound, stretch))


if __name__ == "__main__":
    run_benchmark(__doc__ or "", "recordings", Sounds)
