"""The same functions for MCP clients (`python app.py --mcp`): listed, and one of them called."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

import tiny

TOOLS = {"generate", "inpaint", "outpaint", "classes", "models"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where MCP clients connect."""
    pytest.importorskip("mcp")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from demo.launch import launch_options, queue_options
    from demo.ui import build_demo

    demo = build_demo(tiny.model())
    demo.queue(**queue_options())
    options = launch_options(mcp=True)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **options)
    yield url.rstrip("/") + "/gradio_api/mcp/"
    demo.close()


async def _ask(address: str) -> tuple[dict[str, str], str, str]:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async with streamablehttp_client(address) as (reader, writer, _):
        async with ClientSession(reader, writer) as session:
            await session.initialize()
            tools = (await session.list_tools()).tools
            classes = await session.call_tool("classes", {})
            wrong = await session.call_tool("generate", {"classes": ["moon"]})
    described = {tool.name: tool.description or "" for tool in tools}
    return described, classes.content[0].text, wrong.content[0].text


def test_mcp_clients_see_the_documented_functions_and_nothing_else(address: str) -> None:
    tools, classes, wrong = asyncio.run(_ask(address))
    assert set(tools) == TOOLS
    assert all(len(words) > 20 for words in tools.values())
    assert all(name in classes for name in tiny.model().classes)
    assert "There is no class 'moon'" in wrong


def test_without_the_package_the_command_says_what_to_install(monkeypatch, capsys) -> None:
    import app

    monkeypatch.setattr(app.importlib.util, "find_spec", lambda name: None)
    assert app.main(["--mcp"]) == 2
    assert 'pip install "gradio[mcp]"' in capsys.readouterr().err
