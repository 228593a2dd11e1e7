"""The table of scenarios says what the tests cover."""

import yaml

from tests.house.scenarios import NAMES, TABLE, covered, table

PROMISED = [
    *("A01", "A02", "A12", "A13", "A14", "A18", "A19", "A20"),
    *("B01", "B02", "B04", "B08", "B09", "B10", "B11"),
    *("D01", "D02", "D03", "D04", "D05", "D06", "D07"),
    *("E01", "E02", "E03"),
    *("F01", "F02", "F03", "F04", "F05", "F06"),
    *("H01", "H02", "H03", "H04", "H05", "H06"),
    *("I01", "I02", "I05"),
]


def test_the_table_is_up_to_date() -> None:
    stale = TABLE.read_text() != table()  # their difference would take minutes to draw
    assert not stale, "run `python -m tests.house.scenarios`"


def test_every_mark_names_a_scenario() -> None:
    assert set(covered()) <= set(yaml.safe_load(NAMES.read_text()))


def test_what_was_promised_is_covered() -> None:
    assert set(PROMISED) <= set(covered())
