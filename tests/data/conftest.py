"""Here only stores are made: planning the training on each would time a network every time."""

import pytest


@pytest.fixture(autouse=True)
def no_plan(monkeypatch):
    monkeypatch.setattr("cdm4mi.cli.prepare._plan", lambda out: True)
