"""A query of one table, written once for both ways of reading as a user: PostgREST with the user's token, and the SQL
function `read_as_user` for a user without one."""

from dataclasses import dataclass
from typing import Any, Literal

from postgrest import AsyncPostgrestClient

from server.adapters.supabase.client import Query

Operator = Literal["eq", "lt", "lte", "gt", "gte", "in"]
Condition = tuple[str, Operator, object]


@dataclass(frozen=True, slots=True)
class Select:
    """Rows of `table` for which all of `where` hold: (column, operator, value). The value of `in` is numbers with
    commas between them.

    `columns` as in PostgREST, separated by commas: a name, `name::text`, or `alias:name::text`. `order`: column names,
    with a leading `-` in descending order.
    """

    table: str
    columns: str
    where: tuple[Condition, ...] = ()
    order: tuple[str, ...] = ()
    limit: int | None = None
    offset: int = 0

    def of(self, rest: AsyncPostgrestClient) -> Query:
        """The query for PostgREST."""
        query = rest.from_(self.table).select(self.columns)
        for column, operator, value in self.where:
            text = f"({value})" if operator == "in" else str(value)
            query = query.filter(column, operator, text)
        for name in self.order:
            query = query.order(name.removeprefix("-"), desc=name.startswith("-"))
        if self.limit is not None:
            query = query.range(self.offset, self.offset + self.limit - 1) if self.offset else query.limit(self.limit)
        return query

    def wire(self) -> dict[str, Any]:
        """The query for `read_as_user`."""
        return {
            "table": self.table,
            "columns": self.columns.split(","),
            "where": [
                [column, operator, f"{{{value}}}" if operator == "in" else str(value)]
                for column, operator, value in self.where
            ],
            "order": [[name.removeprefix("-"), name.startswith("-")] for name in self.order],
            "limit": self.limit,
            "offset": self.offset,
        }
