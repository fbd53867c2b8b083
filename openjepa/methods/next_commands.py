"""What to type next with a finished run: (command, what it does), the most important first."""

from __future__ import annotations

from typing import Any

from openjepa.core.capabilities import PatchGrid, TubeletGrid, plural_of

Commands = tuple[tuple[str, str], ...]


def encoder_commands(run: str, data: Any) -> Commands:
    """Return the commands for an encoder: measure it, look at it, search with it, export it."""
    probe = f"jepa probe {run} --data.root LABELED_FOLDER"
    if not isinstance(data, PatchGrid | TubeletGrid):
        index = "features.safetensors"
        return (
            (probe, "next to the untrained encoder and other baselines"),
            (f"jepa embed {run} FILES --out {index} && jepa search {index} row:0", "files most similar to the first"),
            (f"jepa export {run} --format safetensors", "for openjepa.load and other tools"),
        )
    files = plural_of(data).upper()
    is_seen = files in ("IMAGES", "CLIPS")
    index = f"{'photos' if files == 'IMAGES' else files.lower()}.safetensors"
    return (
        (probe, f"accuracy, next to the untrained encoder and {'raw pixels' if is_seen else 'baselines'}"),
        (f"jepa show {run} {files}", f"figures for other {files.lower()}"),
        (f"jepa embed {run} {files} --out {index} && jepa search {index} {files[:-1]}", "the most similar files"),
        (f"jepa export {run} --format hf", "for transformers")
        if is_seen
        else (f"jepa export {run} --format onnx", "for other programs"),
    )


def imagination_commands(run: str, data: Any) -> Commands:
    """Return the commands for an image world model: does it know transforms? what does it imagine?"""
    probe, show, *others = encoder_commands(run, data)
    imagine = (
        (f"jepa equivariance {run} IMAGES", "does it know what a change of color does?"),
        (f"jepa show imagine {run} IMAGES", "changes of color that it imagines, as real patches"),
    )
    return (probe, *imagine, show, *others)


def decoder_commands(run: str) -> Commands:
    """Return the commands for a decoder of features."""
    return (
        (f"jepa decoder sample {run} IMAGES", "several samples for each image"),
        (f"jepa decoder measure {run} OTHER_IMAGES", "do samples agree with their image? with a control"),
    )


def level_commands(run: str) -> Commands:
    """Return the commands for a hierarchy of world models."""
    return (
        (f"jepa plan {run} --compare", "let one level plan, then two, and so on, in rooms that it never saw"),
        (f"jepa show levels {run}", "sub-goals on the map and as real frames, the energy of actions"),
    )


def world_commands(run: str, data: Any, acts: bool) -> Commands:
    """Return the commands for a world model; `acts`: whether it has a critic, so that an agent can plan with it."""
    if data.root:
        return ((f"jepa plan {run} --env ENVIRONMENT", "let an agent plan, such as in CartPole-v1"),)
    if data.world == "cart-pole":
        return ((f"jepa plan {run}", "how long poles stay up when packets are lost"),)
    diagnose = (f"jepa diagnose {run}", "which module fails: porous walls, dynamics, critic")
    if not acts:
        return (diagnose,)
    return (
        (f"jepa plan {run}", "let an agent plan in rooms that it never saw, beside baselines"),
        diagnose,
        (f"jepa show plan {run}", "candidates, imagined beside real, episodes in motion"),
        (f"jepa explore {run}", "click a goal and watch the agent"),
    )
