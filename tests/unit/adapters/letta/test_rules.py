"""The guide to Letta and its tests name the same rules."""

import re
from pathlib import Path

from tests.stack import test_letta_rules

GUIDE = Path(__file__).parents[4] / "letta_developer_prompt.md"


def test_every_rule_of_the_guide_has_its_test_and_every_test_its_rule() -> None:
    rules = re.findall(r"^- \*\*\[([a-z0-9-]+)\]\*\*", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    tests = [name for name in vars(test_letta_rules) if name.startswith("test_rule_")]
    assert len(rules) == len(set(rules)) > 20
    assert sorted(tests) == sorted(f"test_rule_{rule.replace('-', '_')}" for rule in rules)
