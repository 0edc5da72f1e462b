"""Reading PostgreSQL's log of statements."""

from tests.stack.statement_log import slowest, table

LOG = """[chat] LOG:  duration: 1.500 ms  execute a1: select * from t where id = 17 and name = 'it''s'
[chat] LOG:  duration: 0.020 ms  parse a1: select 1
[other] LOG:  duration: 99.000 ms  statement: select 2
[chat] LOG:  duration: 40.250 ms  statement: select *
\tfrom u
[chat] DETAIL:  something
[chat] LOG:  duration: 2.500 ms  execute <unnamed>: select * from t where id = 18 and name = ''
[] LOG:  checkpoint starting: time""".splitlines()


def test_statements_of_a_database_are_joined_without_their_constants() -> None:
    assert [(one.text, one.times) for one in slowest(LOG, "chat")] == [
        ("select * from u", [40.25]),
        ("select * from t where id = ? and name = ?", [1.5, 2.5]),
    ]


def test_the_table_has_a_line_for_each_statement() -> None:
    assert [line.split() for line in table(slowest(LOG, "chat")).splitlines()][1:] == [
        ["40.2", "40.25", "1", "select", "*", "from", "u"],
        ["2.5", "2.00", "2", *["select", "*", "from", "t", "where", "id", "=", "?", "and", "name", "=", "?"]],
    ]
