"""What Numba compiled is kept on disk for the next process, as long as the sources are the same."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import python

import fastact

pytest.importorskip("numba")

# Forward and backward of what is named, in this order, and how many kernels were not on disk.
CODE = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in type(f).__module__]
{first}
import torch
import torch.nn.functional as TF
import numba.core.caching as caching
compiled = []
class Counting(caching.CompileResultCacheImpl):
    def reduce(self, cres):
        compiled.append(cres.fndesc.qualname)
        return super().reduce(cres)
caching.FunctionCache._impl_class = Counting
import fastact
from fastact import functional as F
def both(f, g, *shape, dtype=torch.float32):
    x = torch.randn(*shape).to(dtype).requires_grad_()
    wide = x.detach().double().requires_grad_()
    for t, h in ((x, f), (wide, g)):
        h(t).sum().backward()
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=1e-2, atol=1e-2)
calls = dict(
    gelu=lambda: both(F.gelu, TF.gelu, 100),
    silu=lambda: both(F.silu, TF.silu, 100),
    bfloat16=lambda: both(F.silu, TF.silu, 100, dtype=torch.bfloat16),
    glu=lambda: both(F.glu, TF.glu, 100),
    softmax=lambda: both(lambda x: F.softmax(x, 1)[:, 0], lambda x: x.softmax(1)[:, 0], 4, 10),
    loss=lambda: both(lambda x: F.cross_entropy(x, torch.arange(4)),
                      lambda x: TF.cross_entropy(x, torch.arange(4)), 4, 10),
)
with fastact.backend("numba"):
    for name in {names!r}.split():
        calls[name]()
print(fastact.__file__)
print(len(compiled))
"""


def run(names, cache="", first="", **environment):
    done = python(CODE.format(names=names, first=first), NUMBA_CACHE_DIR=str(cache), **environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


def test_the_next_process_does_not_compile(tmp_path):
    # Kernels of several processes, which each count their functions from 1, are used in one.
    assert run("gelu", tmp_path) == 2
    assert run("silu", tmp_path) == 2
    assert run("bfloat16 glu softmax loss", tmp_path) == 8
    assert run("silu gelu loss softmax glu bfloat16", tmp_path) == 0


def test_processes_that_compile_at_once(tmp_path):
    names = "silu bfloat16 glu"
    code = CODE.format(names=names, first="")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], env=environment,
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]  # fmt: skip
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert run(names, tmp_path) == 0
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".nbc"]


def test_what_is_broken_or_of_another_text_is_compiled_anew(tmp_path):
    assert run("silu", tmp_path) == 2
    (one, other) = sorted(tmp_path.rglob("*.nbc"))
    one.write_bytes(b"")
    other.write_bytes(other.read_bytes()[:1000])
    assert run("silu", tmp_path) == 2


def test_a_damaged_file_is_not_unpickled(tmp_path):
    """Machine code with a page of zeros would end the process."""
    assert run("silu", tmp_path) == 2
    for file in tmp_path.rglob("*.nbc"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    assert run("silu", tmp_path) == 2
    assert run("silu", tmp_path) == 0


def test_a_file_of_another_version_is_not_unpickled(tmp_path):
    """It may name modules that are no more."""
    assert run("silu", tmp_path) == 2
    for file in tmp_path.rglob("*.nbc"):
        file.write_bytes(b"x" * 64 + b"c_gone\nnothing\n.")
    assert run("silu", tmp_path) == 2


def test_a_folder_that_is_gone(tmp_path):
    cache = tmp_path / "cache"
    gone = f"import shutil; shutil.rmtree({str(cache)!r}); open({str(cache)!r}, 'w')"
    code = (
        CODE.format(names="silu", first="")
        + f"""
{gone}
with fastact.backend("numba"):
    calls["bfloat16"]()
"""
    )
    done = python(code, NUMBA_CACHE_DIR=str(cache))
    assert done.returncode == 0, done.stderr


@pytest.fixture
def package(tmp_path):
    """A copy of the package, without its libraries."""
    copy = tmp_path / "src" / "fastact"
    shutil.copytree(Path(fastact.__file__).parent, copy,
                    ignore=shutil.ignore_patterns("lib", "__pycache__"))  # fmt: skip
    return copy


def test_an_edited_formula_is_compiled_anew(package, tmp_path):
    first = f"sys.path.insert(0, {str(package.parent)!r})"
    cache = tmp_path / "cache"
    assert run("silu", cache, first) == 2
    for name in ("_formulas.py", "_numba_storage.py"):
        with (package / name).open("a") as file:
            file.write("\n# Edited.\n")
        assert run("silu", cache, first) == 2, name
    # Replaced, not added.
    assert len(list(cache.rglob("*.nbc"))) == 2


@pytest.mark.skipif(os.name != "posix", reason="folders without permission to write")
def test_without_a_folder_to_write_to(package, tmp_path):
    """The user's cache where the package is read-only; where there is none, nothing is kept."""
    first = f"sys.path.insert(0, {str(package.parent)!r})"
    home = tmp_path / "home"
    home.mkdir()
    # A file where a folder would be: that stops even a superuser, whom permissions do not.
    (package / "__pycache__").write_text("")
    environment = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    assert run("silu", "", first, **environment) == 2
    assert run("silu", "", first, **environment) == 0
    assert list((home / "cache").rglob("*.nbc"))
    shutil.rmtree(home / "cache")
    (home / "cache").write_text("")
    assert run("silu", "", first, **environment) == 0  # that were to be kept
    assert (home / "cache").read_text() == ""
