"""The page of `jepa explore`."""

from __future__ import annotations

import io
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.viz.canvas import COLORS
from openjepa.viz.embedding_map import MIN_IMAGES, project_features
from openjepa.viz.explorer.session import Explore, Session
from openjepa.viz.html import data_url
from openjepa.viz.inputs import shorten_name
from openjepa.viz.map_page import scatter_traces

MAX_UPLOAD_BYTES = 64 * 2**20  # bytes of a picture that is dropped

NEIGHBOR_COUNT = 6  # pixels that a click may move

MARK_COLOR = COLORS[5]


def explore(settings: Explore) -> None:
    """Serves the page until it is stopped. Mistake if the port is taken, or the toolkit not installed."""
    try:
        from nicegui import run, ui
    except ImportError as error:
        raise UserError("exploring needs an extra: pip install 'openjepa[explore]'") from error
    check_port(settings.host, settings.port)
    session = Session.opened(settings)

    @ui.page("/")
    def page() -> None:
        Page(ui, session, settings)

    # of the map's process: a forked one has our threads' locks, and waits for ever
    run.process_pool_start_method = "spawn"
    info(f"page       http://{settings.host}:{settings.port} ({len(session.found.view):,} pictures; Ctrl-C ends it)")
    ui.run(
        host=settings.host, port=settings.port, title=f"{Path(settings.run).name}: what it sees", dark=None, reload=False,
        show=False, show_welcome_message=False, uvicorn_logging_level="warning", reconnect_timeout=30,
    )  # fmt: skip


def check_port(host: str, port: int) -> None:
    """Mistake if nobody can be served there."""
    try:
        with socket.create_server((host, port)):
            pass
    except OverflowError as error:
        raise UserError(f"port {port} is none: they go from 1 to 65535; try --port 8080") from error
    except OSError as error:
        if (error.errno or 0) < 0:  # of a name that nobody knows
            raise UserError(f"there is no host {host}: try --host 127.0.0.1, which is this machine") from error
        raise UserError(f"port {port} of {host} cannot be had ({error}): try --port {min(65535, port + 1)}") from error


class Page:
    """One visitor's page: the picture they look at, and what was answered about it."""

    def __init__(self, ui: Any, session: Session, settings: Explore):
        self.ui, self.session, self.settings = ui, session, settings
        self.view, self.name = session.found.view[0], session.found.titles[0]
        self.start: tuple[float, float] | None = None
        ui.add_css(
            ".nicegui-content { max-width: 84rem; margin: 0 auto; } .tile { cursor: pointer; width: 6.4rem; } "
            ".looked { width: min(24rem, calc(100vw - 2rem)); }"
        )
        ui.label(f"{Path(settings.run).name}: what it sees").classes("text-xl")
        with ui.row().classes("w-full gap-6"):
            with ui.column().classes("gap-2"):
                self.caption = ui.label(self.name).classes("text-sm").props("id=caption")
                self.canvas = (
                    ui.interactive_image(
                        image_data_url(session.large(self.view)),
                        on_mouse=self.moved,
                        events=["mousedown", "mousemove", "mouseup"],
                        cross=False,
                    )
                    .classes("looked")
                    .props('id=picture alt="the picture looked at"')
                )
                ui.label("Click a patch, or drag a box to hide it.").classes("text-sm opacity-70")
                with ui.row():
                    ui.button("another picture", on_click=self.another).props("outline id=another")
                self.upload = ui.upload(
                    label="or drop one of your own", auto_upload=True, max_file_size=MAX_UPLOAD_BYTES, on_upload=self.dropped,
                    on_rejected=lambda: self.tell("that file is larger than 64 MiB"),
                ).props("accept=image/* flat bordered").classes("looked")  # fmt: skip
            self.answer = ui.column().classes("gap-2 flex-1 min-w-[18rem]").props("id=answer")
        self.near = ui.column().classes("w-full gap-2").props("id=neighbours")
        self.plane = ui.column().classes("w-full").props("id=map")
        self.look(self.view, self.name)
        if settings.map and len(session.found.view) >= MIN_IMAGES:
            with self.plane:
                ui.label("The map is being laid out …").classes("text-sm opacity-70")
            ui.timer(0.1, self.lay, once=True)

    def tell(self, message: str) -> None:
        """A sentence in passing."""
        self.ui.notify(message, type="warning", timeout=8000)

    def look(self, view: Any, name: str) -> None:
        """Another picture to look at, and its neighbours."""
        self.view, self.name = view, name
        self.canvas.set_source(image_data_url(self.session.large(view)))
        self.canvas.set_content("")
        self.caption.set_text(name)
        self.answer.clear()
        with self.answer:
            self.ui.label("Here stands what you ask for: where else a patch is, or what is expected in a box.").classes(
                "opacity-70"
            )
        self.near.clear()
        with self.near:
            self.ui.label("Most like it").classes("text-lg")
            found = self.session.neighbours(view)
            self.tiles(
                [(row, self.session.large(self.session.found.view[row]), f"{cosine:.2f}") for row, cosine in found]
            )

    def tiles(self, cells: Sequence[tuple[int, np.ndarray, str]]) -> None:
        """Pictures of the folder in a row, each with a line below; a click looks at it."""
        with self.ui.row().classes("gap-2"):
            for row, picture, line in cells:
                with self.ui.column().classes("tile gap-0").on("click", lambda row=row: self.look_at(row)):
                    self.ui.image(image_data_url(picture)).classes("w-full").props(
                        f'alt="{shorten_name(self.session.found.names[row])}" no-spinner no-transition'
                    )
                    self.ui.label(f"{line} {self.session.found.labels[row]}").classes("text-xs truncate w-full")

    def look_at(self, row: int) -> None:
        self.look(self.session.found.view[row], self.session.found.titles[row])

    def another(self) -> None:
        """The next picture, some way on, so that folders change."""
        count = len(self.session.found.view)
        self.turn = (getattr(self, "turn", 0) + max(1, round(count * 0.381966))) % count
        self.look_at(self.turn)

    async def dropped(self, event: Any) -> None:
        """A picture from outside: the limits are those of all pictures."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"dropped{Path(event.file.name).suffix.lower()[:6]}"
            await event.file.save(file)
            try:
                view = self.session.uploaded(file)
            except UserError as mistake:
                self.tell(str(mistake).replace(str(file), event.file.name))
                return
            finally:
                self.upload.reset()
        self.look(view, event.file.name)

    def moved(self, event: Any) -> None:
        """A click asks about a patch, a box about what is hidden by it."""
        here = event.image_x, event.image_y
        if event.type == "mousedown":
            self.start = here
        elif self.start is not None and event.type == "mousemove" and event.buttons == 1:
            self.canvas.set_content(svg_rectangle(self.start, here))
        elif self.start is not None and event.type == "mouseup":
            start, self.start = self.start, None
            if max(abs(here[0] - start[0]), abs(here[1] - start[1])) <= NEIGHBOR_COUNT:
                self.asked_of_patch(*here)
            else:
                self.asked_of_box(start, here)

    def asked_of_patch(self, x: float, y: float) -> None:
        """Where else that patch is."""
        place, side = self.session.place(x, y), self.session.patch
        row, column = divmod(place, self.session.grid[1])
        self.canvas.set_content(svg_rectangle((column * side, row * side), ((column + 1) * side, (row + 1) * side)))
        picture, found = self.session.alike(self.view, place)
        self.answer.clear()
        with self.answer:
            self.ui.label("Where else that is").classes("text-lg")
            self.figure(picture, "bright: alike, by the cosine of patch features")
            self.tiles([(each.row, self.session.shown_patch(each), f"{each.cosine:.2f}") for each in found])

    def asked_of_box(self, first: tuple[float, float], last: tuple[float, float]) -> None:
        """What is expected in the box."""
        self.canvas.set_content(svg_rectangle(first, last))
        try:
            found = self.session.hidden(self.view, self.session.box(first, last))
        except UserError as mistake:
            self.tell(str(mistake))
            return
        self.answer.clear()
        with self.answer:
            self.ui.label("What it expects there").classes("text-lg")
            self.ui.label(f"The predictor's error is {found.ratio:.2f} of that of the mean.").props("id=error")
            with self.ui.row().classes("gap-3"):
                self.figure(found.hole, "what is shown")
                self.figure(found.errors, "error: dark is small, yellow twice the variance")
                self.figure(found.expected, "as the nearest real patches")
                if found.pixels is not None:
                    self.figure(found.pixels, "the pixels it expects")
                for number, each in enumerate(found.samples):
                    of = (
                        "what is expected"
                        if self.session.decoder and self.session.decoder.predicts
                        else "the whole's features"
                    )
                    self.figure(each, f"drawn from {of}, {number + 1}")

    def figure(self, picture: np.ndarray, caption: str) -> None:
        with self.ui.column().classes("gap-0 w-44"):
            self.ui.image(image_data_url(picture)).classes("w-full").props(f'alt="{caption}" no-spinner no-transition')
            self.ui.label(caption).classes("text-xs opacity-80")

    async def lay(self) -> None:
        """The map, worked out in a process of its own, so that answers need not wait for it."""
        from nicegui import run

        found = self.session.found
        rows, features = self.session.of_map(self.settings.map)
        try:
            at = await run.cpu_bound(project_features, features, "umap", self.settings.seed)
        except UserError as mistake:
            self.plane.clear()
            with self.plane:
                self.ui.label(f"No map: {mistake}")
            return
        if at is None:  # the page is being closed
            return
        self.plane.clear()
        with self.plane:
            self.ui.label(f"A map of {len(rows):,} pictures: click one").classes("text-lg")
            names, labels = ([each[row] for row in rows] for each in (found.titles, found.labels))
            points = scatter_traces(at, rows, names, labels)
            chart = self.ui.plotly(points).classes("w-full h-[34rem]")
            chart.on("plotly_click", lambda event: self.look_at(int(event.args["points"][0]["customdata"])))


def svg_rectangle(first: tuple[float, float], last: tuple[float, float]) -> str:
    """A frame over the picture."""
    (left, right), (top, bottom) = (sorted((a, b)) for a, b in zip(first, last, strict=True))
    return f'<rect x="{left}" y="{top}" width="{right - left}" height="{bottom - top}" fill="none" stroke="{MARK_COLOR}" stroke-width="4" />'


def image_data_url(picture: np.ndarray) -> str:
    """A picture as a data: address, which is there as long as it is looked at."""
    stream = io.BytesIO()
    Pillow.fromarray(picture).save(stream, "PNG")
    return data_url("image/png", stream.getvalue())
