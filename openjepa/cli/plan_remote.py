"""The part of `jepa plan` that balances poles over a channel that loses what is sent."""

from __future__ import annotations

from pathlib import Path

from rich.progress import track

from openjepa.cli.plan_returns import write_rows
from openjepa.core.console import console, draw_safely, info
from openjepa.core.errors import UserError
from openjepa.core.tables import print_table
from openjepa.data.synthetic.cart_pole import PERIOD, SECONDS
from openjepa.interop.pretrained import load_run
from openjepa.methods.cloning import CloningWorld
from openjepa.planning.remote import COMMANDS, Channel, RemoteRow, measure_channel
from openjepa.planning.settings import Plan
from openjepa.training.stages import last_stage
from openjepa.viz.canvas import save_figure
from openjepa.viz.channels import channels_figure

LOST = (0.0, 0.25, 0.5, 0.75)  # shares of the packets


def plan_remote(settings: Plan) -> list[RemoteRow]:
    """Balance carts with all controllers, over channels that lose more and more; print and write how long."""
    settings.refuse_unused(("every",), "on carts")
    folder = last_stage(Path(settings.run))
    trained = load_run(folder)
    if not isinstance(trained.network, CloningWorld):
        raise UserError(f"{settings.run} has no actor: train both stages, jepa pretrain ts-jepa --out runs/ts")
    world, rows = trained.network.requires_grad_(False).eval(), []
    channels = [Channel(lost, every) for every in settings.every for lost in LOST]
    for channel in track(channels, "channels", console=console, disable=not console.is_terminal, transient=True):
        rows += measure_channel(world, trained.data, channel, settings.episodes, settings.seed)
    print_remote(rows, f"cart-pole, {settings.episodes} episodes of at most {COMMANDS * PERIOD * SECONDS:.0f} seconds")
    out = settings.out or folder / "plan.json"
    write_rows(out, "cart-pole", settings.seed, rows)
    picture = out.with_suffix(".png")
    if draw_safely("the figure", lambda: save_figure(channels_figure(rows), picture)):
        info(f"figure     {picture}")
    return rows


def print_remote(rows: list[RemoteRow], title: str) -> None:
    """Print for each controller and channel how long poles stay up, and what is sent in a second."""
    head = ("sent", "lost %", "when nothing arrives", "seconds up", "95 % interval", "bytes / s: latents", "frames")
    cells = []
    for row in rows:
        interval = f"{row.low:.1f} to {row.high:.1f}"
        rates = f"{row.latent_bytes:,.0f}", f"{row.frame_bytes:,.0f}"
        sent = "all" if row.every == 1 else f"1 of {row.every}"
        cells.append((sent, f"{100 * row.lost:.0f}", row.name, f"{row.seconds:.1f}", interval, *rates))
    print_table(head, cells, title)
