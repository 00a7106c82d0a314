"""Habits of Gradio 6.31 that no setting changes, and what replaces them here and in `forgetting`.

Each is one function or class of the pinned version; the tests of the running page fail if a new
version no longer uses it.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import nullcontext
from typing import Any, NoReturn

import gradio as gr
from gradio import processing_utils, queueing, route_utils, routes, utils
from gradio.components.api_component import Api
from gradio.exceptions import InvalidPathError

from demo.hardening.forgetting import make_forgetful

log = logging.getLogger(__name__)

NOT_FETCHED = "Addresses are not fetched here: send the file itself."
NOT_UPLOADED = "That is not an uploaded file."
NOT_DONE = (
    "This request could not be carried out. Check what was sent, or load the page anew, and try "
    "again."
)
check_inputs = gr.Blocks.validate_inputs
LONGEST_ERROR = 500  # characters


def refuse_download(*_: Any, **__: Any) -> NoReturn:
    """Take the place of Gradio's downloader, which fetches any public address that a client names.

    Raises:
        gr.Error: always.
    """
    raise gr.Error(NOT_FETCHED, print_exception=False)


async def refuse_download_later(*_: Any, **__: Any) -> NoReturn:
    """`refuse_download` as a coroutine."""
    refuse_download()


class UnguessableUpload(route_utils.GradioUploadFile):
    """An upload whose folder's name tells nothing about its content and is never used twice.

    Gradio names it after the content, so that two visitors with the same photo share one file.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sha.update(secrets.token_bytes(32))


def plain_payload(error: BaseException | None, show_error: bool) -> dict[str, Any]:
    """Say in one sentence what a client learns of an error: never a path or a trace."""
    if not isinstance(error, gr.Error):
        known = isinstance(error, InvalidPathError)
        error = gr.Error(NOT_UPLOADED if known else NOT_DONE)
    return {
        # Gradio repeats a value that is not among the choices, however long it was sent.
        "error": str(error.message)[:LONGEST_ERROR],
        "duration": error.duration,
        "visible": error.visible,
        "title": error.title,
    }


def fill_defaults(blocks: gr.Blocks, function: Any, inputs: list[Any]) -> None:
    """Give a call of a function for programs the defaults of the last values that it leaves out.

    `gradio_client` does so itself; for others, one new parameter would break every call. What is
    left out and has no default is None, which the functions refuse in words.
    """
    missing = function.inputs[len(inputs) :]
    if all(isinstance(component, Api) for component in function.inputs):
        inputs.extend(component.value for component in missing)
    check_inputs(blocks, function, inputs)


def guard_gradio() -> None:
    """Put the replacements in place; doing it again changes nothing."""
    processing_utils.async_ssrf_protected_download = refuse_download_later
    processing_utils.ssrf_protected_download = refuse_download
    processing_utils.save_url_to_cache = refuse_download
    routes.secure_url_stream_response = refuse_download_later
    route_utils.GradioUploadFile = routes.GradioUploadFile = UnguessableUpload
    utils.error_payload = queueing.error_payload = plain_payload
    # At each event Gradio looks for Matplotlib, in all folders of packages. Nothing here uses it.
    utils.MatplotlibBackendMananger = nullcontext
    gr.Blocks.validate_inputs = fill_defaults
    make_forgetful()
