"""The table of all figures."""

import math

from tests.bench.table import Row, as_markdown, as_text, at_least, at_most, ratio


def test_a_figure_at_its_aim_meets_it() -> None:
    assert at_most("p99", 150.0, 150.0, "ms").is_met
    assert not at_most("p99", 150.1, 150.0, "ms").is_met


def test_a_figure_may_have_to_reach_its_aim() -> None:
    assert at_least("turns", 2.0, 2.0, "times").cells == ("turns", "≥ 2.00 times", "yes", "2.00 times")
    assert not at_least("turns", 1.9, 2.0, "times").is_met


def test_a_count_has_no_decimals() -> None:
    assert at_most("lost", 0, 0).cells == ("lost", "≤ 0", "yes", "0")
    assert at_most("rows", 12, 100).cells == ("rows", "≤ 100", "yes", "12")


def test_a_ratio_shows_both_figures() -> None:
    assert ratio("CPU", 36.0, 24.0, 1.2, "µs").cells == (
        "CPU", "≤ 1.20 times", "no", "1.50 times (36.0 µs against 24.0 µs)",
    )  # fmt: skip


def test_nothing_measured_meets_no_aim() -> None:
    row = ratio("CPU", 36.0, 0.0, 1.2, "µs")
    assert not row.is_met
    assert math.isnan(float(row.measured.split()[0]))


def test_the_columns_of_the_text_are_aligned() -> None:
    assert as_text([Row("a", "1,000 MiB", "≤ 2 MiB", False), Row("a longer name", "2")]).splitlines() == [
        "what           aim      met  measured",
        "a              ≤ 2 MiB  no   1,000 MiB",
        "a longer name                2",
    ]


def test_markdown_has_a_line_for_each_figure() -> None:
    assert as_markdown([Row("a", "1", "≤ 2", True), Row("b", "3")]).splitlines() == [
        "| what | aim | met | measured |",
        "| --- | --- | --- | --- |",
        "| a | ≤ 2 | yes | 1 |",
        "| b |  |  | 3 |",
    ]
