"""The form of V-JEPA 2-AC on a real robot: does the action that was taken fit best? A check of the pipeline, no more.

    python -m studies.world.bridge --data robot/bridge --out runs/bridge

25 episodes of a robot arm, ten steps each, seen by three cameras (Bridge data, 64×64 pixels). In five folds, an encoder
is trained on the frames of 20 episodes (`world-model`) and frozen; a block-causal transformer learns to predict its
latents from those before, actions and states (`world-transformer`). On the other five, the energy of an action is the
distance of the prediction to the next latent: is it lower for the action that was taken than for its negation (without
the gripper), and than for the action of another step? Intervals resample episodes. One scene only: nothing here is
said about a new one. Finished runs are kept.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Bool, Float
from torch import Tensor

from openjepa.core.fileio import write_text
from openjepa.core.tables import print_table
from openjepa.methods.world_model import WorldModel
from openjepa.methods.world_transformer import TransformerWorld, WorldTransformer
from openjepa.modalities.trajectory import Trajectory
from openjepa.nn.world import encode_steps
from openjepa.recipes.world_rooms import rooms_stages
from openjepa.training.config import Pretrain, load_config
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.run import pretrain
from openjepa.training.run_folder import load_newest_method
from openjepa.training.stages import Stages, run_stages

POSE, ACTION = 6, 7  # values of an action that are a motion, and with the gripper

FOLDS, HELD_OUT = 5, 5


@dataclass(frozen=True)
class Study:
    """Train and measure. A second call goes on where the first one stopped."""

    data: Path  # folder of frames.npy, states.npy and actions.npy
    out: Path = Path("runs/bridge")
    steps: tuple[int, int] = (1500, 800)  # of the encoder and of the transformer
    seed: int = 0


@dataclass(frozen=True)
class Bridge:
    """Frames of all cameras, and actions and states on a common scale, as one vector for each step."""

    frames: np.ndarray  # episode, camera, step, height, width, channel
    conditions: np.ndarray  # episode, step, action and state

    @classmethod
    def read(cls, folder: Path) -> Bridge:
        frames, states, actions = (np.load(folder / f"{name}.npy") for name in ("frames", "states", "actions"))
        actions = actions / actions.std((0, 1))  # not shifted: the negation of a motion is the motion back
        states = (states - states.mean((0, 1))) / states.std((0, 1))
        conditions = np.concatenate([actions, states], 2)[:, :-1]  # the last action leaves the episode
        return cls(frames.transpose(0, 2, 1, 3, 4, 5), conditions.astype(np.float32))


def write_episodes(bridge: Bridge, rows: np.ndarray, folder: Path) -> Path:
    """Write an .npz file for each episode and camera."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        for camera, frames in enumerate(bridge.frames[row]):
            np.savez(folder / f"{row:02d}-{camera}.npz", observations=frames, actions=bridge.conditions[row])
    return folder


def settings_of(study: Study, folder: Path) -> Stages:
    """Return the encoder's run and the transformer's."""
    base = rooms_stages("two-rooms").runs[0]
    data = Trajectory(root=(str(folder),), size=(64, 64), patch=8, channels=3, action_dim=14, steps=4)
    encoder = dataclasses.replace(
        base,
        data=data,
        method=WorldModel(ramp=16 * study.steps[0] // 5),
        steps=study.steps[0],
        seed=study.seed,
        threads=1,
        workers=0,
        device="cpu",
        report=False,
        resume="if-any",
    )
    method = WorldTransformer(world=encoder.method)
    transformer: Pretrain = dataclasses.replace(encoder, method=method, steps=study.steps[1])
    return Stages((encoder, transformer))


@torch.no_grad()
def compare_energies(run: Path, frames: np.ndarray, conditions: np.ndarray) -> Bool[Tensor, "R 2"]:
    """Return for each camera and step whether the action taken has less energy than its negation, and than another."""
    settings_data, method = load(run)
    view = torch.from_numpy(frames).flatten(0, 1).permute(0, 1, 4, 2, 3)  # episodes · cameras, frames, C H W
    taken = torch.from_numpy(conditions).repeat_interleave(frames.shape[1], 0)
    latents = encode_steps(method, settings_data.tokens(view), view.shape[1])
    latents = F.layer_norm(latents, latents.shape[-1:])
    negated, other = taken.clone(), taken.clone()
    negated[..., :POSE] *= -1
    other[..., :ACTION] = taken[..., :ACTION].roll(conditions.shape[1] // 2, 1)  # of the same episode, half of it away
    own, *others = (energies(method, latents, each) for each in (taken, negated, other))
    return torch.stack([own < each for each in others], -1).flatten(0, 1)


def load(run: Path) -> tuple[Trajectory, TransformerWorld]:
    """Load the settings of the data and the world of a finished run."""
    settings = load_config(run)
    method, _ = load_newest_method(run, settings)
    return settings.data, method.eval().world


def energies(
    world: TransformerWorld, latents: Float[Tensor, "B F N D"], actions: Float[Tensor, "B T A"]
) -> Float[Tensor, "B T"]:
    """Return the distance of each next latent to its prediction from the latent before and the action."""
    steps = actions.shape[1]
    predicted = world.step(latents[:, :-1].flatten(0, 1), actions.flatten(0, 1))
    return (predicted - latents[:, 1:].flatten(0, 1)).abs().mean((1, 2)).unflatten(0, (-1, steps))


def interval(right: np.ndarray) -> str:
    """Return the mean in percent, with the 95 % interval over episodes."""
    rng = np.random.default_rng(0)
    means = [right[rng.integers(0, len(right), len(right))].mean() for _ in range(2000)]
    low, high = np.percentile(means, (2.5, 97.5))
    return f"{100 * right.mean():.1f} ({100 * low:.1f} to {100 * high:.1f})"


def main(study: Study) -> None:
    """Train and measure every fold, and print the table."""
    retain_freed_memory()  # as `jepa` does
    torch.set_num_threads(1)
    bridge = Bridge.read(study.data)
    order = np.random.default_rng(0).permutation(len(bridge.frames))
    rights = []
    for fold in range(FOLDS):
        held_out = order[fold * HELD_OUT : (fold + 1) * HELD_OUT]
        out = study.out / f"fold{fold}"
        file = out / "energies.json"
        if not file.exists():
            folder = write_episodes(bridge, np.setdiff1d(order, held_out), out / "episodes")
            run = run_stages(settings_of(study, folder), out, pretrain)
            right = compare_energies(run, bridge.frames[held_out], bridge.conditions[held_out])
            by_episode = right.unflatten(0, (HELD_OUT, -1)).float().mean(1)
            write_text(file, json.dumps(by_episode.tolist(), indent=1))
        rights += json.loads(file.read_text(encoding="utf-8"))
    right = np.array(rights)
    rows = [(name, interval(right[:, column])) for column, name in enumerate(("its negation", "another step's action"))]
    print_table(("the action taken has less energy than", "% of steps (95 % interval)"), rows, f"{len(right)} episodes")


if __name__ == "__main__":
    main(tyro.cli(Study))
