"""What this instance counts about itself, for Prometheus. One registry per server object, never the global one."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_LEVELS = {
    "sessions": "Users' sessions in memory.",
    "connections": "WebSocket and SSE connections open now.",
    "running_turns": "Turns that talk to Letta now.",
    "waiting_turns": "Turns in line for a place among the running ones.",
}


class Metrics:
    """Counters and histograms, each labelled only with values from small, fixed sets (routes, never paths)."""

    CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "chat_http_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.request_seconds = Histogram(
            "chat_http_request_seconds",
            "Time until a request was answered; streams and sockets until they ended.",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.requests_open = Gauge(
            "chat_http_requests_open", "Requests, streams and sockets open now.", registry=self.registry
        )

        self._levels = {
            name: Gauge(f"chat_{name}", meaning, registry=self.registry) for name, meaning in _LEVELS.items()
        }

    def text(self, levels: Mapping[str, int]) -> bytes:
        """The exposition format that Prometheus scrapes; `levels` is what `SessionHub.counts` says now."""
        for name, gauge in self._levels.items():
            gauge.set(levels[name])
        return generate_latest(self.registry)
