"""Arrows run one way: docs/design.md, "Structure"."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "fastact"
# Each may import those before it.
ORDER = (
    "_version",
    "_originals",
    "_private",
    "_formulas",
    "_registry",
    "_cutoffs",
    "_family",
    "_pointwise",
    "_compositions",
    "_loss_batching",
    "_losses",
    "_library",
    "_numba_jit",
    "_numba_vocabulary",
    "_numba_storage",
    "_numba_loops",
    "_numba_rows",
    "_numba_cross_entropy",
    "_numba_bce",
    "_numba",
    "_numba_operands",
    "_numba_losses",
    "_autograd",
    "_eager_cross_entropy",
    "_backend",
    "_dtensor",
    "_dispatch",
    "_loss_checks",
    "_loss_dispatch",
    "functional",
    "autograd",
    "nn",
    "_shards",
    "_ranks",
    "distributed",
    "_patch",
    "_replace",
    "_monitor",
    "_cli",
    "__main__",
    "__init__",
)


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, functions' own imports included."""
    depth = len(path.relative_to(PACKAGE).parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            found |= (
                {node.module.partition(".")[0]} if node.module else {a.name for a in node.names}
            )
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastact"):
            pytest.fail(f"{path}: relative imports only")
    return found - {"__path__"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_python_imports_only_what_lies_below(path):
    own = layer(path)
    assert own in ORDER, f"{own} has no place in the order: give it one here and in docs/design.md"
    for other in imports(path):
        assert ORDER.index(other) < ORDER.index(own), f"{own} imports {other}"


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#include\s+[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE)


def sources(folder: str) -> list[Path]:
    found = sorted(p for p in (ROOT / "csrc" / folder).iterdir() if p.suffix in {".h", ".cpp"})
    assert found
    return found


def test_formulas_include_nothing_but_formulas():
    for path in sources("formulas"):
        own = {p.name for p in sources("formulas")}
        assert set(includes(path)) <= {"stdint.h", *own}, path


def test_what_is_compiled_per_isa_includes_no_stl():
    """Nor does any header of theirs: an inline function of one ISA could be linked into another."""
    list_of_them = (ROOT / "cmake" / "Isa.cmake").read_text()
    names = re.findall(r"csrc/cpu/(\w+\.cpp)", list_of_them)
    assert {"pointwise.cpp", "softmax.cpp", "cross_entropy.cpp", "bce.cpp"} <= set(names)
    seen, todo = set(), [ROOT / "csrc" / "cpu" / name for name in names]
    while todo:
        path = todo.pop()
        seen.add(path)
        for header in includes(path):
            if header not in ("stdint.h", "immintrin.h"):  # whose functions are always inlined
                found = (path.parent / header).resolve()
                assert found.exists(), (path, header)
                todo += [found] if found not in seen else []
    assert len(seen) > len(names)


def test_only_one_folder_includes_torch():
    for folder in ("formulas", "cpu"):
        for path in sources(folder):
            assert not [h for h in includes(path) if h.startswith("torch")], path
    assert any(h.startswith("torch/csrc/stable") for p in sources("torch") for h in includes(p))


# The last is the C interface that the first is made of, with the same promise.
STABLE = (
    "torch/csrc/stable/", "torch/headeronly/", "torch/csrc/inductor/aoti_torch/c/shim.h",
)  # fmt: skip


def test_only_the_stable_abi_is_included():
    for path in sources("torch"):
        for header in includes(path):
            if header.startswith("torch/"):
                assert header.startswith(STABLE), path
