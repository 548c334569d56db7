"""The seeded campaign, some seconds by default: ASYMLIB_FAULTS=100000 tries of each kind take hours."""

import os
import re
from pathlib import Path

import campaign
import pytest

TRIES = int(os.environ.get("ASYMLIB_FAULTS", 40))
PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"


ON_RAY = "killed Ray batch"  # slow, and other tests want no cluster on the machine
KINDS = [pytest.param(kind, marks=pytest.mark.slow if kind == ON_RAY else ()) for kind in campaign.KINDS]


@pytest.mark.parametrize("kind", KINDS)
def test_no_fault_of_this_kind_falls_short(kind):
    assert not campaign.shortfalls(kind, campaign.tries_of(kind, TRIES))


def test_the_campaign_sees_a_shortfall(monkeypatch):
    """Where a snapshot's hash is not looked at, damaged progress must be found out."""
    from asymlib.runs.lines import Lines

    monkeypatch.setattr(Lines, "continue_after", lambda self, count, sha256: True)
    assert campaign.shortfalls("damaged progress", 10)


def test_the_page_s_table_has_these_kinds():
    rows = re.findall(r"^\| ([A-Za-z ]+) \| .* \| [\d,]+ \| \d+ \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == list(campaign.KINDS)
