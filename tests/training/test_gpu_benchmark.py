"""The benchmark of GPUs runs, in small on the CPU, and says so where there is no GPU."""

import logging

import pytest
import torch
from benchmark_script import benchmark_script


@pytest.fixture
def benchmark(monkeypatch, caplog):
    caplog.set_level(logging.ERROR, "cdm4mi")  # the script sets it, and what it was comes back afterwards
    module = benchmark_script("gpu")
    monkeypatch.setattr(module.sources, "PHANTOM_PATIENTS", module.sources.PHANTOM_PATIENTS)
    return module


def test_every_figure_is_printed(benchmark, capsys):
    assert benchmark.main(["--device", "cpu", "--small"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for beginning in ("CPU, torch", "matrix product", "restoring", "training precond", "training mission"):
        assert any(line.startswith(beginning) for line in lines)
    flops = [float(line.split(" GFLOP")[0].split()[-1]) for line in lines if line.startswith("training")]
    assert flops[1] > flops[0] > 0  # the mission's network is the larger


def test_without_a_gpu_there_is_one_clear_line(benchmark, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark.main([]) == 2
    assert capsys.readouterr().out.startswith("no GPU: ")
