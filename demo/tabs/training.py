"""The Training tab: curves and sheets of a run on this machine while it goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from demo.runs.training_runs import TrainingRun, draw_curves, find_runs, read_curves
from demo.tabs.widgets import PRIVATE, asset

SECONDS = 4.0  # between two looks at the folder
STILL_SECONDS = 120  # without news, a run is no longer called running
LATEST = "newest"
EMPTY = "There is no run here yet. Start one with python -m maskgit_core train; it will show up."


def build_training_tab(root: Path) -> None:
    """Lay the tab out and wire it. Call inside a `gr.Tab`.

    Args:
        root: folder that holds the folders of runs.
    """
    names = [run.name for run in find_runs(root)]
    with gr.Row():
        # Runs appear while the page is open; names are looked up in the folder, never opened.
        chosen = gr.Dropdown(
            names,
            value=names[0] if names else None,
            label="Run",
            info="The one written last comes first.",
            allow_custom_value=True,
            elem_id="train-run",
        )
        sheet = gr.Dropdown(
            [LATEST],
            value=LATEST,
            label="Sheet after step",
            allow_custom_value=True,
            elem_id="train-sheet",
        )
    status = gr.Markdown("" if names else EMPTY, elem_id="train-status")
    curves = gr.HTML(
        value="",
        css_template=asset("training.css"),
        apply_default_css=False,
        elem_id="train-curves",
    )
    picture = gr.Image(
        label="Sheet", interactive=False, format="png", elem_id="train-picture", visible=False
    )
    seen = gr.State(None)

    def look(name: str | None, step: Any, before: Any) -> tuple[Any, ...]:
        try:
            return _look(root, name, str(step), before)
        except OSError:
            # A run that is deleted or written at this moment; the next look is soon.
            return (gr.skip(),) * 6

    event: dict[str, Any] = {
        "fn": look,
        "inputs": [chosen, sheet, seen],
        "outputs": [chosen, sheet, status, curves, picture, seen],
        "queue": False,
        **PRIVATE,
    }
    gr.Timer(SECONDS).tick(**event)
    chosen.input(**event)
    sheet.input(**event)


def _look(root: Path, name: str | None, step: str, before: Any) -> tuple[Any, ...]:
    """What the tab shows of a run: its choices, status, curves and sheet, and a stamp of them."""
    runs = find_runs(root)
    run = next((run for run in runs if run.name == name), runs[0] if runs else None)
    if run is None:
        return gr.skip(), gr.skip(), EMPTY, "", gr.update(visible=False), None
    names = [other.name for other in runs]
    now = (run.name, step, names, *run.stamp())
    if now == before:
        return gr.skip(), gr.skip(), _status(run), gr.skip(), gr.skip(), gr.skip()
    sheets = run.sheets()
    steps = [LATEST, *(str(number) for number in reversed(sheets))]
    return (
        gr.update(choices=names, value=run.name),
        gr.update(choices=steps, value=step if step in steps else LATEST),
        _status(run),
        draw_curves(read_curves(run)),
        _sheet(sheets, step),
        now,
    )


def _sheet(sheets: dict[int, Path], step: str) -> Any:
    """The sheet of a step, or the newest."""
    number = next((s for s in sheets if str(s) == step), max(sheets, default=None))
    if number is None:
        return gr.update(visible=False)
    with Image.open(sheets[number]) as file:
        image = file.convert("RGB")
    return gr.update(value=image, visible=True, label=f"Sheet after step {number:,}")


def _status(run: TrainingRun) -> str:
    age = max(0, round(time.time() - run.changed))
    if age < STILL_SECONDS:
        return f"Running: the log was written {age} s ago."
    ago = f"{age // 60} min" if age < 7200 else f"{age // 3600} h"
    return f"Nothing new for {ago}: finished or stopped."
