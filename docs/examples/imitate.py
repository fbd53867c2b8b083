"""Predict the features of a frozen teacher: a method, and a recipe that trains the teacher first: a system."""

from dataclasses import dataclass, field, replace

from torch import Generator, Tensor, nn

from openjepa import Optim, PredictorConfig, Pretrain, ViTConfig
from openjepa.core.protocols import Modality
from openjepa.core.registry import find
from openjepa.core.types import Batch, Output
from openjepa.masking.stack import stack_masks
from openjepa.methods.base import BaseMethod, ViTMethodConfig
from openjepa.nn.init import initialize
from openjepa.training.stages import Stages


@dataclass(frozen=True)
class Imitate(ViTMethodConfig):
    """Settings: the sizes, and the folder of the run whose encoder is the teacher, as wide as this encoder."""

    predictor: PredictorConfig = field(default_factory=lambda: PredictorConfig(dim=32, depth=2, init="scaled"))
    teacher: str = ""

    def teachers(self) -> dict[str, str]:
        return {"teacher": self.teacher}

    def build(self, modality: Modality, seed: int = 0) -> "Student":
        return Student(self, modality, Generator().manual_seed(seed))


class Student(BaseMethod):
    def __init__(self, config: Imitate, modality: Modality, generator: Generator):
        super().__init__()
        self.modality, self.context_encoder = modality, config.build_encoder(modality)
        self.predictor = config.predictor.build(config.encoder, config.encoder.dim)
        config.encoder.initialize(self.context_encoder, generator, modality.token_dim)
        initialize(self.predictor, generator, config.predictor.init)

    def targets(self, batch: Batch) -> Tensor:
        teacher = self.teachers["teacher"]  # without gradient; not among this method's weights
        (features,) = teacher(batch.views[0])
        return nn.functional.layer_norm(features.x.float(), features.x.shape[-1:])

    def forward(self, batch: Batch, targets: Tensor) -> Output:
        tokens = self.modality.tokens(batch.views[0])
        (masked,) = stack_masks(tokens, targets, batch.masks)
        (context,) = self.context_encoder(tokens, masked.keep)
        loss = nn.functional.l1_loss(self.predictor(context, masked.where), masked.targets)
        return Output(loss, {}, context.mean().detach())

    def encoders(self) -> dict[str, nn.Module]:
        return {"student": self.context_encoder}


def tones_distilled() -> Stages:
    """Predict hidden values of tones, then the features that the first stage's encoder gives hidden tokens."""
    sizes = ViTConfig(dim=48, depth=2, num_heads=4, init="scaled", stem_init="scaled")
    parts = find("modality", "tones")(), find("method", "masked-l1")(sizes), find("masks", "stripes")()
    first = Pretrain(*parts, Optim(lr=6e-3, clip=1.0), steps=600, batch_size=32, precision="fp32")
    return Stages((first, replace(first, method=Imitate(sizes, teacher="stage-1"))))
