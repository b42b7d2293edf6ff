"""The losses of transformers' language models, before and after replace()."""

import pytest
import torch
from support import Ops
from transformers.loss import loss_utils
from zoo import CAUSAL, VOCABULARY

import fastact
from fastact._replace._losses import causal_lm_loss, masked_lm_loss

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
PAIRS = [
    pytest.param(causal_lm_loss, loss_utils.ForCausalLMLoss, id="causal"),
    pytest.param(masked_lm_loss, loss_utils.ForMaskedLMLoss, id="masked"),
]
LLAMA = CAUSAL[0]


def batch(dtype, ignore_index=-100):
    logits = (torch.randn(3, 9, VOCABULARY) * 3).to(dtype).requires_grad_()
    labels = torch.randint(VOCABULARY, (3, 9))
    labels[0, 4:] = ignore_index
    return logits, labels


def result(loss, logits, labels, **options):
    leaf = logits.detach().requires_grad_()
    value = loss(leaf * 1, labels, VOCABULARY, **options)
    (grad,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), grad


def assert_as_exact(value, theirs, logits, labels, shifts, options):
    if "shift_labels" in options:
        labels, shifts = options["shift_labels"], False
    x, target = logits.detach().double(), labels
    if shifts:
        x, target = x[:, :-1], target[:, 1:]
    used = target != options.get("ignore_index", -100)
    rows = x.logsumexp(-1) - x.gather(-1, target.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    exact = rows[used].sum() / options.get("num_items_in_batch", used.sum())
    error, allowed = (value - exact).abs(), (theirs - exact).abs()
    assert (error <= allowed + 2 * torch.finfo(torch.float32).eps * exact).all()


def check(ours, theirs, dtype, labels_options=None, **options):
    """The same loss and gradient as theirs; the loss as exact as theirs, too."""
    logits, labels = batch(dtype, options.get("ignore_index", -100))
    options |= labels_options(labels) if labels_options else {}
    theirs_value, theirs_grad = result(theirs, logits, labels, **options)
    value, grad = result(ours, logits, labels, **options)
    assert value.dtype == theirs_value.dtype == torch.float32
    assert value.shape == theirs_value.shape
    assert grad.dtype == dtype
    torch.testing.assert_close(value, theirs_value, rtol=1e-6, atol=0)
    tolerance = 2 * torch.finfo(dtype if dtype != torch.float64 else torch.float32).eps
    assert_as_exact(value, theirs_value, logits, labels, ours is causal_lm_loss, options)
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    torch.testing.assert_close(
        grad, theirs_grad, rtol=tolerance, atol=max(smallest, 1e-6 * theirs_grad.abs().max().item())
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("name", ["compiled", "auto", "torch"])
def test_dtypes(ours, theirs, dtype, name):
    with fastact.backend(name):
        check(ours, theirs, dtype)
        check(ours, theirs, dtype, num_items_in_batch=torch.tensor(40))


@pytest.mark.parametrize("classes", [2, 70, 600])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_loss_is_float32_whoever_answers(dtype, classes):
    logits, labels = torch.randn(2, 3, classes).to(dtype), torch.randint(classes, (2, 3))
    for name in ("auto", "compiled", "torch"):
        with fastact.backend(name):
            for options in ({}, {"num_items_in_batch": 7}):
                got = causal_lm_loss(logits, labels, classes, **options)
                want = loss_utils.ForCausalLMLoss(logits, labels, classes, **options)
                torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("count", [17, 17.0, torch.tensor(17), torch.tensor([17]),
                                   torch.tensor([17, 4])], ids=repr)  # fmt: skip
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_num_items_in_batch(ours, theirs, count, dtype):
    check(ours, theirs, dtype, num_items_in_batch=count)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_ignore_index_and_other_arguments(ours, theirs):
    check(ours, theirs, torch.float32, ignore_index=3)
    check(ours, theirs, torch.float32, ignore_index=3, num_items_in_batch=9, whatever=1)


def test_shifted_labels():
    check(*PAIRS[0].values, torch.float32, lambda labels: {"shift_labels": labels.roll(-1, 1)})


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_all_ignored(ours, theirs):
    logits, _ = batch(torch.float32)
    labels = torch.full((3, 9), -100)
    assert result(ours, logits, labels)[0].isnan()
    assert result(theirs, logits, labels)[0].isnan()
    value, grad = result(ours, logits, labels, num_items_in_batch=torch.tensor(5))
    assert value == 0
    assert not grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_copy_of_the_logits_and_no_wait(dtype):
    logits, labels = batch(dtype)

    class Watch(Ops):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            y = super().__torch_dispatch__(func, types, args, kwargs)
            name = func.name()
            if isinstance(y, torch.Tensor) and y.numel() == logits.numel():
                old = [t.data_ptr() for t in args if isinstance(t, torch.Tensor)]
                assert y.data_ptr() in old or "backward" in name, name
            return y

    with Watch() as seen:
        loss = causal_lm_loss(logits, labels, VOCABULARY, num_items_in_batch=torch.tensor(5))
        loss.backward()
    assert not seen.reads
    assert seen.ours == {"cross_entropy": 1, "cross_entropy_backward": 1}


def test_accumulated_gradients_are_those_of_the_whole_batch():
    net = LLAMA.build()
    fastact.replace(net)
    whole = LLAMA.batch()
    count = (whole["labels"][:, 1:] != -100).sum()
    net(**whole).loss.backward()
    want = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    for i in range(3):
        part = {k: v[i : i + 1] for k, v in whole.items()}
        net(**part, num_items_in_batch=count).loss.backward()
    torch.testing.assert_close([p.grad for p in net.parameters()], want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_under_autocast(dtype):
    net = LLAMA.build()

    def step():
        net.zero_grad()
        with torch.autocast("cpu", dtype):
            loss = net(**LLAMA.batch()).loss
        loss.backward()
        return loss.detach(), net.lm_head.weight.grad.clone()

    want = step()
    fastact.replace(net)
    with Ops() as seen:
        got = step()
    assert seen.ours == LLAMA.ops
    assert got[0].dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=2e-2, atol=2e-3)
    torch.testing.assert_close(got[0], want[0], rtol=1e-3, atol=0)


def test_losses_stay_where_asked():
    net = LLAMA.build()
    report = fastact.replace(net, losses=False)
    assert "ForCausalLMLoss" not in {r.was for r in report.replaced}
    assert net.loss_function is loss_utils.ForCausalLMLoss


def test_a_loss_that_somebody_set_is_left():
    def mine(*args, **kwargs):
        return torch.zeros(())

    net = LLAMA.build()
    net.loss_function = mine
    report = fastact.replace(net)
    assert [(r.name, r.was, r.why) for r in report.left] == [("", "mine", "somebody has set it")]
    fastact.restore(net)
    assert net.loss_function is mine


def test_another_way_to_keep_the_loss_is_left_alone(monkeypatch):
    net = LLAMA.build()
    kept = {}
    other = property(
        lambda self: kept.get("loss", loss_utils.ForCausalLMLoss),
        lambda self, value: kept.update(loss=value),
    )
    monkeypatch.setattr(type(net), "loss_function", other)
    fastact.replace(net)
    assert not kept


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_slice_of_a_sequence(dtype):
    """Of which the model's own loss makes a dense copy; ours may not ask for a view."""
    logits = torch.randn(2, 12, 97).to(dtype)[:, 4:]
    labels = torch.randint(97, (2, 8))
    want = loss_utils.ForCausalLMLoss(logits.contiguous(), labels, 97)
    torch.testing.assert_close(causal_lm_loss(logits, labels, 97), want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_on_the_meta_device(dtype):
    logits = torch.randn(2, 8, 97, dtype=dtype, device="meta")
    labels = torch.randint(97, (2, 8), device="meta")
    with fastact.backend("auto"):
        loss = causal_lm_loss(logits, labels, 97)
    want = loss_utils.ForCausalLMLoss(logits, labels, 97)
    assert (loss.shape, loss.dtype, loss.device) == (want.shape, want.dtype, want.device)


def test_restored():
    net = LLAMA.build()
    fastact.replace(net)
    assert net.loss_function is causal_lm_loss
    fastact.restore(net)
    assert net.loss_function is loss_utils.ForCausalLMLoss
    assert "_loss_function" not in vars(net)


@pytest.mark.parametrize("name", ["fixed_cross_entropy", "ForCausalLMLoss"])
def test_an_unknown_version_is_left_with_a_warning(monkeypatch, name):
    net = LLAMA.build()

    def ForCausalLMLoss(*args, **kwargs):  # noqa: N802
        return torch.ones(())

    if name == "ForCausalLMLoss":
        monkeypatch.setitem(loss_utils.LOSS_MAPPING, "ForCausalLM", ForCausalLMLoss)
    else:
        monkeypatch.setattr(loss_utils, name, ForCausalLMLoss)
    with pytest.warns(UserWarning, match="^ForCausalLMLoss: transformers .* another one"):
        report = fastact.replace(net)
    assert [(r.name, r.was) for r in report.left] == [("", "ForCausalLMLoss")]
    assert net.loss_function is not causal_lm_loss


def test_the_loss_inside_a_wrapper():
    """The model is found wherever it is, and its loss once."""
    wrapped = torch.nn.ModuleDict({"inner": LLAMA.build()})
    report = fastact.replace(wrapped)
    assert [r.name for r in report.replaced if r.was == "ForCausalLMLoss"] == ["inner"]
    assert fastact.restore(wrapped) == len(report.replaced)
