"""More than 2^31 elements."""

import pytest
import torch

from fastact import functional as F

N = 2**31 + 12345


@pytest.mark.slow
def test_more_than_2_to_the_31_elements():
    x = torch.zeros(N, dtype=torch.bfloat16)
    x[-1], x[2**31], x[0] = 3.0, -2.0, 1.0
    assert F.silu(x, inplace=True) is x
    exact = torch.nn.functional.silu(torch.tensor([3.0, -2.0, 1.0], dtype=torch.bfloat16))
    assert torch.equal(torch.stack([x[-1], x[2**31], x[0]]), exact)
    assert x.count_nonzero() == 3


@pytest.mark.slow
def test_more_than_2_to_the_31_elements_in_halves():
    x = torch.zeros(2, N, dtype=torch.float16)
    x[:, -1] = 2.0
    y = F.glu(x, 0)
    assert y.shape == (1, N)
    assert y[0, -1].item() == pytest.approx(2.0 * torch.sigmoid(torch.tensor(2.0)).item(), rel=1e-3)
    assert y.count_nonzero() == 1
