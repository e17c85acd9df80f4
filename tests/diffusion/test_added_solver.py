"""A solver that a program adds to the table, in one place, is known wherever solvers are named."""

import numpy as np
import pytest

from cdm4mi import choices
from cdm4mi.config import load_config, parse_config, save_config
from cdm4mi.diffusion.solvers.ddim import ddim
from cdm4mi.errors import UserError
from cdm4mi.evaluation import steps
from cdm4mi.inference.settings import changed
from cdm4mi.inference.slices import SliceRestorer


@pytest.fixture
def counted(monkeypatch):
    """The solver ``toy``, which is DDIM, with a second call at every step but the last; returns its calls' times."""
    seen = []

    def toy(step):
        if step.t_next >= 0:
            step.denoise(step.x_t, step.t)
        seen.append((step.t, step.t_next))
        return ddim(step)

    monkeypatch.setitem(choices.SOLVERS, "toy", choices.SolverEntry(toy, "Toy", calls=2, study="linspace"))
    return seen


def test_configuration_help_restoration_and_study_know_it(counted, command, tiny, tmp_path):
    config = parse_config({"sampling": {"solver": "toy"}})
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml").sampling.solver == "toy"

    assert "toy" in command("denoise", "--help")[1]

    sampling = changed(tiny.config.sampling, solver="toy", steps=4, eta=0.0)
    restorer = SliceRestorer(tiny, sampling)
    y = np.random.default_rng(0).normal(0, 0.3, (1, 32, 32)).astype(np.float32)
    restored = restorer.restore(y, 0.2, seed=3)
    assert len(counted) == 4 and restorer.sampler.network_calls(0.2) == 7
    same = SliceRestorer(tiny, changed(sampling, solver="ddim")).restore(y, 0.2, seed=3)
    np.testing.assert_array_equal(restored, same)

    toys = [settings for name, settings in steps.ways_for(tiny) if name == "Toy"]
    assert [way["steps"] for way in toys] == [2, 5, 10, 25] and {way["spacing"] for way in toys} == {"linspace"}


def test_without_it_the_name_is_refused_with_those_that_there_are(command):
    with pytest.raises(UserError, match=r"sampling.solver: found 'toy', expected 'ddpm', 'ddim', .* or 'unipc_3'"):
        parse_config({"sampling": {"solver": "toy"}})
    assert "toy" not in command("denoise", "--help")[1]
