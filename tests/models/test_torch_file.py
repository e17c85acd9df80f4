"""Files of torch.save: whole or absent, and a signal stays a signal."""

import io

import pytest
import torch

from cdm4mi.files import disk_error
from cdm4mi.models.torch_file import save_torch, write_torch


class Failing(io.BytesIO):
    """A file whose writing ends after a thousand bytes."""

    def __init__(self, reason):
        super().__init__()
        self.reason = reason

    def write(self, data):
        if self.tell() > 1000:
            raise self.reason
        return super().write(data)


def test_a_signal_while_a_checkpoint_is_written_ends_the_command_as_any_signal_does():
    with pytest.raises(RuntimeError, match="unexpected pos"):
        torch.save({"weights": torch.zeros(100_000)}, Failing(KeyboardInterrupt()))  # otherwise there is no need for it
    with pytest.raises(KeyboardInterrupt):
        write_torch({"weights": torch.zeros(100_000)}, Failing(KeyboardInterrupt()))
    full = OSError(28, "No space left on device")
    with pytest.raises(RuntimeError) as raised:
        write_torch({"weights": torch.zeros(100_000)}, Failing(full))
    assert disk_error(raised.value) is full


def test_the_file_that_was_there_is_kept_under_another_name(tmp_path):
    for k in range(3):
        save_torch({"step": k}, tmp_path / "last.ckpt", keep=tmp_path / "previous.ckpt")
    steps = [torch.load(tmp_path / name, weights_only=True)["step"] for name in ("last.ckpt", "previous.ckpt")]
    assert steps == [2, 1] and len(list(tmp_path.iterdir())) == 2
