"""The project's own files agree with each other: locks, settings, documents and commands, whatever is edited next."""

import json
import re
import subprocess
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from pydantic import TypeAdapter
from uv import find_uv_bin

import server
from server.cli.main import main
from server.config.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
NEVER_NAMED = {
    "a package registry": r"pypi\.org|python[h]osted|registry\.npm[j]s|--(extra-)?index-url[ =]|--find-links[ =]",
    "a path of one machine": r"(?<![\w.$}])/(root|home/\w+|Users/\w+|work)/",
    "a folder outside of the project": r"(?<![\w/-])(\.\./)*share[d]/",
}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def require_git() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("which files belong to the project is known in a git checkout alone")


def tracked_files() -> list[str]:
    require_git()
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def pins(text: str) -> list[str]:
    """The `name==version ; marker` of each package that a requirements file locks."""
    return [line.removesuffix("\\").strip() for line in text.splitlines() if line[:1].isalnum()]


def lock(name: str) -> dict[str, Requirement]:
    """Package → its pin."""
    return {pin.name: pin for pin in map(Requirement, pins((ROOT / name).read_text("utf-8")))}


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_locked_package_has_hashes_and_one_version(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    blocks = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(lock(name))
    for block in blocks:
        assert re.match(r"[\w.\-]+==\S+", block), block
        assert "--hash=sha256:" in block, block.partition("\n")[0]


STACK_LOCKS = sorted((ROOT / "server" / "stack" / "requirements").glob("*.txt"))


@pytest.mark.parametrize("path", STACK_LOCKS, ids=lambda path: path.stem)
def test_a_local_services_lock_holds_what_its_in_file_asks_for(path: Path) -> None:
    text = path.read_text("utf-8")
    locked = {pin.name: pin for pin in map(Requirement, pins(text))}
    lines = path.with_suffix(".in").read_text("utf-8").splitlines()
    for asked in map(Requirement, (line for line in lines if line[:1].isalnum())):
        (version,) = locked[asked.name].specifier
        assert asked.specifier.contains(version.version), asked
    assert text.count("--hash=sha256:") >= len(locked)


def test_the_locks_satisfy_what_the_project_asks_for(project: dict[str, Any]) -> None:
    asked = {
        "requirements.txt": project["project"]["dependencies"],
        "requirements-dev.txt": project["dependency-groups"]["dev"],
    }
    for name, requirements in asked.items():
        locked = lock(name)
        for requirement in map(Requirement, requirements):
            (version,) = locked[requirement.name].specifier
            assert requirement.specifier.contains(version.version), f"{requirement} but {name} has {version}"


@pytest.mark.parametrize("name", ["stack", "talk"])
def test_what_an_extra_needs_is_every_developers(project: dict[str, Any], name: str) -> None:
    assert set(project["project"]["optional-dependencies"][name]) <= set(project["dependency-groups"]["dev"])


@pytest.mark.parametrize("name", ["uv", "prompt-toolkit", "rich"])
def test_what_only_commands_for_people_need_is_no_deployed_servers(name: str) -> None:
    assert name in lock("requirements-dev.txt")
    assert name not in lock("requirements.txt")


def test_the_chat_in_the_terminal_asks_for_the_same_everywhere(project: dict[str, Any]) -> None:
    client = tomllib.loads((ROOT / "clients" / "python" / "pyproject.toml").read_text("utf-8"))["project"]
    server_side = {*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["talk"]}
    assert {*client["dependencies"], *client["optional-dependencies"]["talk"]} <= server_side


def test_developers_get_the_versions_that_are_deployed() -> None:
    deployed, developed = lock("requirements.txt"), lock("requirements-dev.txt")
    assert {name: str(pin) for name, pin in deployed.items()} == {name: str(developed[name]) for name in deployed}


def test_uv_is_held_to_the_locked_versions(project: dict[str, Any]) -> None:
    assert project["tool"]["uv"]["constraint-dependencies"] == pins((ROOT / "requirements-dev.txt").read_text("utf-8"))


def test_the_version_is_written_once_and_the_same_twice(project: dict[str, Any]) -> None:
    assert project["project"]["version"] == server.__version__


def test_runtime_txt_pins_a_patch_release_that_is_prebuilt(project: dict[str, Any]) -> None:
    """Railpack takes its Pythons from the same prebuilt ones as uv, compiles none, and fails where there is none."""
    found = re.fullmatch(r"python-(\d+\.\d+\.\d+)\n", (ROOT / "runtime.txt").read_text("utf-8"))
    assert found, "no patch release is pinned"
    assert SpecifierSet(project["project"]["requires-python"]).contains(found[1])
    argv = [find_uv_bin(), "python", "list", found[1], "--only-downloads", "--all-platforms", "--output-format", "json"]
    listed = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert ("linux", "x86_64", "cpython") in {(one["os"], one["arch"], one["implementation"]) for one in listed}


def test_a_wheel_holds_what_is_not_code_of_the_server_where_it_is_looked_for(project: dict[str, Any]) -> None:
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {
        "supabase/migrations": "server/migrations",
        "deploy/letta/patches": "server/stack/letta_patches",
    }


def test_a_wheel_holds_the_built_console(project: dict[str, Any]) -> None:
    """Hatch leaves out what git ignores."""
    require_git()
    built = ["index.html", "sw.js", "assets/index-B1a2.js"]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *(f"server/console/files/{name}" for name in built)],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert (ignored.returncode, ignored.stdout) == (1, b"")
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["server"]


def test_node_packages_are_locked_without_addresses() -> None:
    locks = [name for name in tracked_files() if name.endswith("package-lock.json")]
    assert locks
    for name in locks:
        assert '"resolved"' not in (ROOT / name).read_text("utf-8"), name


@pytest.mark.parametrize("what", NEVER_NAMED)
def test_no_file_names(what: str) -> None:
    found = []
    for name in tracked_files():
        text = (ROOT / name).read_bytes().decode("utf-8", "replace")
        found += [f"{name}: {match.group()}" for match in re.finditer(NEVER_NAMED[what], text)]
    assert not found


def test_env_example_explains_exactly_the_settings() -> None:
    lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
    names = [line.partition("=")[0] for line in lines if line and not line.startswith("#")]
    assert len(names) == len(set(names))
    assert set(names) == {name.upper() for name in Settings.model_fields}
    for before, line in pairwise(lines):
        if line and not line.startswith("#"):
            assert before.startswith("# "), f"{line} is not explained"


def test_env_example_marks_what_has_no_default_and_shows_the_defaults_of_the_rest() -> None:
    text = (ROOT / ".env.example").read_text("utf-8")
    for name, field in Settings.model_fields.items():
        comment, value = re.findall(rf"((?:^# .*\n)+){name.upper()}=(.*)$", text, re.MULTILINE)[0]
        assert ("REQUIRED" in comment) == field.is_required(), name
        if value and not field.is_required():
            assert field.annotation is not None
            assert TypeAdapter(field.annotation).validate_python(value) == field.default, name


def test_env_example_follows_the_specification_in_names_and_order() -> None:
    names = re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE)
    specified = (
        *("SUPABASE_URL", "SUPABASE_ANON_KEY", "SUPABASE_SERVICE_KEY", "LETTA_BASE_URL", "LETTA_API_TOKEN"),
        *("LITELLM_BASE_URL", "LITELLM_MASTER_KEY", "SECRET_KEY", "ENVIRONMENT", "LOG_LEVEL"),
    )
    assert [name for name in names if name in specified] == list(specified)


def documents() -> list[str]:
    found = [
        *ROOT.glob("*.md"),
        *(page for folder in ("docs", "supabase", "tests") for page in (ROOT / folder).glob("*.md")),
    ]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", documents())
def test_links_of_documents_lead_somewhere(name: str) -> None:
    document = ROOT / name
    text = document.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (document.parent / path).resolve() if path else document
        assert linked.exists(), f"{name} → {target}"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked.read_text("utf-8")), f"{name} → {target}"


@pytest.mark.parametrize("name", documents())
def test_documents_name_only_files_that_exist(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    for path in re.findall(r"`((?:server|tests|docs|supabase|examples|scripts)/[\w./\-]+)(?:::\w+)?`", text):
        assert (ROOT / path).exists(), f"{name}: {path}"


@pytest.mark.parametrize("name", documents())
def test_documents_name_only_tests_that_exist(name: str) -> None:
    for path, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / name).read_text("utf-8")):
        assert re.search(rf"def {test}\(", (ROOT / path).read_text("utf-8")), f"{name}: {path}::{test}"


@pytest.fixture(scope="module")
def names_of_tests() -> set[str]:
    texts = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    return {name for text in texts for name in re.findall(r"def (test_\w+)", text)}


@pytest.mark.parametrize("name", documents())
def test_abbreviated_names_of_tests_in_documents_exist(name: str, names_of_tests: set[str]) -> None:
    """`…::test_…`, as in the tables of docs/failures.md."""
    assert set(re.findall(r"::(test_\w+)", (ROOT / name).read_text("utf-8"))) <= names_of_tests


def commands_in(text: str) -> list[list[str]]:
    """The words after `chat` (or `python -m server`) wherever a document shows such a command."""
    shown = (
        re.findall(r"`([^`\n]+)`", text)
        + "".join(re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)).splitlines()
    )
    found = re.findall(r"(?:^|\s)(?:chat|python -m server) ([a-z].*)", "\n".join(shown), re.MULTILINE)
    return [re.split(r"[\s\[\]]+", re.split(r"[#>|;]", words)[0].strip()) for words in found]


@pytest.mark.parametrize("name", documents())
def test_documents_show_only_commands_and_options_that_exist(name: str) -> None:
    context = click.Context(main)
    for words in commands_in((ROOT / name).read_text("utf-8")):
        command = main.get_command(context, words[0])
        assert command is not None, f"{name}: chat {' '.join(words)}"
        if isinstance(command, click.Group) and len(words) > 1:
            command = command.get_command(context, words[1])
            assert command is not None, f"{name}: chat {' '.join(words)}"
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("-")} <= known, f"{name}: chat {' '.join(words)}"


@pytest.mark.parametrize("name", main.list_commands(click.Context(main)))
def test_every_command_is_in_the_operators_guide(name: str) -> None:
    shown = commands_in((ROOT / "docs" / "operations.md").read_text("utf-8"))
    assert name in {words[0] for words in shown}
