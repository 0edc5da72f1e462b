"""What is computed from the measured values."""

import math

from tests.bench.load import percentile
from tests.bench.table import at_most


def test_a_percentile_is_between_the_values() -> None:
    assert percentile([float(value) for value in range(1, 100)], 50) == 50.0
    assert percentile([7.0], 99) == 7.0


def test_requests_that_were_never_answered_meet_no_aim() -> None:
    assert math.isnan(percentile([], 99))
    assert not at_most("REST p99", percentile([], 99), 250.0, "ms").is_met
