"""What tests of the learners share."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """Torch with one thread, and afterwards as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
