"""Requests by schemathesis: what the OpenAPI document allows and what it forbids, as every identity, and in sequences
in which an answer's ids are the next request's."""

import random
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.generation.stateful.state_machine import APIStateMachine
from schemathesis.openapi.checks import RejectedPositiveData
from schemathesis.schemas import APIOperation

from server.api import router
from server.api.openapi import document
from tests.fuzz.server import Identity, Target
from tests.fuzz.target import Tally

TIMEOUT: Final = 60.0
EXAMPLES: Final = 2
"""Inputs of one operation, identity and kind at a time."""
STEPS: Final = 10
"""Requests in a sequence."""
STREAMS: Final = ("/api/v1/chat/events", "/api/v1/chat/stream")
"""Without an end: `frames` has them."""
BEYOND_SCHEMA: Final = ("invalid_request", "invalid_cursor", "weak_password", "otp_expired", "last_admin")
"""Codes for input that the schema allows: rules about several fields, about readable text, the strength of passwords,
and states of accounts."""
ENDINGS: Final = ("DELETE /api/v1/user", "POST /api/v1/auth/logout")
"""After these an identity is nobody any more: they come last."""
TOO_LARGE: Final = 413
"""Also says that input was invalid; schemathesis does not know."""
Case = schemathesis.Case[Any]
Operation = APIOperation[Any, Any, Any, Any]
_MODES = tuple(schemathesis.GenerationMode)
_SETTINGS = settings(
    database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), print_blob=False
)


class Rest:
    """Sends requests to the target. `seed` decides everything."""

    def __init__(self, target: Target, tally: Tally, seed: int) -> None:
        self._target = target
        self._tally = tally
        self._random = random.Random(seed)
        self._schema = schemathesis.openapi.from_dict(document(router.ROUTES, "fuzz"))
        self._operations = [
            one for one in map(_operation, self._schema.get_all_operations()) if one.path not in STREAMS
        ]
        self._session = requests.Session()

    def run(self, inputs: int) -> None:
        """Send about so many requests."""
        until = self._tally.inputs["requests"] + inputs
        for operation, who, mode in self._rounds():
            if self._tally.inputs["requests"] >= until:
                break
            self._send_some(operation, who, mode)
        self._session.close()

    def end(self) -> None:
        """Send what ends identities, to the endpoints that `run` leaves out."""
        for operation in self._operations:
            for who in self._target.identities if operation.label in ENDINGS else ():
                for mode in reversed(_MODES):
                    self._send_some(operation, who, mode)
        self._session.close()

    def run_sequences(self, inputs: int) -> None:
        """Send about so many requests in sequences, each as one identity."""
        until = self._tally.inputs["sequences"] + inputs
        while self._tally.inputs["sequences"] < until:
            who = self._random.choice(self._target.identities)
            _machine(self._schema, self, who).run(
                settings=settings(_SETTINGS, max_examples=2, stateful_step_count=STEPS)
            )
        self._session.close()

    def headers(self, who: Identity) -> dict[str, str]:
        return {} if who.token is None else {"Authorization": f"Bearer {who.token}"}

    def options(self, who: Identity) -> dict[str, Any]:
        """What `Case.call` needs to send a request as `who`."""
        url = f"http://127.0.0.1:{self._target.port}"
        return {"base_url": url, "session": self._session, "headers": self.headers(who), "timeout": TIMEOUT}

    def judge(self, kind: str, case: Case, response: schemathesis.Response, who: Identity) -> None:
        """Count, and check the answer against the document and for leaks."""
        self._tally.inputs[kind] += 1
        text = f"{response.headers}\n{response.text}"
        self._tally.judge(self._target, who, case.operation.path, response.status_code, text)
        try:
            case.validate_response(
                response, headers=self.headers(who), transport_kwargs={"session": self._session, "timeout": TIMEOUT}
            )
        except* Failure as failures:
            for failure in _leaves(failures):
                if not _is_allowed(failure, response):
                    self._tally.wrong(f"{type(failure).__name__} at {case.operation.label}", f"{failure}\n{text}")

    def _rounds(self) -> Iterator[tuple[Operation, Identity, schemathesis.GenerationMode]]:
        """Every operation, identity and kind of input, again and again in random order."""
        every = [
            (one, who, mode)
            for one in self._operations
            if one.label not in ENDINGS
            for who in self._target.identities
            for mode in (_MODES if who.is_admitted else _MODES[:1])
        ]
        while True:
            self._random.shuffle(every)
            yield from every

    def _send_some(self, operation: Operation, who: Identity, mode: schemathesis.GenerationMode) -> None:
        @hypothesis.seed(self._random.getrandbits(32))
        @settings(_SETTINGS, max_examples=EXAMPLES)
        @given(operation.as_strategy(generation_mode=mode))
        def send(case: Case) -> None:
            self._point_at_victim(case)
            self.judge("requests", case, case.call(**self.options(who)), who)

        with suppress(Unsatisfiable):  # an operation without input has none that is invalid
            send()

    def _point_at_victim(self, case: Case) -> None:
        """Sometimes ask for another user's turn."""
        if "turn_id" in (case.path_parameters or {}) and self._random.random() < 0.5:
            case.path_parameters["turn_id"] = self._target.victim_turn


def _machine(schema: Any, rest: Rest, who: Identity) -> type[APIStateMachine]:
    """schemathesis's state machine over the document's links, sending as `who`."""

    class Sequence(schema.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: Case) -> Mapping[str, Any]:
            return rest.options(who)

        def call(self, case: Case, **kwargs: Any) -> schemathesis.Response:
            if case.operation.path in STREAMS:
                hypothesis.assume(False)
            response = super().call(case, **kwargs)
            rest.judge("sequences", case, response, who)
            return response  # type: ignore[no-any-return]

        def validate_response(self, *_: Any, **__: Any) -> None:
            """`judge` has done so."""

    return Sequence


def _operation(found: Any) -> Operation:
    operation: Operation = found.ok()
    return operation


def _leaves(group: BaseExceptionGroup[Failure]) -> Iterator[Failure]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _leaves(one)
        else:
            yield one


def _is_allowed(failure: Failure, response: schemathesis.Response) -> bool:
    """Whether the failure is no fault: what the schema cannot say, and what schemathesis does not know."""
    if isinstance(failure, AcceptedNegativeData):
        return response.status_code == TOO_LARGE
    if isinstance(failure, RejectedPositiveData):
        return any(f'"code":"{code}"' in response.text for code in BEYOND_SCHEMA)
    return False
