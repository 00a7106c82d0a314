"""The Compare tab: one class, one seed, four ways to decode it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from demo.messages import explain, notice
from demo.runs import compare
from demo.runs.example import EXAMPLE_SEED
from demo.serving.models import ModelHolder
from demo.settings import model_presets
from demo.tabs.browser_settings import Widgets, named
from demo.tabs.model_menu import ModelMenu, ModelParts
from demo.tabs.widgets import advanced_fold, field_values, player, preset_radio, seed_row, stop_js


@dataclass(frozen=True)
class CompareTab:
    """What the page needs of the tab.

    Args:
        parts: what depends on the model.
        what: the kinds of comparison.
        remembered: settings that outlive a reload, by name.
    """

    parts: ModelParts
    what: gr.Radio
    remembered: Widgets


def build_compare_tab(models: ModelHolder, menu: ModelMenu, scheduler: Any) -> CompareTab:
    """Lay the tab out and wire it. Call inside a `gr.Tab`."""
    model = models.current
    classes, guided = list(model.classes), model.null_label is not None
    presets = model_presets(model)
    del model  # the page must not keep it in memory
    with gr.Row(elem_classes="workbench"):
        with gr.Column(scale=2, min_width=300, elem_classes="settings"):
            what = gr.Radio(
                compare.choices_for(guided),
                value="Order",
                label="What differs",
                info="Everything else is the same, the seed too.",
                elem_id="cmp-what",
            )
            name = gr.Dropdown(classes, value=classes[-1], label="Class", elem_id="cmp-class")
            seed = seed_row("cmp", EXAMPLE_SEED)
            preset = preset_radio("cmp", presets)
            with gr.Row(elem_classes="actions go-row"):
                go = gr.Button("Compare", variant="primary", elem_id="cmp-go", scale=3)
                stop = gr.Button("Stop", interactive=False, elem_id="cmp-stop", scale=1)
            fields = advanced_fold("cmp", preset, presets, guided=guided)
        with gr.Column(scale=3, min_width=320, elem_classes="results"):
            view = player("cmp-player", "Press Compare to see the same image made in four ways.")

    def on_compare(
        shown: str, difference: str, class_name: str, first_seed: float, *values: Any
    ) -> Iterator[tuple[Any, Any]]:
        with explain():
            request = compare.parse_compare(
                models.expect(shown), class_name, first_seed, difference, field_values(values)
            )
            told = False
            for run, _ in scheduler.run(compare.compare_run, models, shown, request):
                if "frames" in run:
                    yield run, gr.update(interactive=True)
                    continue
                if run["waiting"] and not told:
                    notice(f"You are number {run['waiting']} in line.")
                    told = True
                yield gr.skip(), gr.update(interactive=True)
        yield gr.skip(), gr.update(interactive=False)

    event = go.click(
        on_compare,
        [menu.shown, what, name, seed, *fields],
        [view, stop],
        show_progress="hidden",
        concurrency_id="model",
        concurrency_limit=scheduler.concurrency,
        api_visibility="private",
    )
    stop.click(
        lambda: gr.update(interactive=False),
        None,
        stop,
        js=stop_js("cmp-player"),
        cancels=[event],
        queue=False,
        api_visibility="private",
    )
    parts = ModelParts(name, preset, fields)
    return CompareTab(parts, what, named("compare", parts, {"what": what, "seed": seed}))
