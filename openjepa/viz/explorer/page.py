"""Serve the page of `jepa explore`."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.core.capabilities import Plays, Sounds, plural_of
from openjepa.core.console import draw_safely, info
from openjepa.core.errors import UserError
from openjepa.core.names import distinct_labels, printable
from openjepa.viz.embedding_map import MIN_IMAGES, project_features
from openjepa.viz.explorer.latent import LatentControls
from openjepa.viz.explorer.marks import attribute, svg_rectangle
from openjepa.viz.explorer.session import Session
from openjepa.viz.explorer.world_page import explore_world, is_world
from openjepa.viz.html import png_data_url
from openjepa.viz.inputs import shorten_name
from openjepa.viz.map_page import scatter_chart
from openjepa.viz.settings import Explore

MAX_UPLOAD_BYTES = 64 * 2**20  # largest file that can be dropped on the page

CLICK_PIXELS = 6  # a mouse movement up to this length is a click, not a box

GOLDEN_RATIO = 0.381966  # step to the next image, as a fraction of all


def explore(settings: Explore) -> None:
    """Serve the page until it is stopped. Raises UserError if the port is taken or nicegui is not installed."""
    try:
        from nicegui import run, ui
    except ImportError as error:
        raise UserError("jepa explore needs an extra: pip install 'openjepa[explore]'") from error
    check_port(settings.host, settings.port)
    if is_world(settings.run):
        return explore_world(settings, ui)
    session = Session.load(settings)

    @ui.page("/")
    def page() -> None:
        Page(ui, session, settings)

    # the map has its own process; a forked one would inherit locks held by our threads and deadlock
    run.process_pool_start_method = "spawn"
    samples = f"{len(session.images.view):,} {plural_of(session.images.data)}"
    info(f"page       http://{settings.host}:{settings.port} ({samples}; Ctrl-C stops it)")
    ui.run(
        host=settings.host, port=settings.port, title=f"{distinct_labels([settings.run])[0]}: explorer", dark=None,
        reload=False, show=False, show_welcome_message=False, uvicorn_logging_level="warning", reconnect_timeout=30,
    )  # fmt: skip


def check_port(host: str, port: int) -> None:
    """Raise UserError if the page cannot be served at this host and port."""
    try:
        with socket.create_server((host, port)):
            pass
    except OverflowError as error:
        raise UserError(f"--port must be 1 to 65535, got {port}: try --port 8080") from error
    except OSError as error:
        if (error.errno or 0) < 0:  # the host name cannot be resolved
            raise UserError(f"unknown host {host}: try --host 127.0.0.1 (this machine)") from error
        raise UserError(f"cannot use port {port} of {host} ({error}): try --port {min(65535, port + 1)}") from error


class Page:
    """The page of one visitor: the selected image and the answers about it."""

    def __init__(self, ui: Any, session: Session, settings: Explore):
        self.ui, self.session, self.settings = ui, session, settings
        self.view, self.name = session.images.view[0], session.images.titles[0]
        self.start: tuple[float, float] | None = None  # where the mouse button went down
        self.row = 0  # of the button's image
        data = session.images.data
        self.plays, self.sounds, self.plural = isinstance(data, Plays), isinstance(data, Sounds), plural_of(data)
        ui.add_css(
            ".nicegui-content { max-width: 84rem; margin: 0 auto; } .tile { cursor: pointer; width: 6.4rem; } "
            f".selected-image {{ width: min({36 if self.plays else 24}rem, calc(100vw - 2rem)); }}"
        )
        ui.label(f"{distinct_labels([settings.run])[0]}: explorer").classes("text-xl")
        with ui.row().classes("w-full gap-6"):
            with ui.column().classes("gap-2"):
                self.add_selection()
            with ui.column().classes("gap-2 flex-1 min-w-[18rem]"):
                self.controls = ui.column()
                self.answer = ui.column().classes("gap-2 w-full").props("id=answer")
        self.near = ui.column().classes("w-full gap-2").props("id=neighbors")
        self.box: tuple[tuple[float, float], tuple[float, float]] | None = None  # that is hidden
        self.latent: LatentControls | None = None
        if session.latent is not None:
            with self.controls:
                self.latent = LatentControls(ui, session.latent, self.show_prediction_again)
        self.plane = ui.column().classes("w-full").props("id=map")
        self.select(self.view, self.name)
        if settings.map and len(session.images.view) >= MIN_IMAGES:
            with self.plane:
                ui.label("Computing the map …").classes("text-sm opacity-70")
            ui.timer(0.1, self.add_map, once=True)

    def add_selection(self) -> None:
        """Add the selected image with its caption, and the controls that select another one."""
        ui = self.ui
        self.caption = ui.label(self.name).classes("text-sm").props("id=caption")
        self.canvas = (
            ui.interactive_image(
                png_data_url(self.session.display(self.view)),
                on_mouse=self.on_mouse,
                events=["mousedown", "mousemove", "mouseup"],
                cross=False,
            )
            .classes("selected-image")
            .props('id=picture alt="selected image"')
        )
        hint = "Drag a box in a frame to hide it at all times." if self.plays else "Drag a box to hide it."
        click = (
            "Click a patch to hear it and to find similar ones."
            if self.sounds
            else "Click a patch to find similar ones."
        )
        ui.label(f"{click} {hint}").classes("text-sm opacity-70")
        if self.plays:
            self.player = ui.image(self.session.tile(self.view)).classes("w-40")
            self.player.props('id=player alt="selected clip" no-spinner no-transition')
        if self.sounds:
            self.player = ui.audio(self.session.sound(self.view)).classes("selected-image").props("id=player")
        with ui.row():
            ui.button(f"another {self.plural[:-1]}", on_click=self.select_next).props("outline id=another")
        kind = "video" if self.plays else "audio" if self.sounds else "image"
        self.upload = ui.upload(
            label=f"or drop {'a' if self.plays else 'an'} {kind} file", auto_upload=True,
            max_file_size=MAX_UPLOAD_BYTES, on_upload=self.on_upload,
            on_rejected=lambda: self.warn("that file is larger than 64 MiB"),
        ).props(f"accept={kind}/* flat bordered").classes("selected-image")  # fmt: skip

    def warn(self, message: str) -> None:
        """Show a message for some seconds."""
        self.ui.notify(message, type="warning", timeout=8000)

    def select(self, view: Any, name: str) -> None:
        """Select an image: show it with its nearest neighbors and clear the answer."""
        self.view, self.name, self.box = view, name, None
        self.canvas.set_source(png_data_url(self.session.display(view)))
        if self.plays:
            self.player.set_source(self.session.tile(view))
        if self.sounds:
            self.player.set_source(self.session.sound(view))
        self.canvas.set_content("")
        self.caption.set_text(name)
        self.answer.clear()
        with self.answer:
            self.ui.label("The answer appears here.").classes("opacity-70")
        self.near.clear()
        with self.near:
            self.ui.label("Nearest neighbors").classes("text-lg")
            neighbors = self.session.neighbors(view)
            views = self.session.images.view
            self.add_tiles([(row, self.session.tile(views[row]), f"{cosine:.2f}") for row, cosine in neighbors])

    def add_tiles(self, cells: Sequence[tuple[int, str, str]]) -> None:
        """Add images of the folder in a row, by data: URL, each with a line below; a click selects the image."""
        with self.ui.row().classes("gap-2"):
            for row, source, line in cells:
                with self.ui.column().classes("tile gap-0").on("click", lambda row=row: self.select_row(row)):
                    self.ui.image(source).classes("w-full").props(
                        f'alt="{attribute(shorten_name(self.session.images.names[row]))}" no-spinner no-transition'
                    )
                    label = printable(self.session.images.labels[row])
                    self.ui.label(f"{line} {label}").classes("text-xs truncate w-full")

    def select_row(self, row: int) -> None:
        """Select an image of the folder."""
        self.select(self.session.images.view[row], self.session.images.titles[row])

    def select_next(self) -> None:
        """Select another image, far enough from the last one to reach other subfolders."""
        count = len(self.session.images.view)
        self.row = (self.row + max(1, round(count * GOLDEN_RATIO))) % count
        self.select_row(self.row)

    async def on_upload(self, event: Any) -> None:
        """Select an uploaded image; the limits of all images apply to it."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"dropped{Path(event.file.name).suffix.lower()[:6]}"
            await event.file.save(file)
            try:
                view = self.session.load_upload(file)
            except UserError as error:
                self.warn(str(error).replace(str(file), event.file.name))
                return
            finally:
                self.upload.reset()
        self.select(view, event.file.name)

    def on_mouse(self, event: Any) -> None:
        """Answer a click with patches similar to the clicked one, a box with predictions for it."""
        point = event.image_x, event.image_y
        if event.type == "mousedown":
            self.start = point
        elif self.start is not None and event.type == "mousemove" and event.buttons == 1:
            self.canvas.set_content(svg_rectangle(self.start, point))
        elif self.start is not None and event.type == "mouseup":
            start, self.start = self.start, None
            if max(abs(point[0] - start[0]), abs(point[1] - start[1])) <= CLICK_PIXELS:
                self.show_similar_patches(*point)
            else:
                self.show_prediction(start, point)

    def show_similar_patches(self, x: float, y: float) -> None:
        """Show where patches similar to the one at (x, y) are, in this image and in the others."""
        patch = self.session.patch_at(x, y)
        self.canvas.set_content(svg_rectangle(*self.session.patch_corners(patch)))
        if self.sounds:
            start = f"sound.currentTime = {self.session.start_of(patch):g} * sound.duration"
            self.ui.run_javascript(f'const sound = document.getElementById("player"); {start}; sound.play()')
        picture, hits = self.session.similar_patches(self.view, patch)
        self.answer.clear()
        with self.answer:
            self.ui.label("Similar patches").classes("text-lg")
            self.add_figure(picture, "cosine similarity of patch features: bright is high")
            framed = [png_data_url(self.session.frame_patch(each)) for each in hits]
            self.add_tiles([(each.row, url, f"{each.cosine:.2f}") for each, url in zip(hits, framed, strict=True)])

    def show_prediction(self, first: tuple[float, float], last: tuple[float, float]) -> None:
        """Show what the predictor predicts for the box between two corners."""
        self.canvas.set_content(svg_rectangle(first, last))
        self.box, z = (first, last), self.latent.z() if self.latent else None
        try:
            region = self.session.predict_region(self.view, self.session.box(first, last), z)
        except UserError as error:
            self.warn(str(error))
            return
        self.answer.clear()
        with self.answer:
            given = f", {self.latent.describe()}" if self.latent else ""
            self.ui.label(f"Prediction for the hidden box{given}").classes("text-lg")
            self.ui.label(f"Error of the predictor: {region.ratio:.2f} × that of the mean target.").props("id=error")
            with self.ui.row().classes("gap-3"):
                self.add_figure(region.hole, "context")
                self.add_figure(region.errors, "error: dark is 0, yellow is twice the target variance")
                self.add_figure(region.predicted, "predicted features as real patches")
                if region.pixels is not None:
                    self.add_figure(region.pixels, "predicted pixels")
                for number, each in enumerate(region.samples, 1):
                    self.add_figure(each, f"sample {number}, decoded from {self.condition}")

    def show_prediction_again(self) -> None:
        """Show the prediction for the same box with another z."""
        if self.box is not None:
            self.show_prediction(*self.box)

    @property
    def condition(self) -> str:
        """Return in words which features the decoder gets."""
        if self.session.decoder and self.session.decoder.decodes_predictions:
            return "the predicted features"
        return "the features of the whole image"

    def add_figure(self, picture: np.ndarray, caption: str) -> None:
        """Add an image with a caption below."""
        with self.ui.column().classes(f"gap-0 {'w-80' if self.plays else 'w-44'}"):
            self.ui.image(png_data_url(picture)).classes("w-full").props(f'alt="{caption}" no-spinner no-transition')
            self.ui.label(caption).classes("text-xs opacity-80")

    async def add_map(self) -> None:
        """Add the map, computed in another process so that the page stays responsive."""
        from nicegui import run

        images = self.session.images
        rows, features = self.session.map_features(self.settings.map)
        xy = await run.cpu_bound(project_safely, features, self.settings.seed)
        if xy is None:  # the page is being closed
            return
        self.plane.clear()
        if isinstance(xy, str):
            with self.plane:
                self.ui.label(f"No map: {xy}")
            return
        with self.plane:
            self.ui.label(f"Map of {len(rows):,} {self.plural}: click one to select it").classes("text-lg")
            names, labels = ([each[row] for row in rows] for each in (images.titles, images.labels))
            chart = self.ui.plotly(scatter_chart(xy, rows, names, labels)).classes("w-full h-[34rem]")
            chart.on("plotly_click", lambda event: self.select_row(int(event.args["points"][0]["customdata"])))


def project_safely(features: np.ndarray, seed: int) -> np.ndarray | str:
    """Project features to the plane of the map, in another process; return the reason if that fails."""
    reasons: list[str] = []
    xy = draw_safely("it", lambda: project_features(features, "umap", seed), reasons.append)
    return reasons[0] if xy is None else xy
