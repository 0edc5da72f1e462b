"""Write wire.py: the types of frames, events and answers, from docs/asyncapi.json and docs/openapi.json.

`--check` writes nothing and exits with 1 if the file is not up to date."""

import json
import subprocess
import sys
from pathlib import Path
from textwrap import wrap
from typing import Any

Json = dict[str, Any]
DOCS = Path(__file__).resolve().parents[3] / "docs"
TARGET = Path(__file__).resolve().parents[1] / "src" / "ai_chat_client" / "wire.py"
ANSWERS = ("History", "Agent", "SignedIn", "Problem")
"""Of the REST API, besides what sockets carry."""
SIMPLE = {"string": "str", "boolean": "bool", "null": "None", "integer": "int", "number": "float"}
HEAD = '''"""What the server sends and takes. By scripts/wire.py, from docs/asyncapi.json and docs/openapi.json."""

from typing import Any, Literal, NotRequired, TypedDict
'''


def main() -> None:
    text = generated()
    if "--check" not in sys.argv:
        TARGET.write_text(text, "utf-8")
    elif TARGET.read_text("utf-8") != text:
        sys.exit("wire.py is not up to date: run `python scripts/wire.py`")


def generated() -> str:
    """The module, as ruff formats it."""
    asyncapi, openapi = (json.loads((DOCS / name).read_text("utf-8")) for name in ("asyncapi.json", "openapi.json"))
    schemas: Json = {**openapi["components"]["schemas"], **asyncapi["components"]["schemas"]}
    names: dict[str, None] = {}
    for name in sorted((*asyncapi["components"]["schemas"], *ANSWERS)):
        _collect(name, schemas, names)
    received = _payloads(asyncapi, "socketEvents")
    events = [name for name in received if "seq" in schemas[name]["properties"]]
    unions = (
        ("Command", "What a client sends.", _payloads(asyncapi, "command")),
        ("SessionEvent", "A numbered event of the session.", events),
        ("Frame", "What a connection receives.", received),
    )
    blocks = [_declaration(name, schemas[name]) for name in names]
    blocks += [f'{name} = {" | ".join(members)}\n"""{sentence}"""\n' for name, sentence, members in unions]
    return _ruff("check", "--fix", "--quiet", given=_ruff("format", given="\n\n".join([HEAD, *blocks])))


def _ruff(*options: str, given: str) -> str:
    """Text as ruff leaves it, with the settings that hold for the target."""
    command = ["ruff", *options, "--stdin-filename", str(TARGET), "-"]
    return subprocess.run(command, input=given, stdout=subprocess.PIPE, check=True, text=True).stdout  # noqa: S603


def _declaration(name: str, schema: Json) -> str:
    text = schema.get("description", "")
    if "properties" not in schema:
        return f"{name} = {_type(schema)}\n" + _docstring(text, "")
    required = schema.get("required", ())
    lines = [f"class {name}(TypedDict):\n", _docstring(text, "    "), "\n"]
    for field, described in schema["properties"].items():
        given = _type(described)
        lines.append(f"    {field}: {given if field in required else f'NotRequired[{given}]'}\n")
        lines.append(_docstring(described.get("description", ""), "    "))
    return "".join(lines)


def _type(schema: Json) -> str:  # noqa: PLR0911 - a table
    if "$ref" in schema:
        return _name(schema)
    if "const" in schema:
        return f'Literal["{schema["const"]}"]' if isinstance(schema["const"], str) else f"Literal[{schema['const']}]"
    if "enum" in schema:
        return "Literal[" + ", ".join(f'"{value}"' for value in schema["enum"]) + "]"
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " | ".join(dict.fromkeys(_type(option) for option in options))
    match schema.get("type"):
        case list() as kinds:
            return " | ".join(_type({**schema, "type": kind}) for kind in kinds)
        case "array":
            return f"list[{_type(schema['items'])}]"
        case "object":
            return f"dict[str, {_type(schema.get('additionalProperties') or {})}]"
        case str() as kind:
            return SIMPLE[kind]
        case _:
            return "Any"


def _docstring(text: str, indent: str) -> str:
    return "\n".join(wrap(f'"""{text}"""', 116, initial_indent=indent, subsequent_indent=indent)) + "\n" if text else ""


def _name(reference: Json) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _collect(name: str, schemas: Json, found: dict[str, None]) -> None:
    """Add the names of all schemas that this one refers to, and then its own."""
    if name in found:
        return
    parts = [schemas[name]]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                _collect(_name(part), schemas, found)
            parts += part.values()
        elif isinstance(part, list):
            parts += part
    found[name] = None


def _payloads(asyncapi: Json, operation: str) -> list[str]:
    """The schemas of all messages of an operation."""
    found = []
    for reference in asyncapi["operations"][operation]["messages"]:
        *_, channel, _, message = reference["$ref"].split("/")
        component = _name(asyncapi["channels"][channel]["messages"][message])
        found.append(_name(asyncapi["components"]["messages"][component]["payload"]))
    return found


if __name__ == "__main__":
    main()
