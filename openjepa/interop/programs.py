"""Export an encoder as a program that runs without openjepa: ONNX or torch.export.   B batch  C channels  H height  W width  N tokens  D width"""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from openjepa.core.errors import UserError
from openjepa.interop.pretrained import PretrainedEncoder

ONNX_FILE, PROGRAM_FILE = "model.onnx", "model.pt2"

TOLERANCE = 1e-4  # largest difference from our own features that is let pass

INPUT_NAME, OUTPUT_NAMES = "pixel_values", ("last_hidden_state", "pooled")


class ExportedEncoder(nn.Module):
    """Normalised pictures to features of all patches, and their mean."""

    def __init__(self, trained: PretrainedEncoder):
        super().__init__()
        self.encoder, self.patchify = trained.encoder, trained.data.patchify

    def forward(self, pixel_values: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B D"]]:
        (seen,) = self.encoder(self.patchify(pixel_values))
        return seen.x, seen.x.mean(1)


def trace_encoder(trained: PretrainedEncoder) -> ExportedProgram:
    """The encoder traced for any batch and any height and width that are multiples of the patch."""
    data = trained.data
    rows, columns = Dim("rows", min=2, max=4096), Dim("columns", min=2, max=4096)
    shapes = {INPUT_NAME: {0: Dim("batch", min=1, max=65536), 2: data.patch * rows, 3: data.patch * columns}}
    with silence_exporter():
        return torch.export.export(ExportedEncoder(trained), (random_input(trained, 2),), dynamic_shapes=shapes)


@contextmanager
def silence_exporter():
    """Without what torch says of its own inside while it exports."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)


def random_input(trained: PretrainedEncoder, count: int, more: int = 0) -> Float[Tensor, "B C H W"]:
    """Pictures of noise, of the trained size or some patches larger."""
    data = trained.data
    height, width = (side + more * data.patch for side in data.size)
    generator = torch.Generator().manual_seed(count)
    view = torch.randint(0, 256, (count, data.channels, height, width), generator=generator, dtype=torch.uint8)
    return data.normalize(view)


def write_torch_program(trained: PretrainedEncoder, folder: Path) -> float:
    """The program in torch's own format; returns the largest difference from our features, read back."""
    torch.export.save(trace_encoder(trained), folder / PROGRAM_FILE)
    read = torch.export.load(folder / PROGRAM_FILE).module()
    return check_outputs(trained, lambda x: read(x)[0])


def write_onnx(trained: PretrainedEncoder, folder: Path) -> float:
    """The program as ONNX; returns the largest difference of onnxruntime from our features."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (torch's exporter wants it)
    except ImportError as error:
        raise UserError("ONNX needs an extra: pip install 'openjepa[onnx]'") from error
    with silence_exporter():
        made = torch.onnx.export(
            trace_encoder(trained),
            input_names=[INPUT_NAME],
            output_names=list(OUTPUT_NAMES),
            dynamo=True,
            verbose=False,
        )
        assert made is not None
        made.save(str(folder / ONNX_FILE))
    session = onnxruntime.InferenceSession(str(folder / ONNX_FILE), providers=["CPUExecutionProvider"])
    return check_outputs(
        trained, lambda x: torch.from_numpy(session.run([OUTPUT_NAMES[0]], {INPUT_NAME: x.numpy()})[0])
    )


@torch.no_grad()
def check_outputs(trained: PretrainedEncoder, other) -> float:
    """The largest difference of features, over batches and sizes. Mistake if that is more than CLOSE."""
    whole, worst = ExportedEncoder(trained), 0.0
    for count, more in ((1, 0), (3, 0), (2, 1)):
        x = random_input(trained, count, more)
        worst = max(worst, (other(x) - whole(x)[0]).abs().max().item())
    if not worst <= TOLERANCE:
        raise UserError(f"the exported program differs from the encoder by {worst:.1e}: please report this as a defect")
    return worst
