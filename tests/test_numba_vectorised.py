"""Numba's loops work on vectors: each version of LLVM decides that anew, and says nothing."""

import platform
import re

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from fastact import _numba_cross_entropy, _numba_loops, _numba_rows  # noqa: E402
from fastact._numba_jit import CONVERTS_FLOAT16, part  # noqa: E402
from fastact._numba_storage import _instruction  # noqa: E402
from fastact._registry import ACTIVATIONS, GATES  # noqa: E402

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="reads the assembly of x86-64"
)
ARITHMETIC = r"\tv?(?:fn?m(?:add|sub)\d*|add|mul|sub|div|max|min)"


def assembly_of(function, arguments):
    # Compiled here: of what comes from disk there is no assembly.
    compiled = part(function.targetoptions["fastmath"])(function.py_func)
    compiled.compile(tuple(map(numba.typeof, arguments)))
    (assembly,) = compiled.inspect_asm().values()
    return assembly


def is_on_vectors(function, arguments):
    """By its arithmetic instructions: what is left over after vectors goes one by one."""
    assembly = assembly_of(function, arguments)
    packed = len(re.findall(ARITHMETIC + r"p[sd]\b|\tv?pmax[su]", assembly))
    single = len(re.findall(ARITHMETIC + r"s[sd]\b", assembly))
    # The loop of what is left over may be unrolled, for some processors five times.
    return packed > 0 and 8 * packed > single


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        (_numba_rows, "_largest"), (_numba_rows, "_exponentials"), (_numba_rows, "_softmax"),
        (_numba_rows, "_total"), (_numba_cross_entropy, "_scaled_exponentials"),
    ],
)  # fmt: skip
def test_rows(module, name, dtype):
    row = np.zeros(64, dtype)
    arguments = {
        "_largest": (row,),
        "_exponentials": (row, np.float32(1)),
        "_softmax": (row, row, False, 1.0, 1.0),
        "_total": (row, row, False),
        "_scaled_exponentials": (row, row, 1.0, 1.0),
    }[name]
    assert is_on_vectors(getattr(module, name), arguments)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    row = ACTIVATIONS[name]
    x = np.zeros(64, np.float32)
    for order, operands in ((0, 2), (1, 3)):
        loop = _numba_loops.unary(row, order, False)
        assert is_on_vectors(loop, (*[x] * operands, (1.0,) * len(row.parameters)))


converted = pytest.mark.skipif(
    not CONVERTS_FLOAT16, reason="no F16C, or a libgcc before GCC 12, or an LLVM before 15"
)


@converted
def test_float16_is_converted_by_instructions():
    x = np.zeros(64, np.int16)
    loop = _numba_loops.unary(ACTIVATIONS["silu"], 1, False)
    assembly = assembly_of(loop, (x, x, x, ()))
    assert "vcvtph2ps" in assembly
    assert "vcvtps2ph" in assembly


@converted
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_float16_is_converted_without_a_call(name):
    """From double LLVM has a function of libgcc's only."""
    x = np.zeros(64, np.int16)
    row = ACTIVATIONS[name]
    parameters = (1.0,) * len(row.parameters)
    for order, operands in ((0, 2), (1, 3), (2, 5)):
        loop = _numba_loops.unary(row, order, False)
        assert "hf2" not in assembly_of(loop, (*[x] * operands, parameters))
    for order, operands in ((0, 3), (1, 5)) if name in GATES else ():
        loop = _numba_loops.gated(row, order, False)
        assert "hf2" not in assembly_of(loop, (*[x] * operands, ()))


@converted
def test_what_llvm_calls_for_float16_is_there():
    """As where it moves a rounding to float32 away, which ended the process."""
    from llvmlite import ir

    narrowed = _instruction(
        numba.types.float64,
        numba.types.int16,
        lambda b, x: b.bitcast(b.fptrunc(x, ir.HalfType()), ir.IntType(16)),
    )

    def body(x, y):
        for i in range(x.size):
            y[i] = narrowed(x[i])

    x = np.linspace(-7e4, 7e4, 1001)
    y = np.zeros(x.size, np.int16)
    kernel = part(set())(body)
    kernel(x, y)
    (assembly,) = kernel.inspect_asm().values()
    assert "__truncdfhf2" in assembly
    with np.errstate(over="ignore"):
        assert np.array_equal(y.view(np.float16), x.astype(np.float16))
