"""Metrics of this instance for Prometheus. Each server object has its own registry, not the global one."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_LEVELS = {
    "sessions": "Sessions in memory.",
    "connections": "Open WebSocket and SSE connections.",
    "running_turns": "Running turns.",
    "waiting_turns": "Turns that wait for a slot among the running ones.",
}


class Metrics:
    """Counters and histograms. Labels have few, fixed values (routes, not paths)."""

    CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "chat_http_requests", "Completed requests.", ("method", "route", "status"), registry=self.registry
        )
        self.request_seconds = Histogram(
            "chat_http_request_seconds",
            "Duration of requests; of streams and sockets until their end.",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.requests_open = Gauge(
            "chat_http_requests_open", "Open requests, streams and sockets.", registry=self.registry
        )

        self._levels = {
            name: Gauge(f"chat_{name}", meaning, registry=self.registry) for name, meaning in _LEVELS.items()
        }

    def text(self, levels: Mapping[str, int]) -> bytes:
        """The metrics in Prometheus' exposition format. `levels`: the current `SessionHub.counts`."""
        for name, gauge in self._levels.items():
            gauge.set(levels[name])
        return generate_latest(self.registry)
