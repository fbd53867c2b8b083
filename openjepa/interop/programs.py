"""Export an encoder as a program that runs without openjepa: ONNX or torch.export.

B batch  C channels  H height  W width  N tokens  D width
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from openjepa.core.errors import UserError
from openjepa.interop.pretrained import PretrainedEncoder

ONNX_FILE, PROGRAM_FILE = "model.onnx", "model.pt2"

TOLERANCE = 1e-4  # largest accepted difference from our own features

INPUT_NAME, OUTPUT_NAMES = "pixel_values", ("last_hidden_state", "pooled")


class ExportedEncoder(nn.Module):
    """Map normalized images to the features of all patches and their mean."""

    def __init__(self, encoder: PretrainedEncoder):
        super().__init__()
        self.encoder, self.patchify = encoder.encoder, encoder.data.patchify

    def forward(self, pixel_values: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B D"]]:
        (tokens,) = self.encoder(self.patchify(pixel_values))
        return tokens.x, tokens.x.mean(1)


def trace_encoder(encoder: PretrainedEncoder) -> ExportedProgram:
    """Trace the encoder for any batch size and any height and width that are multiples of the patch."""
    data = encoder.data
    rows, columns = Dim("rows", min=2, max=4096), Dim("columns", min=2, max=4096)
    shapes = {INPUT_NAME: {0: Dim("batch", min=1, max=65536), 2: data.patch * rows, 3: data.patch * columns}}
    with silence_exporter():
        return torch.export.export(ExportedEncoder(encoder), (random_input(encoder, 2),), dynamic_shapes=shapes)


@contextmanager
def silence_exporter() -> Iterator[None]:
    """Hide the warnings about torch's internals during an export."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)


def random_input(encoder: PretrainedEncoder, count: int, more: int = 0) -> Float[Tensor, "B C H W"]:
    """Return normalized images of noise, of the trained size or `more` patches larger."""
    data = encoder.data
    height, width = (side + more * data.patch for side in data.size)
    generator = torch.Generator().manual_seed(count)
    view = torch.randint(0, 256, (count, data.channels, height, width), generator=generator, dtype=torch.uint8)
    return data.normalize(view)


def write_torch_program(encoder: PretrainedEncoder, folder: Path) -> float:
    """Write the program in torch's format, and return its largest difference from our features."""
    torch.export.save(trace_encoder(encoder), folder / PROGRAM_FILE)
    program = torch.export.load(folder / PROGRAM_FILE).module()
    return check_outputs(encoder, lambda x: program(x)[0])


def write_onnx(encoder: PretrainedEncoder, folder: Path) -> float:
    """Write the program as ONNX, and return the largest difference of onnxruntime's features from ours."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (torch's exporter requires it)
    except ImportError as error:
        raise UserError("ONNX export needs an extra: pip install 'openjepa[onnx]'") from error
    with silence_exporter():
        program = torch.onnx.export(
            trace_encoder(encoder),
            input_names=[INPUT_NAME],
            output_names=list(OUTPUT_NAMES),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(str(folder / ONNX_FILE))
    session = onnxruntime.InferenceSession(str(folder / ONNX_FILE), providers=["CPUExecutionProvider"])
    return check_outputs(
        encoder, lambda x: torch.from_numpy(session.run([OUTPUT_NAMES[0]], {INPUT_NAME: x.numpy()})[0])
    )


@torch.no_grad()
def check_outputs(encoder: PretrainedEncoder, program: Callable[[Tensor], Tensor]) -> float:
    """Return the largest difference of features over batches and sizes. Raises UserError if it exceeds TOLERANCE."""
    reference, worst = ExportedEncoder(encoder), 0.0
    for count, more in ((1, 0), (3, 0), (2, 1)):
        x = random_input(encoder, count, more)
        worst = max(worst, (program(x) - reference(x)[0]).abs().max().item())
    if not worst <= TOLERANCE:
        raise UserError(f"the exported program differs from the encoder by {worst:.1e}: please report this as a bug")
    return worst
