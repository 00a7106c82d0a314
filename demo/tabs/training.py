"""The Training tab: curves and sheets of a run on this machine while it goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from demo.runs.curves import draw_curves
from demo.runs.training_runs import TrainingRun, find_runs, read_curves
from demo.tabs.widgets import asset

SECONDS = 4.0  # between two looks at the folder
STILL_SECONDS = 120  # without news, a run is no longer called running
LATEST = "newest"
EMPTY = "There is no run here yet. Start one with python -m maskgit_core train; it will show up."


def build_training_tab(root: Path) -> None:
    """Lay the tab out and wire it. Call inside a `gr.Tab`.

    Args:
        root: folder that holds the folders of runs.
    """
    runs = find_runs(root)
    names = [run.name for run in runs]
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
    status = gr.Markdown(EMPTY if not runs else "", elem_id="train-status")
    curves = gr.HTML(
        value="",
        css_template=asset("training.css"),
        apply_default_css=False,
        elem_id="train-curves",
    )
    picture = gr.Image(
        label="Sheet", interactive=False, format="png", elem_id="train-picture", visible=False
    )
    shown = gr.State(None)
    timer = gr.Timer(SECONDS)

    def look(name: str | None, step: Any, seen: Any) -> tuple[Any, ...]:
        runs = find_runs(root)
        run = next((run for run in runs if run.name == name), runs[0] if runs else None)
        if run is None:
            return gr.skip(), gr.skip(), EMPTY, "", gr.update(visible=False), None
        try:
            now = (run.name, str(step), [other.name for other in runs], *run.stamp())
            if now == seen:
                return (gr.skip(), gr.skip(), _status(run), gr.skip(), gr.skip(), gr.skip())
            sheets = run.sheets()
            wanted = next((s for s in sheets if str(s) == str(step)), max(sheets, default=None))
            view = gr.update(visible=False)
            if wanted is not None:
                with Image.open(sheets[wanted]) as file:
                    view = gr.update(
                        value=file.convert("RGB"),
                        visible=True,
                        label=f"Sheet after step {wanted:,}",
                    )
            steps = [LATEST, *(str(s) for s in reversed(sheets))]
            return (
                gr.update(choices=[other.name for other in runs], value=run.name),
                gr.update(choices=steps, value=str(step) if str(step) in steps else LATEST),
                _status(run),
                draw_curves(read_curves(run)),
                view,
                now,
            )
        except OSError:
            # A run that is deleted or written at this moment; the next look is soon.
            return (gr.skip(),) * 6

    event: dict[str, Any] = {
        "fn": look,
        "inputs": [chosen, sheet, shown],
        "outputs": [chosen, sheet, status, curves, picture, shown],
        "show_progress": "hidden",
        "queue": False,
        "api_visibility": "private",
    }
    timer.tick(**event)
    chosen.input(**event)
    sheet.input(**event)


def _status(run: TrainingRun) -> str:
    age = max(0, round(time.time() - run.changed))
    if age < STILL_SECONDS:
        return f"Running: the log was written {age} s ago."
    ago = f"{age // 60} min" if age < 7200 else f"{age // 3600} h"
    return f"Nothing new for {ago}: finished or stopped."
