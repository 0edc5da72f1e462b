"""The gate before a socket's parser limits an unauthenticated client and loses no byte of a user's."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from server.http.frame_gate import FrameGate
from tests.unit.streaming.raw import client_frame

TEXT, CONTINUATION, CLOSE, PING = 0x1, 0x0, 0x8, 0x9


@dataclass
class Parser:
    """Records the bytes that passed the gate."""

    passed: bytearray = field(default_factory=bytearray)
    ended: bool = False

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.passed += data
        return False, b""

    def feed_eof(self) -> None:
        self.ended = True


@dataclass
class Transport:
    """The connection's transport."""

    reads: bool = True

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


def _gate(most: int = 100, *, is_authenticated: bool = False) -> tuple[FrameGate, Parser, Transport]:
    gate, parser, transport = FrameGate(most, is_authenticated=is_authenticated), Parser(), Transport()
    gate.wrap(parser, transport)
    return gate, parser, transport


def _feed(gate: FrameGate, data: bytes, sizes: list[int]) -> None:
    while data:
        size = sizes.pop() if sizes else len(data)
        gate.feed_data(data[:size])
        data = data[size:]


PIECES = st.lists(st.integers(1, 40), max_size=40)
FIRST = st.sampled_from(
    [
        client_frame(TEXT, b""),
        client_frame(TEXT, b"hello"),
        client_frame(PING, b"?") + client_frame(TEXT, b"hello"),
        client_frame(TEXT, b"he", final=False) + client_frame(PING, b"?") + client_frame(CONTINUATION, b"llo"),
        client_frame(TEXT, b"x" * 92),
        client_frame(CLOSE, b"\3\350"),
    ]
)


@given(FIRST, st.binary(max_size=200), PIECES)
def test_the_first_message_passes_and_the_rest_after_open(first: bytes, rest: bytes, sizes: list[int]) -> None:
    gate, parser, transport = _gate()
    _feed(gate, first + rest, sizes)
    assert parser.passed == first
    assert not transport.reads
    gate.open()
    assert parser.passed == first + rest
    assert transport.reads
    gate.feed_data(b"more")
    assert parser.passed == first + rest + b"more"


@given(
    st.sampled_from(
        [
            client_frame(TEXT, b"x" * 95),
            client_frame(TEXT, b"x" * 2_000_000)[:60],
            client_frame(TEXT, b"x" * 40, final=False) * 3,
            client_frame(PING, b"") * 20,
            b"\x81\xff" + b"\xff" * 8,
        ]
    ),
    PIECES,
)
def test_an_excess_is_reported_once_and_discarded(sent: bytes, sizes: list[int]) -> None:
    reported: list[None] = []
    gate, parser, transport = _gate()
    gate.on_excess = lambda: reported.append(None)
    _feed(gate, sent + b"x" * 1000, sizes)
    assert (reported, gate.is_exceeded, transport.reads) == ([None], True, True)
    assert len(parser.passed) <= 100


@given(st.binary(min_size=1, max_size=300), PIECES)
def test_nothing_of_an_authenticated_client_passes_before_open(sent: bytes, sizes: list[int]) -> None:
    gate, parser, transport = _gate(is_authenticated=True)
    _feed(gate, sent, sizes)
    assert not parser.passed
    assert not transport.reads
    gate.open()
    assert parser.passed == sent


@given(st.binary(max_size=300), PIECES)
def test_after_discard_bytes_are_read_and_discarded(sent: bytes, sizes: list[int]) -> None:
    gate, parser, transport = _gate(is_authenticated=True)
    gate.feed_data(b"held")
    gate.discard()
    _feed(gate, sent, sizes)
    gate.feed_eof()
    assert not parser.passed
    assert (parser.ended, transport.reads) == (True, True)
