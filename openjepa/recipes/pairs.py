"""Clips and their sound: from sound to lips, and the future of a clip given its sound."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from openjepa.methods.conditioned import Conditioned
from openjepa.methods.distill import Distill
from openjepa.modalities.audio import Audio
from openjepa.modalities.pair import Pair
from openjepa.modalities.video import Video
from openjepa.recipes.audio import tune_for_audio
from openjepa.recipes.video import tune_for_video
from openjepa.training.config import Pretrain
from openjepa.training.stages import Stages

SOUND = Audio(rate=16_000, frames=144, hop=0.02, window=0.04)  # 2.9 seconds

MOUTH = (0.35, 0.6, 0.63, 0.88)  # of the 360×288 pixels of GRID's clips

LIPS = Video(frames=24, stride=3, size=(32, 48), patch=8, region=MOUTH)  # as long: 72 frames at 25 per second

CLIPS = dataclasses.replace(LIPS, size=(64, 64), region=(0.0, 0.0, 1.0, 1.0))


def jep_kd() -> Stages:
    """JEP-KD: lips learn from sound, in three stages on clips of three seconds, whose mouths are at the same place.

    An encoder of the sound (JEPA); an encoder of the mouth (causal JEPA), which has never heard anything; then it
    learns to generate the embeddings that the first one, frozen, gives to every moment of the sound. With labels, jepa
    probe runs/lips/stage-3 --probes finetune --data.root clips/ --labels table.csv --label word fine-tunes the last.

    Command: jepa pretrain jep-kd --data.root clips/ --out runs/lips --threads 1
    Takes: 1,000 steps a stage.
    Source: Sun, Yang and Qin, 2024, arXiv 2403.18843, for the stages; their sizes are not published.
    Differs: both encoders are trained without labels; a task head comes after the last stage.
    """
    sound, lips = tune_for_audio(SOUND), tune_for_video(LIPS)
    method = Distill(
        lips.method.encoder,
        teacher="stage-1",
        predictor=lips.method.predictor,
        teacher_dim=sound.method.encoder.dim,
        queries=SOUND.grid,
        adversarial=0.1,
    )
    pairs = dataclasses.replace(lips, data=Pair(first=LIPS, second=SOUND), method=method, init_from=Path("stage-2"))
    return Stages(tuple(dataclasses.replace(run, steps=1000) for run in (sound, lips, pairs)))


def future_with_sound() -> Stages:
    """Predict the future of a clip from its first part and from its sound, in two stages, on clips of three seconds.

    An encoder of the sound (JEPA), then a causal JEPA of the whole frame, whose predictor gets the frozen features of
    the sound. The metric other_condition_loss is the loss with the sound of another clip.

    Command: jepa pretrain future-with-sound --data.root clips/ --out runs/future --threads 1
    Takes: 1,000 steps a stage.
    Source: this project's; conditions as in IWM, arXiv 2403.00504.
    """
    return Stages(tuple(dataclasses.replace(run, steps=1000) for run in told_by_sound(CLIPS, SOUND)))


def told_by_sound(clips: Video, sound: Audio) -> tuple[Pretrain, Pretrain]:
    """Return the runs of an encoder of sound, and of a causal JEPA of clips whose predictor gets its features."""
    first, second = tune_for_audio(sound), tune_for_video(clips)
    base = second.method
    method = Conditioned(
        base.encoder,
        target_layers=base.target_layers,
        target_transforms=base.target_transforms,
        predictor=base.predictor,
        teacher="stage-1",
        teacher_dim=first.method.encoder.dim,
    )
    return first, dataclasses.replace(second, data=Pair(first=clips, second=sound), method=method)
