"""Connections that send nothing useful are closed: uvicorn waits for a request without an end."""

from __future__ import annotations

from typing import Any

import uvicorn

HEADER_SECONDS = 15.0  # from the first byte of a request, or the connection, to its last header


def patient_for(protocol: type[Any]) -> type[Any]:
    """Return one of uvicorn's HTTP protocols with a limit of time on the headers of a request."""

    class Bounded(protocol):
        _clock: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            if self._clock is None and self._idle():
                self._watch()
            super().data_received(data)
            if self._clock is not None and not self._idle():
                self._clock.cancel()
                self._clock = None

        def connection_lost(self, exc: Exception | None) -> None:
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None
            super().connection_lost(exc)

        def _idle(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _watch(self) -> None:
            self._clock = self.loop.call_later(HEADER_SECONDS, self._expire)

        def _expire(self) -> None:
            self._clock = None
            if self._idle():
                self.transport.close()

    return Bounded


class BoundedConfig(uvicorn.Config):
    """uvicorn's settings, with that protocol."""

    def load(self) -> None:
        """Load as usual, then replace the protocol."""
        super().load()
        self.http_protocol_class = patient_for(self.http_protocol_class)


def bound_connections() -> None:
    """Let Gradio's server use it; doing it again changes nothing."""
    uvicorn.Config = BoundedConfig  # type: ignore[misc]
