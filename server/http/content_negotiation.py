"""The response format a client asks for in the Accept, Accept-Encoding and Prefer headers."""

_STREAM = "text/event-stream"
_JSON = "application/json"
_CSV = "text/csv"


def prefers_stream(accept: str | None) -> bool:
    """Whether to respond with events instead of JSON: unless the Accept header prefers JSON."""
    ranges = [_media_range(part) for part in (accept or "*/*").split(",")]
    return _preference(_STREAM, ranges) >= _preference(_JSON, ranges)


def prefers_csv(accept: str | None) -> bool:
    """Whether to respond with CSV instead of JSON: only if the Accept header prefers CSV."""
    ranges = [_media_range(part) for part in (accept or "*/*").split(",")]
    return _preference(_CSV, ranges) > _preference(_JSON, ranges)


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Whether an Accept-Encoding header allows gzip."""
    ranges = dict(_media_range(part) for part in (accept_encoding or "").split(","))
    return ranges.get("gzip", ranges.get("*", 0.0)) > 0


def wants_async(prefer: list[str]) -> bool:
    """Whether a Prefer header has `respond-async` (RFC 7240): respond at once, without the result."""
    tokens = (part.partition(";")[0].strip().lower() for line in prefer for part in line.split(","))
    return "respond-async" in tokens


def _media_range(text: str) -> tuple[str, float]:
    name, *parameters = (piece.strip().lower() for piece in text.split(";"))
    quality = next((value[2:] for value in parameters if value.startswith("q=")), "1")
    try:
        return name, min(max(float(quality), 0.0), 1.0)
    except ValueError:
        return name, 0.0


def _preference(media: str, ranges: list[tuple[str, float]]) -> tuple[float, int]:
    """The quality of `media`, and the specificity of the range that matches it, which breaks ties."""
    patterns = ("*/*", f"{media.partition('/')[0]}/*", media)
    matches = [(patterns.index(name), quality) for name, quality in ranges if name in patterns]
    if not matches:
        return 0.0, 0
    specificity, quality = max(matches)
    return (quality, specificity) if quality else (0.0, 0)
