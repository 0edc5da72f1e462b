"""Contains the failures of a service: retries with backoff, circuit breakers, and guarded calls.

Adapters wrap their calls in a `Guard`; token buckets limit calls to this server. Independent of any service.
"""

from server.resilience.breaker import Breaker
from server.resilience.errors import LONGEST_RETRY_SECONDS, ServiceError, retry_after_in
from server.resilience.guard import Guard
from server.resilience.retry import Backoff, FailureBackoff, retry

__all__ = [
    "LONGEST_RETRY_SECONDS",
    "Backoff",
    "Breaker",
    "FailureBackoff",
    "Guard",
    "ServiceError",
    "retry",
    "retry_after_in",
]
