"""The page: Gradio components around :mod:`pylon_zoo.demo.session`.

Bound to 127.0.0.1, without analytics or share link; the browser is told to load nothing from
elsewhere.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from pylon_zoo.demo import session
from pylon_zoo.errors import InvalidOptionError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

    from pylon_zoo.architectures import LocalizationModel

__all__ = ["build", "serve", "start"]

#: Users whose images are in memory at once; the longest idle one makes room.
SESSIONS = 8
#: Seconds after which an idle session's images are forgotten.
FORGET_AFTER = 3600
#: The largest request: a whole batch and its frame.
MAX_REQUEST = session.MAX_FILES * session.MAX_BYTES + 2**20
POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    b"connect-src 'self'; frame-ancestors 'none'"
)
STYLE = """
.gradio-container { max-width: 1120px !important; margin: auto;
  padding-bottom: 6rem !important; }
#pz-notice { position: fixed; bottom: 0; left: 0; right: 0; z-index: 99; padding: .3rem 1rem;
  border-top: 4px solid #d55e00; background: var(--body-background-fill); text-align: center; }
.pz-picture { width: 100%; display: block; border-radius: 4px; }
.pz-save { display: inline-block; margin: .6rem .6rem 0 0; padding: .45rem .9rem;
  border-radius: 6px; border: 1px solid currentColor; color: inherit !important;
  text-decoration: none !important; font-weight: 600; }
.pz-scores { width: 100%; border-collapse: collapse; border: 0 !important; }
.pz-scores :is(tr, th, td) { border: 0 !important; padding: .2rem .3rem !important; }
.pz-scores th { text-align: left; font-weight: 500; width: 1%; white-space: nowrap; }
.pz-scores td:last-child { width: 3rem; text-align: right; font-variant-numeric: tabular-nums; }
.pz-bar { display: block; height: .7rem; min-width: 1px; background: #0072b2; border-radius: 2px; }
.pz-problem { border-left: 4px solid #d55e00; padding: .3rem .8rem; margin: .4rem 0 !important;
  overflow-wrap: anywhere; }
"""
ABOUT = """# pylon_zoo
Where in an image does a classifier see what it says? Files stay on this machine: they are read,
deleted, and forgotten when you leave."""
LEGEND = (
    "Color: probability at each pixel. Ring: its highest place. Outline and dashes: the regions "
    "that reach the threshold. Full lines: true boxes, where they are known."
)

Application = Callable[[Any, Any, Any], Awaitable[None]]


def _gradio() -> Any:
    # Read when gradio is imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise MissingExtraError("gradio", "demo", "The demo page") from error
    return gradio


def build(models: dict[str, LocalizationModel]) -> Any:
    """The page as ``gradio.Blocks``."""
    gr = _gradio()
    names = list(models)

    def predicted(
        checkpoint: str, samples: Sequence[Any], problems: list[str], state: Any
    ) -> list[Any]:
        results, more = session.predict_samples(models[checkpoint], samples)
        messages = session.problems_html([*problems, *more])
        notice = gr.HTML(messages, visible=bool(messages))
        if not results:
            return [state, notice, gr.skip(), gr.skip(), gr.Column(visible=bool(state))]
        choices = [(r.name, index) for index, r in enumerate(results)]
        image = gr.Dropdown(choices=choices, value=0, visible=len(results) > 1)
        return [results, notice, image, _classes(gr, results[0]), gr.Column(visible=True)]

    def add(checkpoint: str, paths: list[str] | None, state: Any) -> list[Any]:
        samples, problems = session.read_files(paths or [])
        return [None, *predicted(checkpoint, samples, problems, state)]

    def phantom(checkpoint: str, state: Any) -> list[Any]:
        return predicted(checkpoint, [session.take_phantom()], [], state)

    def again(checkpoint: str, state: Any) -> list[Any]:
        # Nothing of the former checkpoint may stay.
        return predicted(checkpoint, [result.sample for result in state], [], [])

    def chosen(state: Any, index: int) -> Any:
        return _classes(gr, state[index])

    def show(
        state: Any, checkpoint: str, index: int, name: str, opacity: float, threshold: float
    ) -> list[str]:
        if not state or name not in [f.class_name for f in state[index].findings]:
            return ["", ""]  # between two checkpoints
        picture = session.picture_html(state[index], name, opacity, threshold)
        save = session.report_html(state, checkpoint, threshold)
        return [picture + save, session.scores_html(state[index])]

    with gr.Blocks(title="pylon_zoo", analytics_enabled=False, delete_cache=(60, 600)) as page:
        state = gr.State([], time_to_live=FORGET_AFTER)
        gr.Markdown(ABOUT)
        gr.HTML(
            "<strong>Not for clinical use.</strong> The bundled checkpoints are trained on "
            "drawings, on blood smears and on a few radiographs.",
            elem_id="pz-notice",
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                checkpoint = gr.Dropdown(names, value=names[0], label="Checkpoint")
                files = gr.File(
                    file_count="multiple",
                    type="filepath",
                    height=170,
                    label=f"Images or DICOM: up to {session.MAX_FILES} files of "
                    f"{session.MAX_BYTES >> 20} MiB",
                )
                example = gr.Button("Take a radiograph phantom")
                problems = gr.HTML(visible=False)
                scores = gr.HTML()
            with gr.Column(scale=3, min_width=280, visible=False) as view:
                image = gr.Dropdown([], label="Image", visible=False)
                name = gr.Radio([], label="Class")
                shown = gr.HTML()
                with gr.Row():
                    opacity = gr.Slider(0, 1, 0.65, step=0.05, label="Opacity")
                    threshold = gr.Slider(0.05, 0.95, 0.5, step=0.05, label="Threshold")
                gr.Markdown(LEGEND)

        outputs = [state, problems, image, name, view]
        # One prediction at a time: a second user waits for seconds, memory stays bounded.
        heavy: dict[str, Any] = {
            "concurrency_limit": 1,
            "concurrency_id": "model",
            "api_visibility": "private",
        }
        light: dict[str, Any] = {
            "inputs": [state, checkpoint, image, name, opacity, threshold],
            "outputs": [shown, scores],
            "show_progress": "hidden",
            "trigger_mode": "always_last",
            "api_visibility": "private",
        }
        steps = [
            files.upload(add, [checkpoint, files, state], [files, *outputs], **heavy),
            example.click(phantom, [checkpoint, state], outputs, **heavy),
            checkpoint.input(again, [checkpoint, state], outputs, **heavy),
            image.input(chosen, [state, image], name, api_visibility="private"),
        ]
        for step in steps:
            step.then(show, **light)
        for control in (name.input, opacity.change, threshold.change):
            control(show, **light)
    return page


def _classes(gr: Any, result: session.Result) -> Any:
    choices = [(f"{f.class_name}  {f.probability:.2f}", f.class_name) for f in result.findings]
    return gr.Radio(choices=choices, value=result.findings[0].class_name)


class Guard:
    """Refuses requests that are too large, and tells the browser to load nothing from elsewhere."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one connection (ASGI)."""
        headers = dict(scope.get("headers") or ())
        if int(headers.get(b"content-length") or 0) > MAX_REQUEST:
            start = {"type": "http.response.start", "status": 413, "headers": []}
            await send(start)
            await send({"type": "http.response.body", "body": b"The files are too large."})
            return

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"content-security-policy", POLICY),
                    (b"referrer-policy", b"no-referrer"),
                    (b"cache-control", b"no-store"),
                ]
            await send(message)

        await self.app(scope, receive, guarded)


def start(
    checkpoints: Sequence[str | Path], folder: str, *, port: int | None = None, browser: bool
) -> tuple[Any, str]:
    """Load checkpoints and serve the page from threads of this process.

    Args:
        checkpoints: names or folders, offered beside the bundled ones.
        folder: where uploads lie until they are read.
        port: None takes the first free one from 7860 on.
        browser: open the page there.

    Returns:
        The page, to be closed, and its address.

    Raises:
        InvalidOptionError: the port is taken.
        MissingExtraError: gradio is not installed.
        PylonZooError: a checkpoint cannot be loaded.
    """
    os.environ["GRADIO_TEMP_DIR"] = folder
    gr = _gradio()
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    page = build(session.load_models([str(name) for name in checkpoints]))
    # A name that an attacker's server resolves to 127.0.0.1 is none of these.
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    try:
        _, address, _ = page.launch(
            server_name="127.0.0.1",
            server_port=port,
            inbrowser=browser,
            share=False,
            quiet=True,
            show_error=False,
            prevent_thread_lock=True,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            max_file_size=session.MAX_BYTES,
            state_session_capacity=SESSIONS,
            footer_links=[],
            theme=gr.themes.Default(primary_hue="blue", **fonts),
            css=STYLE,
            app_kwargs={"middleware": [hosts, Middleware(Guard)], "openapi_url": None},
        )
    except OSError as error:
        raise InvalidOptionError(
            f"Port {port or 'from 7860 on'} is taken; choose another with --port."
        ) from error
    return page, str(address)


def serve(
    checkpoints: Sequence[str | Path],
    *,
    port: int | None = None,
    browser: bool = True,
    ready: Callable[[str], None],
) -> None:
    """Serve the page until SIGINT or SIGTERM, and leave no file behind; for the main thread.

    Args:
        checkpoints: see :func:`start`.
        port: see :func:`start`.
        browser: see :func:`start`.
        ready: told the address.
    """
    with tempfile.TemporaryDirectory(prefix="pylon-zoo-demo-") as folder:
        page, address = start(checkpoints, folder, port=port, browser=browser)
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        try:
            ready(address)
            stop.wait()
        finally:
            page.close(verbose=False)
