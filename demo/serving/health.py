"""Two addresses for the server's owner: /healthz, and /metrics where it is asked for."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from demo.serving.models import ModelHolder


def health_routes(models: ModelHolder, scheduler: Any, *, metrics: bool = False) -> list[Route]:
    """The addresses, for `launch.launch_options`.

    Args:
        models: holds the model; without one /healthz answers 503.
        scheduler: whose jobs are counted.
        metrics: whether there is a /metrics.
    """

    async def healthz(request: Request) -> JSONResponse:
        ready = models.ready
        content = {
            "status": "ok" if ready else "no model is loaded",
            "model": models.name if ready else None,
            "waiting": scheduler.num_waiting,
            "working": scheduler.num_working,
        }
        return JSONResponse(content, 200 if ready else 503)

    async def counters(request: Request) -> PlainTextResponse:
        text = scheduler.ledger.prometheus(
            waiting=scheduler.num_waiting, working=scheduler.num_working
        )
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    routes = [Route("/healthz", healthz)]
    if metrics:
        routes.append(Route("/metrics", counters))
    return routes
