import pytest, fastact
import test_accuracy, test_threads, test_edges, test_errors, test_compile, test_losses_compile, test_losses_errors, test_losses_threads, test_losses_accuracy
from functools import partial
import references
from test_accuracy import all_floats
from test_threads import threads
pytest.importorskip("numba")
for _m in (test_accuracy, test_threads, test_edges, test_errors, test_compile, test_losses_compile, test_losses_errors, test_losses_threads, test_losses_accuracy):
    for n, t in list(vars(_m).items()):
        if n.startswith("test_"):
            globals()[n + "__" + _m.__name__] = t
@pytest.fixture(autouse=True)
def numba(compiled, monkeypatch):
    monkeypatch.setattr(test_accuracy, "results", partial(references.results, backend="numba"))
    with fastact.backend("numba"):
        yield
@pytest.fixture
def isa():
    """x"""
