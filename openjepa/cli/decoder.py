"""Command `jepa decoder`: train a decoder on top of a run, sample images from it, measure it."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float, Real
from torch import Tensor

from openjepa.cli.pretrain import pretrain
from openjepa.cli.settings import MeasureDecoder, SampleDecoder
from openjepa.core.console import info, warn
from openjepa.core.errors import UserError
from openjepa.core.types import Score
from openjepa.evaluation.decoder import (
    LoadedDecoder,
    decoder_conditions,
    decoder_mask,
    load_decoder,
    pooled_condition,
    sample_images,
)
from openjepa.evaluation.decoder_agreement import CENTER_BOX, MIN_IMAGES, Agreement, derangement, measure_agreement
from openjepa.evaluation.scores import write_scores
from openjepa.nn.flow import Conditions
from openjepa.recipes.decoder import decoder_config
from openjepa.recipes.settings import TrainDecoder
from openjepa.training.config import config_differences, load_config
from openjepa.viz.canvas import save_figure
from openjepa.viz.inputs import load_images, output_file, read_images
from openjepa.viz.samples import samples_figure
from openjepa.viz.settings import FigureOptions


def train_decoder(settings: TrainDecoder) -> Path:
    """Train a decoder and return its folder: a run like any other, with logs, curves and exact resume."""
    config = decoder_config(settings)
    if (config.out / "config.json").is_file():
        changes = [each for each in config_differences(load_config(config.out), config) if each.startswith("method.")]
        if changes:
            raise UserError(
                f"{config.out} contains another decoder ({'; '.join(changes)}): use its settings, or another --out"
            )
    pretrain(config)
    return config.out


def sample_decoder(settings: SampleDecoder) -> Path:
    """Sample from a decoder; write a figure with a row per image and return its path.

    Raises UserError if the decoder, an image or the box cannot be used.
    """
    decoder = load_decoder(Path(settings.decoder), settings.device, settings.precision)
    if settings.box and not decoder.decodes_predictions:
        raise UserError("this decoder samples whole images: leave --box out, or train one with --condition prediction")
    if not 1 <= settings.samples <= 32 or settings.steps < 1:
        raise UserError(f"--samples must be 1 to 32 and --steps >= 1, got {settings.samples} and {settings.steps}")
    options = FigureOptions(run=settings.decoder, images=settings.images, count=settings.count, out=settings.out)
    out = output_file(options, "samples")
    images = load_images(options, decoder.data, roots=settings.images or decoder.data.root)
    mask = decoder_mask(decoder, len(images.view), settings.box, settings.seed)
    conditions = decoder_conditions(decoder, images.view, mask)
    samples = sample_images(decoder, images.view, conditions, mask, settings.samples, settings.seed, settings.steps)
    figure = samples_figure(decoder, images, mask, samples)
    info(figure.words)
    save_figure(figure, out)
    info(f"figure     {out}")
    return out


def measure_decoder(settings: MeasureDecoder) -> Agreement:
    """Measure retrieval of each image by the pooled features of its sample; also write it to DECODER/agreement.json.

    A sampled block is encoded without the rest of its image, and so is the original. A decoder of features samples
    the whole image, whose features are its condition. Features are centered by their mean over the images.
    """
    decoder = load_decoder(Path(settings.decoder), settings.device, settings.precision)
    roots = settings.images or decoder.data.root
    if not settings.images:
        warn("measuring on the decoder's training images: give other images to measure generalization")
    images = read_images(tuple(roots), decoder.data, settings.count)
    if len(images.view) < MIN_IMAGES:
        raise UserError(f"{len(images.view)} images are too few to measure retrieval: give at least {MIN_IMAGES}")
    result = compare_with_control(decoder, images.view, settings.seed, settings.steps)
    about = {"step": decoder.step, "count": len(images.view), "images": list(roots), "seed": settings.seed}
    write_scores(Path(settings.decoder) / "agreement.json", agreement_scores(result), about)
    info(
        f"retrieval  {100 * result.retrieval:.1f} % of {len(images.view)} images are nearest to their own sample's "
        f"features (control {100 * result.shuffled:.1f} %, chance {100 * result.chance:.1f} %); cosine "
        f"{result.cosine:.2f} with the own image, {result.cosine_other:.2f} with others"
    )
    return result


def agreement_scores(result: Agreement) -> list[Score]:
    """Return an agreement as scores: of samples from the own features, of the control, and by chance."""
    task, own, control = "decoder", "own features", "another image's features"
    retrieval = {own: result.retrieval, control: result.shuffled, "chance": result.chance}
    scores = [Score(task, name, "retrieval", 100 * value) for name, value in retrieval.items()]
    cosines = {own: result.cosine, "other images": result.cosine_other}
    return scores + [Score(task, name, "cosine", value, unit="") for name, value in cosines.items()]


def compare_with_control(decoder: LoadedDecoder, view: Real[Tensor, "B C H W"], seed: int, steps: int) -> Agreement:
    """Sample each image from its own condition and from another image's; compare their features with the image's."""
    mask = decoder_mask(decoder, len(view), CENTER_BOX if decoder.decodes_predictions else None, seed)
    own = decoder_conditions(decoder, view, mask)
    other = Conditions(own.x[derangement(len(view), seed)])
    region = decoder.data.tokens(view).take(mask.target[:, 0])

    def sample_features(conditions: Conditions) -> Float[Tensor, "B D"]:
        samples = sample_images(decoder, view, conditions, mask, 1, seed, steps)
        return pooled_condition(decoder, region._replace(x=samples.raw[0]))

    return measure_agreement(pooled_condition(decoder, region), sample_features(own), sample_features(other))


ACTIONS = {TrainDecoder: train_decoder, SampleDecoder: sample_decoder, MeasureDecoder: measure_decoder}


def decoder(settings: TrainDecoder | SampleDecoder | MeasureDecoder) -> object:
    """Run the action that the class of the settings stands for."""
    return ACTIONS[type(settings)](settings)  # type: ignore[arg-type]
