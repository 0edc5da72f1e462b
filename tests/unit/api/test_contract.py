"""The machine-readable descriptions in docs/ are those of this code."""

import runpy
from pathlib import Path

import pytest

from tests.unit.api.world import World

ROOT = Path(__file__).parents[3]
DOCUMENTS: dict[str, bytes] = runpy.run_path(str(ROOT / "scripts" / "write_contract.py"))["documents"]()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_file_is_what_the_code_describes(name: str) -> None:
    """When this fails, run scripts/write_contract.py and look at the difference."""
    assert (ROOT / "docs" / name).read_bytes() == DOCUMENTS[name]


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_a_server_describes_itself(world: World, name: str) -> None:
    answer = await world.visitor.get(f"/{name}")
    assert (answer.status, set(answer.json["components"]) >= {"schemas"}) == (200, True)
