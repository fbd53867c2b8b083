"""The future of a clip, given its sound: at a junction, only a tone tells whether the dot turns left or right.

    python -m studies.video.future_with_sound --out runs/heard

Clips of `studies.video.two_futures`, each with a second of sound: a low tone in noise if the dot turns left, a high one
if it turns right. An encoder of the sound is trained alone (`audio-small`) and frozen. From the visible half of a clip,
a JEPA predicts the rest, given what the encoder makes of the sound (`conditioned`). Measured on new clips, each
rendered with both futures, along the difference of both futures' targets: 0.25 is the mean of both, 0 the right one, 1
the wrong one; with the right sound, with that of the other future, and with none. Finished runs are kept.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.core.tables import print_table
from openjepa.core.types import Batch
from openjepa.data.synthetic.two_futures import render_junction
from openjepa.data.wav_files import wav_content
from openjepa.masking.causal import Causal
from openjepa.masking.stack import stack_masks
from openjepa.modalities.audio import Audio
from openjepa.modalities.video import Video
from openjepa.recipes.pairs import told_by_sound
from openjepa.training.config import load_config
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.run import pretrain
from openjepa.training.run_folder import load_newest_method
from openjepa.training.stages import Stages, run_stages
from openjepa.training.teachers import attach_teachers
from studies.video.two_futures import FRAMES, SIDE, TESTED, hide_future

CLIPS, RATE, PITCHES = 2000, 8000, (400.0, 900.0)  # Hz, of left and right

SOUND = Audio(rate=RATE, frames=96, bands=32)


@dataclass(frozen=True)
class Study:
    """Train and measure. A second call goes on where the first one stopped."""

    out: Path = Path("runs/heard")
    steps: tuple[int, int] = (300, 1500)  # of the encoder of sound, and of the prediction
    seed: int = 0


def render_sounds(future: Tensor, seed: int) -> np.ndarray:
    """Return a second of sound for each clip: a tone of about the pitch of its future, in noise."""
    rng = CounterRNG.of(seed, 0, np.arange(len(future)))
    pitch = torch.tensor(PITCHES)[future] * (0.9 + 0.2 * rng.uniform("pitch"))
    time = torch.arange(RATE) / RATE
    tone = 0.3 * torch.sin(2 * torch.pi * pitch[:, None] * time + 6.28 * rng.uniform("phase", 1))
    return (tone + 0.2 * (rng.uniform("noise", RATE) - 0.5)).numpy()


def write_pairs(folder: Path) -> Path:
    """Write clips and sounds under the same names."""
    if not (folder / "complete").exists():
        for part in ("clips", "sounds"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        clips, future = render_junction(CLIPS, FRAMES, SIDE, 0)
        sounds = render_sounds(future, 0)
        for number, clip in enumerate(clips.permute(0, 1, 3, 4, 2).numpy()):
            np.save(folder / "clips" / f"{number}.npy", clip)
            (folder / "sounds" / f"{number}.wav").write_bytes(wav_content(sounds[number], RATE))
        (folder / "complete").touch()
    return folder


def stages_of(study: Study, folder: Path) -> Stages:
    """Return the runs: the encoder of sound, and the prediction."""
    clips = Video(frames=FRAMES, stride=1, size=(SIDE, SIDE), patch=8, crop_scale=(1.0, 1.0), crop_aspect=(1.0, 1.0))
    sound, video = told_by_sound(clips, SOUND)
    alike = {"seed": study.seed, "threads": 1, "workers": 0, "device": "cpu", "report": False, "resume": "if-any"}
    heard = dataclasses.replace(SOUND, root=(str(folder / "sounds"),))
    pairs = dataclasses.replace(video.data, root=(str(folder / "clips"), str(folder / "sounds")))
    masks = Causal(context_fraction=(0.5, 0.5))
    return Stages((
        dataclasses.replace(sound, data=heard, steps=study.steps[0], **alike),
        dataclasses.replace(video, data=pairs, masks=masks, steps=study.steps[1], **alike),
    ))  # fmt: skip


@torch.no_grad()
def measure(run: Path) -> dict[str, float]:
    """Return the mean squared error along the difference of both futures, by which sound is heard."""
    settings = load_config(run)
    method, _ = load_newest_method(run, settings)
    attach_teachers(settings, method, torch.device("cpu"))
    method.eval()
    data, future = settings.data.first, torch.arange(2).repeat_interleave(TESTED)
    clips = torch.cat([render_junction(TESTED, FRAMES, SIDE, 1, future[future == each])[0] for each in (0, 1)])
    sounds = torch.from_numpy(render_sounds(future, 2))[:, None]
    views = torch.stack([settings.data.second.read(each) for each in sounds])
    mask = hide_future(data)
    mask = mask._replace(context=mask.context.repeat(2, 1), target=mask.target.repeat(2, 1, 1))
    targets = method.targets(Batch((clips, views), torch.arange(2 * TESTED), (mask,)))
    tokens = data.tokens(clips)
    (masked,) = stack_masks(tokens, targets.targets.x, (mask,))
    (context,) = method.context_encoder(tokens, masked.keep)
    truth = masked.targets.flatten(1)
    other = truth.roll(TESTED, 0)
    heard = {
        "its own sound": targets.condition,
        "the sound of the other future": targets.condition.roll(TESTED, 0),
        "no sound": torch.zeros_like(targets.condition),
    }
    errors = {}
    for name, condition in heard.items():
        predicted = method.predict(context, masked, condition).flatten(1).float()
        along = ((predicted - truth) * (other - truth)).sum(1) / (other - truth).square().sum(1)
        errors[name] = float(along.square().mean())
    return errors


def main(study: Study) -> None:
    """Train, measure, and print the table."""
    retain_freed_memory()  # as `jepa` does
    torch.set_num_threads(1)
    folder = write_pairs(study.out / "pairs")
    errors = measure(run_stages(stages_of(study, folder), study.out, pretrain))
    print_table(("the predictor hears", "error along the difference"), [(name, f"{each:.3f}") for name, each in
                errors.items()], "future of a clip")  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Study))
