"""Rows on disk in place of in memory."""

from hypothesis import given
from hypothesis import strategies as st

from star1.spill import Spill


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), unique_by=lambda one: one[0]))
def test_rows_come_back_in_order_of_their_places_also_between_writes(steps: list[tuple[int, bool]]) -> None:
    """Whatever the order in which they are put, and whether they are read meanwhile."""
    spill, expected = Spill(10), dict[int, dict[str, object]]()
    for place, look in steps:
        expected[place] = {"id": str(place), "text": "\u2028\n\"'" * place, "marks": [1, 2.5, None, True]}
        spill.put(place, expected[place])
        if look:
            assert spill[-1] == expected[max(expected)]
    rows = [expected[place] for place in sorted(expected)]
    assert spill == rows
    assert list(spill) == rows == spill[:]
    assert len(spill) == len(rows)
    assert bool(spill) == bool(rows)


def test_a_row_that_is_put_again_counts_once() -> None:
    """The last one stays."""
    spill = Spill(2)
    spill.put(1, {"id": "a"})
    spill.put(1, {"id": "b"})
    assert spill == [{"id": "b"}]
    assert spill != [{"id": "a"}]
    assert spill != [{"id": "b"}, {"id": "b"}]
