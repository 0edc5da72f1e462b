"""The Lettas that are measured beside the stack's."""

from letta_patches import PATCHES

from tests.bench.letta import RELEASED, Variant


def changed(variant: Variant) -> tuple[list[str], dict[str, str]]:
    argv, variables = ["uvicorn", "--port", "1"], {"PYTHONPATH": "patches", "LETTA_PG_POOL_SIZE": "20"}
    variant.change(argv, variables)
    return argv, variables


def test_the_released_letta_has_no_patches() -> None:
    argv, variables = changed(RELEASED)
    assert argv == ["uvicorn", "--port", "1"]
    assert {name for name, value in variables.items() if value == "off"} == {
        f"LETTA_PATCH_{patch.__name__.rpartition('.')[2].upper()}" for patch in PATCHES
    }


def test_a_letta_may_lack_one_patch() -> None:
    _, variables = changed(Variant("without stop", ("stop",)))
    assert variables["LETTA_PATCH_STOP"] == "off"
    assert "LETTA_PATCH_TLS_CONTEXT" not in variables


def test_a_letta_of_several_workers_keeps_its_settings() -> None:
    argv, variables = changed(Variant("with 2 workers", workers=2))
    assert argv == ["uvicorn", "--port", "1", "--workers", "2"]
    assert variables == {"PYTHONPATH": "patches", "LETTA_PG_POOL_SIZE": "20"}


def test_a_pool_has_as_many_connections_more_at_peaks() -> None:
    _, variables = changed(Variant("with a pool of 5 connections", pool=5))
    assert (variables["LETTA_PG_POOL_SIZE"], variables["LETTA_PG_MAX_OVERFLOW"]) == ("5", "5")
