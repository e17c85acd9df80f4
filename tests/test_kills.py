"""Every long command killed at some moment, and begun twice at once (`python -m experiments.kills`: at length)."""

import shutil
import signal
import time

import pytest

from experiments.kill_commands import commands, killed, two_at_once

KILLS = {
    "train": [(0.4, signal.SIGKILL), (0.7, signal.SIGTERM)],
    "prepare": [(0.8, signal.SIGKILL)],
    "denoise": [(0.3, signal.SIGTERM), (0.9, signal.SIGKILL)],
    "denoise many": [(0.5, signal.SIGTERM), (0.6, signal.SIGKILL)],
    "benchmark": [(0.6, signal.SIGTERM)],
    "distill": [(0.7, signal.SIGKILL), (0.4, signal.SIGTERM)],
    "calibrate": [(0.4, signal.SIGTERM), (0.9, signal.SIGKILL)],
}
"""Shares of the time that a command takes, and signals."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return {command.name: command for command in commands(tmp_path_factory.mktemp("inputs"))}


@pytest.mark.parametrize("name", KILLS)
def test_a_killed_command_leaves_nothing_cut_and_goes_on_to_the_same_result(name, made, tmp_path):
    began = time.monotonic()
    reference, wrong = two_at_once(made[name], tmp_path / "twice")
    assert wrong == [] and reference
    seconds = (time.monotonic() - began) / 2  # the other half was the second's
    for share, by in KILLS[name]:
        place = tmp_path / by.name
        while (kill := killed(made[name], place, reference, share * seconds, by)) is None:
            shutil.rmtree(place)  # it was faster now
            seconds *= 0.7
        assert kill.wrong == [], (by.name, kill.seen)
