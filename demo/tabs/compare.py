"""The Compare tab: one class, one seed, four ways to decode it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from demo.messages import explain
from demo.presets import model_presets
from demo.runs.compare import choices_for, parse_compare
from demo.runs.example import EXAMPLE_SEED
from demo.runs.follow import follow
from demo.serving.models import ModelHolder
from demo.serving.request import Request
from demo.serving.runner import Runner
from demo.tabs.browser_settings import Widgets, named
from demo.tabs.model_menu import ModelMenu
from demo.tabs.model_parts import ModelParts
from demo.tabs.widgets import (
    advanced_settings,
    field_values,
    go_row,
    model_event,
    player,
    preset_radio,
    seed_row,
    wire_stop,
)


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


def build_compare_tab(models: ModelHolder, menu: ModelMenu, runner: Runner) -> CompareTab:
    """Lay the tab out and wire it. Call inside a `gr.Tab`."""
    model = models.current
    classes, guided = list(model.classes), model.null_label is not None
    presets = model_presets(model)
    del model  # the page must not keep it in memory
    with gr.Row(elem_classes="workbench"):
        with gr.Column(scale=2, min_width=300, elem_classes="settings"):
            what = gr.Radio(
                choices_for(guided),
                value="Order",
                label="What differs",
                info="Everything else is the same, the seed too.",
                elem_id="cmp-what",
            )
            name = gr.Dropdown(classes, value=classes[-1], label="Class", elem_id="cmp-class")
            seed = seed_row("cmp", EXAMPLE_SEED)
            preset = preset_radio("cmp", presets)
            go, stop = go_row("cmp", "Compare")
            fields = advanced_settings("cmp", preset, presets, guided=guided)
        with gr.Column(scale=3, min_width=320, elem_classes="results"):
            view = player("cmp-player", "Press Compare to see the same image made in four ways.")

    def parse(shown: str, difference: str, label: str, first: float, values: Any) -> Request:
        # A call of its own: a run that waits must not keep the model in memory.
        return parse_compare(models.expect(shown), label, first, difference, field_values(values))

    def on_compare(
        shown: str, difference: str, label: str, first: float, *values: Any
    ) -> Iterator[tuple[Any, Any]]:
        with explain():
            request = parse(shown, difference, label, first, values)
            for progress in follow(request, runner.decode):
                yield progress.log, gr.update(interactive=True)
        yield gr.skip(), gr.update(interactive=False)

    event = go.click(
        on_compare, [menu.shown, what, name, seed, *fields], [view, stop], **model_event(runner)
    )
    wire_stop(stop, "cmp-player", event)
    parts = ModelParts(name, preset, fields)
    return CompareTab(parts, what, named("compare", parts, {"what": what, "seed": seed}))
