"""Every operation and every error of the OpenAPI document has an example, which the code itself accepts."""

from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from server.api import router
from server.api.examples import REQUESTS, RESPONSES
from server.api.openapi import document
from server.api.schemas import Problem
from server.http.problems import MEDIA_TYPE
from server.protocol.codes import ERRORS

BODIES = {route.body for route in router.ROUTES if route.body is not None}
ANSWERS = {reply.model for route in router.ROUTES for reply in route.replies.values() if reply.model is not None}
API: dict[str, Any] = document(router.ROUTES, "1")
OPERATIONS = {f"{method} {path}": operation for path, of in API["paths"].items() for method, operation in of.items()}


@pytest.mark.parametrize(("model", "example"), [*REQUESTS.items(), *RESPONSES.items()])
def test_an_example_is_valid(model: type[BaseModel], example: dict[str, Any]) -> None:
    model.model_validate_json(orjson.dumps(example))


def test_each_body_and_each_answer_has_an_example_and_there_is_no_other() -> None:
    assert set(REQUESTS) == BODIES
    assert set(RESPONSES) == ANSWERS


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_shows_its_body_its_answers_and_its_errors(name: str) -> None:
    operation = OPERATIONS[name]
    answers = [answer for answer in operation["responses"].values() if "content" in answer]
    contents = [content for answer in answers for content in answer["content"].items()]
    contents += operation.get("requestBody", {}).get("content", {}).items()
    for media, content in contents:
        if media == MEDIA_TYPE:
            assert set(content["examples"]) <= {code.value for code in ERRORS}
            assert all(reference["$ref"].rpartition("/")[2] == code for code, reference in content["examples"].items())
        elif "$ref" in content["schema"]:
            assert content["example"]


@pytest.mark.parametrize("code", API["components"]["examples"])
def test_the_example_of_an_error_is_a_problem(code: str) -> None:
    value = API["components"]["examples"][code]["value"]
    problem = Problem.model_validate_json(orjson.dumps(value))
    assert (problem.code, problem.status, problem.retryable) == (
        code,
        ERRORS[problem.code].status,
        ERRORS[problem.code].retryable,
    )
