"""Letta in the local stack: its variables."""

from pathlib import Path

from server.stack.layout import Layout
from server.stack.letta import Letta


def test_of_the_callers_variables_only_switches_of_patches_reach_letta(tmp_path: Path) -> None:
    caller = {"PATH": "/usr/bin:/bin", "LETTA_PG_URI": "postgresql://elsewhere/letta", "OPENAI_API_KEY": "sk-hush"}
    without = Letta(Layout.open(tmp_path, 8080, {"PATH": "/usr/bin:/bin"})).command().env
    assert Letta(Layout.open(tmp_path, 8080, caller)).command().env == without
    switch = {"LETTA_PATCH_STOP": "off"}
    assert Letta(Layout.open(tmp_path, 8080, caller | switch)).command().env == {**without, **switch}
