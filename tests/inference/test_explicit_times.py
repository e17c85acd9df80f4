"""Times given one by one, in place of steps and spacing: visited, recorded, checked; a choice of steps undoes them."""

import numpy as np
import pytest

from cdm4mi.config import parse_config
from cdm4mi.config.schema import SamplingConfig
from cdm4mi.errors import UserError
from cdm4mi.inference.restorer import Restorer
from cdm4mi.inference.settings import changed
from cdm4mi.io import Volume
from cdm4mi.models.facts import facts_of

NOISY = Volume(np.random.default_rng(0).normal(0, 150, (1, 32, 32)).astype(np.float32), np.eye(4), "CT")


def restorer(model, **sampling):
    return Restorer(model, SamplingConfig(**(model.config.sampling.model_dump() | {"estimate": "sample"} | sampling)))


def test_the_times_are_visited_and_counted(tiny):
    states = []
    few = restorer(tiny, times=[99, 60, 7])
    few.slices.restore(NOISY.array / 1000, 0.15, hook=states.append)
    assert [s.t for s in states] == [99, 60, 7]
    record = few.restore(NOISY, noise=150.0).record
    assert (record.network_calls, record.settings["steps"], record.settings["times"]) == (3, 3, [99, 60, 7])


def test_a_list_from_the_middle_starts_there_and_the_mean_does_not_use_it(tiny):
    states = []
    restorer(tiny, times=[60]).slices.restore(NOISY.array / 1000, 0.15, hook=states.append)
    a, _, c = (float(v) for v in tiny.process.path.at(60))
    rest = (states[0].x_t - a * states[0].x_t.new_tensor(NOISY.array / 1000)).std()
    assert rest == pytest.approx((c**2 + (a * 0.15) ** 2) ** 0.5, rel=0.05)
    assert restorer(tiny, times=[60], estimate="mean").slices.sampler.times(0.1) == [99]


def test_another_choice_of_steps_takes_the_place_of_the_models_times(tiny):
    model = tiny.config.sampling.model_copy(update={"estimate": "sample", "times": [99, 60]})
    assert changed(model, steps=5).times is None and changed(model, spacing="logsnr").times is None
    assert changed(model, samples=4).times == [99, 60]
    tiny.config.sampling = model
    assert ("estimate", "sample, ddim, times 99, 60, eta 1") in facts_of(tiny)


@pytest.mark.parametrize(
    "times, message",
    [
        ([5, 5], "sampling: times has 5 then 5, expected them to fall"),
        ([-1], r"sampling.times\[0\]: found -1, expected at least 0"),
        ([], r"sampling.times: found \[\], expected a list of at least 1"),
    ],
)
def test_a_list_that_is_none_is_refused_in_one_line(times, message):
    with pytest.raises(UserError, match=message):
        parse_config({"sampling": {"times": times}})


def test_a_time_that_the_path_does_not_have_is_refused(tiny):
    with pytest.raises(UserError, match=r"times: found 100, expected 0 to 99 \(the model's timesteps\)"):
        restorer(tiny, times=[100, 3])
