"""Write api.txt: the declarations of all that apps can import, so that a change of the surface is seen in review.

`--check` writes nothing and exits with 1 if api.txt is not up to date."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "api.txt"
SOURCE = ROOT / "src" / "ai_chat_client"


def main() -> None:
    text = "\n".join("\n".join(_lines(declared)) + "\n" for declared in _declarations())
    if "--check" not in sys.argv:
        TARGET.write_text(text, "utf-8")
    elif TARGET.read_text("utf-8") != text:
        sys.exit("api.txt is not up to date: run `python scripts/api.py`, and tell in CHANGELOG.md what changes")


def _declarations() -> Iterator[ast.stmt]:
    """What `__init__.py` imports, where it is declared."""
    for imported in _parsed("__init__").body:
        if isinstance(imported, ast.ImportFrom) and imported.module:
            declared = {_name(statement): statement for statement in _parsed(imported.module.rpartition(".")[2]).body}
            yield from (declared[alias.name] for alias in imported.names)


def _parsed(module: str) -> ast.Module:
    return ast.parse((SOURCE / f"{module}.py").read_text("utf-8"))


def _name(statement: ast.stmt) -> str | None:
    match statement:
        case ast.ClassDef(name=name) | ast.Assign(targets=[ast.Name(id=name)]):
            return name
        case _:
            return None


def _lines(declared: ast.stmt) -> Iterator[str]:
    if not isinstance(declared, ast.ClassDef):
        yield ast.unparse(declared)
        return
    yield f"class {declared.name}({', '.join(map(ast.unparse, declared.bases))}):"
    for member in declared.body:
        if isinstance(member, ast.AnnAssign):
            yield f"    {ast.unparse(member)}"
        elif isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and _is_public(member.name):
            member.body = []
            yield from (f"    {line}" for line in ast.unparse(member).splitlines())


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name in ("__init__", "__aenter__", "__aexit__")


if __name__ == "__main__":
    main()
