import pytest
import torch

from tests.export.examples import Example, digits_example


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def example(one_thread) -> Example:
    return digits_example()
