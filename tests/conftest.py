"""Fixtures: the backend is always forced, or small tests would test torch against itself."""

import os
import sys
from contextlib import nullcontext

import pytest
import support
import torch

import fastact


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="also run what needs GiB of memory")
    parser.addoption("--device", default="cpu", help="where the tests make their tensors")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: needs GiB of memory; run with --run-slow")
    config.addinivalue_line("markers", "xdist_group(name): one by one, with --dist loadgroup")
    config.addinivalue_line("markers", "cpu_only: of no meaning with --device cuda")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--device") != "cpu":
        for item in items:
            if "cpu_only" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="of the CPU"))
    if config.getoption("--run-slow") or os.environ.get("FASTACT_SLOW") == "1":
        return
    skip = pytest.mark.skip(reason="needs --run-slow or FASTACT_SLOW=1")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def compiled(request):
    """Forces the compiled kernels, and gives every test the same numbers."""
    torch.manual_seed(0)
    device = request.config.getoption("--device")
    with fastact.backend("compiled"), nullcontext() if device == "cpu" else torch.device(device):
        yield
    if torch.cuda.is_initialized():
        wait_for_gpu(request.config.pluginmanager.getplugin("capturemanager"))


def wait_for_gpu(capture):
    """What goes wrong on the GPU is told to whoever waits for it next: that is this test.

    The process cannot use the GPU from then on. pytest-xdist names the test, and begins another.
    """
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        if "PYTEST_XDIST_WORKER" in os.environ:
            with capture.global_and_fixture_disabled():
                print(error, file=sys.stderr, flush=True)
            os._exit(70)
        raise


@pytest.fixture
def auto(compiled):
    """No backend forced, as for users."""
    with fastact.backend("auto"):
        yield


@pytest.fixture
def on_gpu(compiled):
    """Tensors are made on the GPU; under emulation on the CPU, which then runs the same kernels."""
    if support.EMULATED:
        yield
        return
    if reason := support.no_gpu():
        pytest.skip(reason)
    with torch.device("cuda"):
        yield


@pytest.fixture(params=support.BACKENDS)
def backend(request, compiled):
    """Each backend with kernels of its own, forced."""
    with fastact.backend(request.param):
        yield request.param


@pytest.fixture(params=support.ISAS)
def isa(request):
    """Each instruction set that the machine has; a GPU has one."""
    if request.config.getoption("--device") != "cpu" and request.param != support.ISAS[0]:
        pytest.skip("of the CPU")
    with support.use_isa(request.param):
        yield request.param
