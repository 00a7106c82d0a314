"""Two addresses for the server's owner: /healthz, and /metrics where it is asked for."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from demo.serving.models import ModelHolder
from demo.serving.runner import Runner


def health_routes(models: ModelHolder, runner: Runner, *, metrics: bool = False) -> list[Route]:
    """The addresses, for `launch.launch_options`.

    Args:
        models: holds the model; without one /healthz answers 503.
        runner: whose jobs are counted; while one after the other fails, /healthz answers 503, so
            that the platform starts the server anew.
        metrics: whether there is a /metrics.
    """

    async def healthz(request: Request) -> JSONResponse:
        ready, failing = models.ready, runner.metrics.failing
        status = "no model is loaded" if not ready else "every job fails" if failing else "ok"
        content = {
            "status": status,
            "model": models.name if ready else None,
            "waiting": runner.num_waiting,
            "working": runner.num_working,
        }
        return JSONResponse(content, 200 if status == "ok" else 503)

    async def counters(request: Request) -> PlainTextResponse:
        text = runner.metrics.prometheus(waiting=runner.num_waiting, working=runner.num_working)
        return PlainTextResponse(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    routes = [Route("/healthz", healthz)]
    if metrics:
        routes.append(Route("/metrics", counters))
    return routes
