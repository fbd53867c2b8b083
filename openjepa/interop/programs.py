"""Export an encoder as a program that runs without openjepa: ONNX or torch.export.   B batch  N tokens  D F widths"""

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

from openjepa.core.capabilities import Exports, require
from openjepa.core.errors import UserError
from openjepa.interop.pretrained import PretrainedEncoder

ONNX_FILE, PROGRAM_FILE = "model.onnx", "model.pt2"

TOLERANCE = 1e-4  # largest accepted difference from our own features

OUTPUT_NAMES = ("last_hidden_state", "pooled")


class ExportedEncoder(nn.Module):
    """Map a program's input, such as normalized images, to the features of all tokens and the pooled ones."""

    def __init__(self, encoder: PretrainedEncoder):
        super().__init__()
        self.encoder, self.input_tokens = encoder.encoder, exported_input(encoder).input_tokens
        self.pool = encoder.pool_tokens

    def forward(self, inputs: Tensor) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B F"]]:
        (tokens,) = self.encoder(self.input_tokens(inputs))
        return tokens.x, self.pool(tokens.x)


def exported_input(encoder: PretrainedEncoder) -> Exports:
    """Return the modality, which defines a program's input. Raises UserError if it does not."""
    return require(encoder.modality, Exports, "jepa export")


def trace_encoder(encoder: PretrainedEncoder) -> ExportedProgram:
    """Trace the encoder for any batch size and any length of the axes that may vary."""
    data = exported_input(encoder)
    axes = data.free_axes() if takes_any_size(encoder) else {}
    shapes = {"inputs": {0: Dim("batch", min=1, max=65536), **axes}}
    with silence_exporter():
        return torch.export.export(ExportedEncoder(encoder), (data.example_input(2),), dynamic_shapes=shapes)


def takes_any_size(encoder: PretrainedEncoder) -> bool:
    """Return whether a program may take inputs of other sizes than the trained one; one of another project may."""
    return getattr(encoder.network, "any_size", True)


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
    name = exported_input(encoder).input_name
    with silence_exporter():
        program = torch.onnx.export(
            trace_encoder(encoder),
            input_names=[name],
            output_names=list(OUTPUT_NAMES),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(str(folder / ONNX_FILE))
    session = onnxruntime.InferenceSession(str(folder / ONNX_FILE), providers=["CPUExecutionProvider"])
    return check_outputs(encoder, lambda x: torch.from_numpy(session.run([OUTPUT_NAMES[0]], {name: x.numpy()})[0]))


@torch.no_grad()
def check_outputs(encoder: PretrainedEncoder, program: Callable[[Tensor], Tensor]) -> float:
    """Return the largest difference of features over batches and sizes. Raises UserError if it exceeds TOLERANCE."""
    reference, worst = ExportedEncoder(encoder), 0.0
    for count, more in ((1, 0), (3, 0), *([(2, 1)] if takes_any_size(encoder) else [])):
        x = exported_input(encoder).example_input(count, more)
        worst = max(worst, (program(x) - reference(x)[0]).abs().max().item())
    if not worst <= TOLERANCE:
        raise UserError(f"the exported program differs from the encoder by {worst:.1e}: please report this as a bug")
    return worst
