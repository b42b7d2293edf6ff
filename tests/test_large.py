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


@pytest.mark.slow
def test_cross_entropy_of_more_than_2_to_the_31_logits():
    """Rows and classes beyond 2^31 elements are found, forward and back."""
    for rows, classes in ((2**31 // 128257 + 2, 128257), (2**31 // 64 + 40, 64)):
        x = torch.zeros(rows, classes, dtype=torch.bfloat16)
        x[-1, -1] = 5.0
        target = torch.full((rows,), -100)
        target[-1], target[0] = classes - 1, 1
        logits = x.requires_grad_().view(rows, classes)
        loss = F.cross_entropy(logits, target, reduction="none")
        few = F.cross_entropy(x.detach()[[0, -1]], target[[0, -1]], reduction="none")
        assert torch.equal(loss.detach()[[0, -1]], few)
        (grad,) = torch.autograd.grad(loss.sum(), logits)
        small = x.detach()[[0, -1]].requires_grad_()
        F.cross_entropy(small, target[[0, -1]], reduction="sum").backward()
        assert torch.equal(grad[[0, -1]], small.grad)
        assert grad[1:-1].count_nonzero() == 0
        del grad, loss, logits, x
