"""The table of who must not reach what of another user's (`tests/stack/isolation.py`) has no empty cell."""

import json
import re
from typing import get_args

import pytest

from server.api.router import ROUTES
from server.protocol.frames import AnyClientFrame
from tests.stack.isolation import (
    ENDPOINTS,
    FORBIDDEN,
    FRAMES,
    PLACEHOLDERS,
    REFUSALS,
    STRANGERS,
    TICKETED,
    Foreigner,
    Refusal,
)

NAMES = {f"{route.method} {route.path}": route for route in ROUTES}


@pytest.mark.parametrize("name", NAMES)
def test_every_endpoint_has_a_row(name: str) -> None:
    """If this fails for a new endpoint, say in ENDPOINTS what is sent to it, and what a stranger is answered."""
    assert ENDPOINTS.get(name), f"add a row for {name} to ENDPOINTS in tests/stack/isolation.py"


def test_no_row_is_left_of_an_endpoint_that_is_gone() -> None:
    assert set(ENDPOINTS) <= set(NAMES)


def test_every_endpoint_that_takes_tickets_has_a_row_for_them() -> None:
    assert {name for name, route in NAMES.items() if route.credential == "ticket"} == set(TICKETED)


def test_every_frame_has_a_row() -> None:
    assert {get_args(frame.model_fields["type"].annotation)[0] for frame in get_args(AnyClientFrame)} == set(FRAMES)


def test_every_identity_is_served_as_a_stranger_or_refused() -> None:
    assert {*STRANGERS, *REFUSALS} == set(Foreigner)
    assert not set(STRANGERS) & set(REFUSALS)


def test_every_placeholder_in_a_path_or_a_row_is_something_of_adas() -> None:
    used = re.findall(r"\{(\w+)\}", f"{list(NAMES)} {ENDPOINTS} {TICKETED} {FRAMES}")
    assert set(used) == set(PLACEHOLDERS)


@pytest.mark.parametrize("name", [name for name, route in NAMES.items() if route.path_parameters])
def test_a_stranger_is_refused_wherever_the_path_names_something_of_adas(name: str) -> None:
    """Only what everybody has under the same name may be served."""
    if not {"label", "name"} & set(NAMES[name].path_parameters):
        assert all(isinstance(attempt.answer, Refusal) for attempt in ENDPOINTS[name])


def test_a_stranger_is_refused_wherever_admins_are_served() -> None:
    admins = [ENDPOINTS[name] for name, route in NAMES.items() if route.access == "admin"]
    assert {attempt.answer for attempts in admins for attempt in attempts} <= {FORBIDDEN}


@pytest.mark.parametrize("name", [name for name, route in NAMES.items() if route.body is not None])
def test_what_is_sent_is_valid_so_that_it_would_do_harm(name: str) -> None:
    """Else a request might be refused for its form, and would show nothing."""
    body = NAMES[name].body
    assert body is not None
    for attempt in ENDPOINTS[name]:
        text = re.sub(r"\{\w+\}", _plausible, json.dumps(attempt.body or {}))
        body.model_validate_json(text)


def _plausible(placeholder: re.Match[str]) -> str:
    """A value of the form that Ada's has."""
    return "ada@example.com" if placeholder[0] == "{email}" else "5eb6d8a5-0b3f-4a1c-9d5e-0c1d2e3f4a5b"
