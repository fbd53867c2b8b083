"""Serve the page of `jepa explore` about a world model: click a goal, watch the agent plan, switch costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.core.names import distinct_labels
from openjepa.modalities.trajectory import Trajectory
from openjepa.training.config import load_config
from openjepa.training.stages import last_stage
from openjepa.viz.explorer.world_session import WorldSession
from openjepa.viz.html import png_data_url
from openjepa.viz.settings import Explore
from openjepa.viz.world_maps import ENLARGE

SECONDS = 0.15  # between two steps


def is_world(run: str) -> bool:
    """Return whether a folder holds a run on trajectories."""
    folder = last_stage(Path(run))
    return (folder / "config.json").is_file() and isinstance(load_config(folder).data, Trajectory)


def explore_world(settings: Explore, ui: Any) -> None:
    """Serve the page about a world model."""
    session = WorldSession.load(settings.run, settings.seed)
    title = f"{distinct_labels([settings.run])[0]}: world explorer"

    @ui.page("/")
    def page() -> None:
        WorldPage(ui, WorldSession(session.system, session.decoder, settings.seed), title)

    info(f"page       http://{settings.host}:{settings.port} (Ctrl-C stops it)")
    ui.run(
        host=settings.host, port=settings.port, title=title, dark=None, reload=False, show=False,
        show_welcome_message=False, uvicorn_logging_level="warning", reconnect_timeout=30,
    )  # fmt: skip


class WorldPage:
    """The page of one visitor: a room with an agent."""

    def __init__(self, ui: Any, session: WorldSession, title: str):
        self.ui, self.session, self.puts_zone = ui, session, False
        ui.label(title).classes("text-xl")
        with ui.row().classes("w-full gap-6"):
            self.picture = (
                ui.interactive_image(
                    png_data_url(session.picture()), on_mouse=self.on_click, events=["click"], cross=False
                )
                .classes("w-96")
                .props('id=room alt="room, agent and goal"')
            )
            with ui.column().classes("gap-2"):
                self.line = ui.label(session.describe()).props("id=line")
                self.add_controls()
        self.timer = ui.timer(SECONDS, self.advance, active=False)

    def add_controls(self) -> None:
        """Add the controls: mode, costs, another room."""
        ui = self.ui
        ui.radio(
            {"1": "mode 1: react", "2": "mode 2: plan", "adaptive": "adaptive"}, value="2", on_change=self.set_mode
        )
        ui.switch("save effort", on_change=self.set_effort).props("id=effort")
        ui.switch("the next click puts a forbidden zone", on_change=self.set_zone_clicks).props("id=zone")
        ui.button("remove the zone", on_click=self.remove_zone).props("outline")
        ui.button("another room", on_click=self.next_room).props("outline id=another")

    def on_click(self, event: Any) -> None:
        """Make the clicked position the goal, or the center of the zone."""
        x, y = event.image_x / ENLARGE, event.image_y / ENLARGE
        if self.puts_zone:
            self.session.zone = (x, y)
            self.session.configure()
        else:
            try:
                self.session.set_goal(x, y)
            except UserError as error:
                self.ui.notify(str(error))
                return
        self.timer.activate()
        self.refresh()

    def advance(self) -> None:
        """Act once and draw; stop at the goal."""
        if self.session.advance():
            self.timer.deactivate()
        self.refresh()

    def set_mode(self, event: Any) -> None:
        """Choose a mode. Show the error if the run has no policy."""
        before, self.session.mode = self.session.mode, event.value
        try:
            self.session.configure()
        except UserError as error:
            self.session.mode = before
            self.ui.notify(str(error))

    def set_effort(self, event: Any) -> None:
        """Switch the cost of effort."""
        self.session.save_effort = bool(event.value)
        self.session.configure()

    def set_zone_clicks(self, event: Any) -> None:
        """Let clicks put the zone, or the goal again."""
        self.puts_zone = bool(event.value)

    def remove_zone(self) -> None:
        """Allow the whole room again."""
        self.session.zone = None
        self.session.configure()
        self.refresh()

    def next_room(self) -> None:
        """Go to another layout."""
        self.session.start_room(self.session.seed + 1)
        self.timer.activate()
        self.refresh()

    def refresh(self) -> None:
        """Draw the room and the line again."""
        self.picture.set_source(png_data_url(self.session.picture()))
        self.line.set_text(self.session.describe())
