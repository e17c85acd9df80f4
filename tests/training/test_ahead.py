"""Batches made one ahead: their order, the end, and an error where its batch would have been."""

import threading

import pytest

from cdm4mi.training.ahead import MadeAhead


def test_all_are_made_in_order_and_one_ahead():
    made, taken = [], threading.Event()

    def make(batch):
        made.append(batch)
        if batch == 1:
            taken.set()
        return 10 * batch

    batches = iter(MadeAhead(range(4), make))
    assert next(batches) == 0
    assert taken.wait(10)  # while the first is in use
    assert made == [0, 1]
    assert [10, 20, 30] == list(batches) and made == [0, 1, 2, 3]


def test_an_error_comes_up_where_its_batch_would():
    def make(batch):
        return 1 / (2 - batch)

    batches = iter(MadeAhead(range(4), make))
    assert [next(batches), next(batches)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(batches)


def test_a_reader_may_stop_where_there_is_no_end():
    def numbers():
        n = 0
        while True:
            yield n
            n += 1

    before = threading.active_count()
    for found in MadeAhead(numbers(), lambda n: n):
        if found == 3:
            break
    assert threading.active_count() == before
