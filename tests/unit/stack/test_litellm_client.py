"""LiteLLM's database client, as it is generated for the local stack."""

from server.stack.litellm import without_nested_includes

TYPES = '''from typing import TypedDict


class KeyInclude(TypedDict, total=False):
    """Key relational arguments"""
    team: Union[bool, 'TeamArgsFromKey']


class KeyIncludeFromKey(TypedDict, total=False):
    """Relational arguments for Key"""


class FindManyKeyArgsFromKey(TypedDict, total=False):
    """Arguments for Key"""
    take: int


class TeamIncludeFromKey(TypedDict, total=False):
    """Relational arguments for Key"""


class TeamArgsFromKey(TypedDict, total=False):
    """Arguments for Key"""
    include: 'TeamIncludeFromTeam'


class FindManyTeamArgsFromKey(TypedDict, total=False):
    """Arguments for Key"""
    take: int


FindManyKeyArgs = FindManyKeyArgsFromKey
'''


def test_types_that_combine_two_tables_are_left_out_and_those_in_use_stay() -> None:
    left = {"TypedDict": dict, "Union": {(bool, "TeamArgsFromKey"): object}}
    exec(without_nested_includes(TYPES), left)
    assert {name for name in left if "Key" in name or "Team" in name} == {
        *("KeyInclude", "KeyIncludeFromKey", "FindManyKeyArgsFromKey", "FindManyKeyArgs")
    }
