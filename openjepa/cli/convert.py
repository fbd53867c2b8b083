"""Command `jepa convert`: convert weights of another project into a folder that every command reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openjepa.core.arguments import Source
from openjepa.core.console import info
from openjepa.interop.export import atomic_folder, networks_by_file
from openjepa.interop.imported import ImportOptions
from openjepa.interop.load import load, load_imported
from openjepa.interop.pretrained import load_run
from openjepa.training.run_folder import write_weights


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Makes a folder of ours from weights of another project, which every verb takes, --init-from as well."""

    source: Source  # *.pth.tar; a folder of Hugging Face or timm; hf:ID; *.safetensors
    out: Path  # the folder to make
    num_heads: int = 0  # of the encoder; 0: by the config beside the weights, or as in the paper's family
    license: str = ""  # of the weights, if it is not as their home says; released weights are cc-by-nc-4.0


def convert(settings: Convert) -> Path:
    """Reads, checks and writes; returns the folder. Mistake in a sentence where the weights are none of I-JEPA's."""
    found = load_imported(settings.source, ImportOptions(settings.num_heads, settings.license))
    with atomic_folder(settings.out) as folder:
        if found is None:  # a folder of ours, perhaps of an older format
            known = load_run(Path(settings.source))
            files = {name: state for name, state in networks_by_file(Path(settings.source)).items() if state}
            write_weights(folder, files, known.config, known.step, known.provenance)
        else:
            found.write(folder)
    trained = load(settings.out)
    info(f"encoder    width {trained.encoder.dim}, depth {len(trained.encoder.blocks)}: {settings.out}")
    info(f"license    {trained.provenance.license or 'not stated: say it with --license'}")
    for note in trained.provenance.notes:
        info(f"note       {note}")
    return settings.out
