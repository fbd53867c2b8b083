"""Read damaged and hostile videos: none may crash the process, hang, exhaust its memory or open another file.

    python benchmarks/fuzz_video.py --cases 500

Every case is a function of the seed and its number: a clip of one of many codecs and containers, with one to four
changes. Random frames are read twice and must be the same; `jepa doctor` must call the file what the loader does. Each
case has 2 GiB of memory and 20 seconds, in a process whose crash is seen. Prints the number of cases per result, and
exits with 1 if there was any other result.
"""

import random
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.data.image_opening import Undecodable
from openjepa.data.video_doctor import examine_video
from openjepa.data.video_io import open_frames
from tests.clips import ENCODINGS, encode
from tests.mutants import mutate, run_benchmark


class Videos:
    """Read frames of a mutated clip as a loader does."""

    accepted = frozenset({"decoded", "decoded, with findings", "undecodable"})

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed = folder, seed
        self.good = {name: encode(name, count=30) for name in ENCODINGS}
        self.good["mp4 with sound"] = encode("mp4 with B-frames", count=30, sound=True)
        self.good["rotated"] = encode("mov", count=30, rotation=90)

    def __call__(self, number: int) -> str:
        dice = random.Random(f"{self.seed} video {number}")
        name, other = dice.choice(list(self.good)), dice.choice(list(self.good))
        file = self.folder / "case.mp4"
        file.write_bytes(mutate(self.good[name], dice, self.good[other]))
        try:
            with open_frames(str(file), 3) as frames:
                count = len(frames.times)
                assert count and (np.diff(frames.times) >= 0).all() and np.isfinite(frames.times).all()
                index = sorted(dice.choices(range(count), k=16))
                clip = frames.read(index)
                assert clip.shape == (16, *frames.size, 3) and (frames.read(index) == clip).all()
        except Undecodable as error:
            assert str(error) and "\n" not in str(error)
            facts = examine_video(str(file))
            assert not facts.width and facts.reason, "the loader refuses what the doctor takes"
            return "undecodable"
        facts = examine_video(str(file))
        assert facts.width, f"the doctor refuses what the loader takes: {facts.reason}"
        return "decoded, with findings" if facts.findings else "decoded"


if __name__ == "__main__":
    run_benchmark(__doc__ or "", "videos", Videos)
