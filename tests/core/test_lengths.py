"""Lengths as functions, against themselves evaluated one by one."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from torchstreamer.core.lengths import LengthTable, LinearLength

LINES = st.builds(LinearLength, st.integers(1, 6), st.integers(-20, 20), st.integers(1, 6), st.integers(1, 12))


@given(st.integers(1, 6), st.integers(-20, 20), st.integers(1, 6), st.integers(1, 12))
def test_a_line_is_its_formula(rise, offset, period, shortest):
    line = LinearLength(rise, offset, period, shortest)
    for n in range(80):
        assert line(n) == (max((rise * n + offset) // period, 0) if n >= shortest else 0)
    assert all(line(n) == 0 for n in range(line.shortest)) and line(line.shortest) > 0


@given(LINES, LINES)
def test_lines_are_equal_as_their_numbers_are(one, other):
    same = all(one(n) == other(n) for n in range(400))
    assert same == (one == other)


@given(LINES, LINES)
def test_a_line_after_a_line(one, other):
    found = other.after(one)
    assert (found is None) == (other.rise > 1 and one.period > 1)
    if found is not None:
        assert [found(n) for n in range(200)] == [other(one(n)) for n in range(200)]


@given(LINES, st.integers(1, 40))
def test_the_least_length_of_so_many_samples(line, wanted):
    least = line.least(wanted)
    assert line(least) >= wanted and all(line(n) < wanted for n in range(least))


def crooked(n: int) -> int:
    return max(3 * (n // 4) + (n % 4 > 1) - 2, 0)


@given(LINES)
def test_a_table_of_a_line_is_that_line(line):
    table = LengthTable.fit(line, [6 * line.period])
    assert table is not None and table.linear() == line
    assert [table(n) for n in range(300)] == [line(n) for n in range(300)]


def test_a_table_holds_what_is_no_line():
    table = LengthTable.fit(crooked, [4])
    assert table is not None and table.linear() is None
    assert [table(n) for n in range(500)] == [crooked(n) for n in range(500)]
    scripted = torch.jit.script(table)
    assert [scripted(n) for n in (0, 3, 4, 77, 100_003)] == [crooked(n) for n in (0, 3, 4, 77, 100_003)]


def test_the_least_ahead_of_a_length_that_falls():
    def saw(n: int) -> int:
        return max(n - 3 * (n % 5), 0)

    table = LengthTable.fit(saw, [5])
    assert table is not None
    ahead = table.least_ahead()
    assert [ahead(n) for n in range(100)] == [min(saw(later) for later in range(n, n + 40)) for n in range(100)]


def test_what_does_not_rise_periodically_has_no_table():
    assert LengthTable.fit(lambda n: n * n, [1, 2, 3]) is None
    assert LengthTable.fit(lambda n: 7, [1, 2]) is None


def test_between_multiples_the_next_one_above_counts():
    table = LengthTable.fit(lambda n: n // 8, [8], first=8, multiple=8)
    assert table is not None
    assert [table(n) for n in (0, 1, 7, 8, 9, 16, 17)] == [0, 1, 1, 1, 2, 2, 3]
