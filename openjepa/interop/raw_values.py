"""State in other tools' configs how raw values of more than 8 bits are normalized."""

from __future__ import annotations

from openjepa.modalities.image import Image


def range_entry(data: Image) -> dict[str, list[float]]:
    """Return the range of values for a config; nothing for images of 8 bits."""
    return {"value_range": list(data.value_range)} if len(data.value_range) > 1 else {}


def raw_normalization(data: Image) -> tuple[float, list[float], list[float]]:
    """Return scale, mean and std of each channel with which (scale · x - mean) / std normalizes raw values x."""
    if len(data.value_range) < 2:
        return 1 / 255, list(data.mean), list(data.std)
    pairs = list(zip(data.value_range[::2], data.value_range[1::2], strict=True))
    pairs = pairs if len(pairs) > 1 else pairs * data.channels
    scale = 1 / (pairs[0][1] - pairs[0][0])
    mean = [scale * (low + (high - low) * each) for (low, high), each in zip(pairs, data.mean, strict=True)]
    return scale, mean, [scale * (high - low) * each for (low, high), each in zip(pairs, data.std, strict=True)]


def undo_raw_normalization(
    value_range: tuple[float, ...], mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std of values that are scaled to [0, 1], from what `raw_normalization` made of them."""
    pairs = list(zip(value_range[::2], value_range[1::2], strict=True))
    pairs = pairs if len(pairs) > 1 else pairs * len(mean)
    width = pairs[0][1] - pairs[0][0]
    means = [(width * each - low) / (high - low) for (low, high), each in zip(pairs, mean, strict=True)]
    stds = [width * each / (high - low) for (low, high), each in zip(pairs, std, strict=True)]
    return tuple(means), tuple(stds)


def range_text(data: Image) -> str:
    """Say in a model card how raw values are scaled; empty for images of 8 bits."""
    if len(data.value_range) < 2:
        return ""
    low, high = (" ".join(f"{value:.9g}" for value in data.value_range[at::2]) for at in (0, 1))
    scale, mean, std = raw_normalization(data)
    linear = f"{scale:.9g} · x; mean {' '.join(f'{x:.9g}' for x in mean)}; std {' '.join(f'{x:.9g}' for x in std)}"
    return (
        f"Raw values: pixel values x of more than 8 bits become (x − {low}) / ({high} − {low}), clipped to [0, 1]; no "
        f"data and NaN become 0; images of 8 bits are divided by 255. Then mean and std above. Without clipping the "
        f"same is ({linear}), as (scaled − mean) / std; crop and resize the raw values first (a "
        "Hugging Face processor takes them as float arrays with do_resize=False)."
    )
