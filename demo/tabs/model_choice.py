"""The list of models in the menu, and the fetches that pages have begun from it."""

from __future__ import annotations

import html
import secrets
from collections.abc import Iterator
from typing import Any

import gradio as gr

from demo.messages import explain
from demo.serving.catalogue import headline
from demo.serving.models import ModelHolder
from demo.settings import RequestError
from demo.tabs.widgets import asset
from maskgit_core.weights.progress import Progress


class Fetches:
    """The fetches that pages have begun, by a number that only the page knows."""

    def __init__(self) -> None:
        self._running: dict[int, Progress] = {}

    def begin(self) -> tuple[int, Progress]:
        """Return number and progress of a new one."""
        number, progress = secrets.randbits(52), Progress()
        self._running[number] = progress
        return number, progress

    def end(self, number: int) -> None:
        """Forget one."""
        self._running.pop(number, None)

    def cancel(self, number: Any) -> None:
        """Stop one; nothing where there is none of that number."""
        progress = self._running.get(number) if isinstance(number, int) else None
        if progress is not None:
            progress.cancel()


FETCHES = Fetches()


def sentence_html(sentence: str, share: float | None = None) -> str:
    """A sentence for the menu's status line, with a bar where a share of something is done."""
    if not sentence:
        return ""
    said = f'<p role="status">{html.escape(sentence, quote=False)}</p>'
    if share is None:
        return said
    percent = f"{100 * min(1.0, share):.0f}"
    return (
        f'{said}<div class="model-bar" role="progressbar" aria-label="Download" '
        f'aria-valuenow="{percent}"><div style="width: {percent}%"></div></div>'
    )


def choice_value(models: ModelHolder, chosen: str | None) -> dict[str, Any]:
    """What the menu shows: {entries: [{name, title, facts, obstacle}], headline, chosen}.

    `chosen` None leaves the choice as the visitor has made it.
    """
    outlook = models.lookout.outlook
    return {
        "entries": [
            {
                "name": entry.name,
                "title": entry.title,
                "facts": entry.facts(outlook),
                # What is in memory already works, whatever the network does.
                "obstacle": "" if entry.name == models.name else entry.obstacle(outlook),
            }
            for entry in models.entries
        ],
        "headline": headline(models.entries, outlook),
        "chosen": chosen,
    }


def chosen_name(value: Any) -> str:
    """Name of the entry that a menu's value has chosen; empty where it has none."""
    name = value.get("chosen") if isinstance(value, dict) else None
    return name if isinstance(name, str) else ""


def choice_list(models: ModelHolder) -> gr.HTML:
    """The list itself; its value is that of `choice_value`."""
    return gr.HTML(
        value=choice_value(models, models.name),
        html_template=asset("models.html"),
        css_template=asset("models.css"),
        js_on_load=asset("models.js"),
        apply_default_css=False,
        elem_id="model-choice",
    )


def fetched(
    models: ModelHolder, menu: Any, name: str, progress: Progress
) -> Iterator[dict[Any, Any]]:
    """Fetch a model and say how it goes; its folder is the last thing, where there is one.

    Args:
        models: holds the model in use.
        menu: the `ModelMenu` that is told.
        name: of an entry.
        progress: counts, and may be cancelled.
    """
    title = models.title_of(name)
    stays = f"{title} is in use."
    done = {menu.cancel: gr.update(visible=False)}
    if name != models.name:
        with explain():
            try:
                watched = models.fetch_watched(name, progress)
                while True:
                    try:
                        yield {menu.status: sentence_html(*next(watched))}
                    except StopIteration as end:
                        loading = sentence_html(f"Loading {title}.")
                        yield {**done, menu.status: loading, menu.fetched: (name, str(end.value))}
                        return
            except RequestError as error:
                stays = str(error)
                # Who cancelled knows; everybody else is told in a notice too.
                if not progress.cancelled:
                    raise
    yield {**done, menu.status: sentence_html(stays), menu.go: gr.update(interactive=True)}
