"""How a client would like its answer, read from the Accept and Prefer headers."""

_STREAM = "text/event-stream"
_JSON = "application/json"
_CSV = "text/csv"


def prefers_stream(accept: str | None) -> bool:
    """Whether the Accept header leads to events rather than JSON. Events it is unless JSON is clearly preferred."""
    ranges = [_media_range(part) for part in (accept or "*/*").split(",")]
    return _preference(_STREAM, ranges) >= _preference(_JSON, ranges)


def prefers_csv(accept: str | None) -> bool:
    """Whether the Accept header leads to CSV rather than JSON. JSON it is unless CSV is clearly preferred."""
    ranges = [_media_range(part) for part in (accept or "*/*").split(",")]
    return _preference(_CSV, ranges) > _preference(_JSON, ranges)


def wants_async(prefer: list[str]) -> bool:
    """Whether a Prefer header asks for an answer at once (`respond-async`, RFC 7240)."""
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
    """How much `media` is wanted, and how specifically it was asked for, which breaks ties."""
    patterns = ("*/*", f"{media.partition('/')[0]}/*", media)
    matches = [(patterns.index(name), quality) for name, quality in ranges if name in patterns]
    if not matches:
        return 0.0, 0
    specificity, quality = max(matches)
    return (quality, specificity) if quality else (0.0, 0)
