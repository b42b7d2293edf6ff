"""The activation that CONTRIBUTING.md adds exists, is differentiated and is right."""

import re
import shutil
import subprocess

import pytest
import torch
from support import ROOT, python
from test_vectorised import COMPILER, flags

TEXT = (ROOT / "CONTRIBUTING.md").read_text()

ADDED = """
import torch
import fastact
from fastact import _dispatch, _formulas as f, _registry

exec({formula!r}, vars(f))
row = eval({row!r}, {{**vars(_registry), "f": f}})
_registry.ACTIVATIONS[row.name] = row
x = torch.tensor([-2.0, 0.0, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
with fastact.backend("numba"):  # whose ops are made from the rows when it is asked for first
    y = _dispatch.unary(row, x)
    found, derivative = [y], y
    while len(found) < 4:
        (derivative,) = torch.autograd.grad(derivative.sum(), x, create_graph=True)
        found.append(derivative)
    print(torch.ops.fastact_numba.cube.default(x.detach()).tolist())
    print([t.tolist() for t in found])
    print(torch.func.vmap(lambda t: _dispatch.unary(row, t))(x.detach()[:, None])[:, 0].tolist())
assert row.equation == "x^3"
"""

COMPILED = """
#include <cstdio>
#include <initializer_list>
#include "formulas/activations.h"
int main() {
  fastact::Cube<double, fastact::Constants<double>> cube(nullptr);
  for (double x : {-2.0, 0.0, 0.5, 3.0})
    std::printf("%g %g %g\\n", cube.value(x), cube.slope(x), cube.curvature(x));
}
"""


def blocks(language):
    return [
        "\n".join(line.removeprefix("   ") for line in block.splitlines())
        for block in re.findall(rf"   ```{language}\n(.*?)   ```", TEXT, re.S)
    ]


def derivatives():
    x = torch.tensor([-2.0, 0.0, 0.5, 3.0], dtype=torch.float64)
    return [x**3, 3 * x**2, 6 * x, torch.full_like(x, 6.0)]


def test_the_python_half():
    row, formula = blocks("python")
    done = python(ADDED.format(row=row, formula=formula))
    assert done.returncode == 0, done.stderr
    value, found, batched = map(eval, done.stdout.splitlines())
    want = [t.tolist() for t in derivatives()]
    assert found == want
    assert value == batched == want[0]


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="needs a C++ compiler")
def test_the_cpp_half(tmp_path):
    (struct,) = blocks("cpp")
    source = (ROOT / "csrc" / "formulas" / "activations.h").read_text()
    mark = source.index("// ----", source.index("struct Hardsigmoid"))
    listed = source[mark:].replace("using Activations = List<", "using Activations = List<Cube, ")
    copied = tmp_path / "formulas"
    shutil.copytree(ROOT / "csrc" / "formulas", copied)
    (copied / "activations.h").write_text(f"{source[:mark]}{struct}\n\n{listed}")
    (tmp_path / "cube.cpp").write_text(COMPILED)
    program = tmp_path / "cube"
    command = [COMPILER, "-std=c++20", *flags("v2"), "-Wno-unused", tmp_path / "cube.cpp"]
    built = subprocess.run([*command, "-o", program], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    found = [[float(n) for n in line.split()] for line in lines.splitlines()]
    assert found == torch.stack(derivatives()[:3], dim=1).tolist()
