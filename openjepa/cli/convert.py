"""Command `jepa convert`: convert weights of another project into a folder that every command reads."""

from __future__ import annotations

from pathlib import Path

from openjepa.cli.settings import Convert
from openjepa.core.console import info
from openjepa.interop.export import atomic_folder, networks_by_file
from openjepa.interop.imported import ImportOptions
from openjepa.interop.load import load, load_imported
from openjepa.interop.pretrained import load_run
from openjepa.training.run_folder import write_weights


def convert(settings: Convert) -> Path:
    """Read, check and write weights; return the folder. Raises UserError if they are not an I-JEPA encoder."""
    imported = load_imported(settings.source, ImportOptions(settings.num_heads, settings.license))
    with atomic_folder(settings.out) as folder:
        if imported is None:  # a folder of ours, possibly of an older format
            encoder = load_run(Path(settings.source))
            files = {name: state for name, state in networks_by_file(Path(settings.source)).items() if state}
            write_weights(folder, files, encoder.config, encoder.step, encoder.provenance)
        else:
            imported.write(folder)
    encoder = load(settings.out)
    info(f"encoder    width {encoder.encoder.dim}, depth {encoder.encoder.depth}: {settings.out}")
    info(f"license    {encoder.provenance.license or 'not stated: set it with --license'}")
    for note in encoder.provenance.notes:
        info(f"note       {note}")
    return settings.out
