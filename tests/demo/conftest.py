# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """With tensors as small as here, and other work on the machine, threads mostly wait for each other."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)
