"""Errors: the one line that a user reads."""

from pathlib import Path

import pytest

from cdm4mi.errors import UserError, naming
from cdm4mi.io.folders import Unlisted


@pytest.mark.parametrize("error", [UserError("scan: found nothing"), Unlisted(Path("scan"), "found nothing")])
def test_a_message_about_a_subject_names_its_file_and_stays_the_error_that_it_is(error):
    with pytest.raises(type(error), match=r"^head\.nii: found nothing$") as found, naming("scan", "head.nii"):
        raise error
    assert found.value is error


def test_a_message_about_something_else_stays_as_it_is():
    with pytest.raises(UserError, match=r"^scanner: found nothing$"), naming("scan", "head.nii"):
        raise UserError("scanner: found nothing")
