"""Products of few rows that ask for their weights ahead: the kernel by itself, and in compiled steps."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

import torchstreamer as pts
from torchstreamer.deploy import few_rows as few
from torchstreamer.deploy import search

CAPABILITY = torch.backends.cpu.get_cpu_capability()
needs_kernel = pytest.mark.skipif(CAPABILITY not in ("AVX2", "AVX512"), reason="the kernel is for AVX2 and AVX-512")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
FLAGS = {"AVX2": ["-mavx2", "-mfma"], "AVX512": ["-mavx512f", "-mavx2", "-mfma"]}
WRAPPER = """
#define THREADS {threads}
#include "{header}"
extern "C" int product(
    const float* x, long row, long column, const float* w, float* y, long count, long inner, long columns
) {{
    return torchstreamer_few_rows::product({{x, row, column}}, w, y, count, inner, columns);
}}
"""


@pytest.fixture(scope="module")
def kernel(request, tmp_path_factory):
    """The kernel of a level of instructions, with so many threads, as a function of a signal and panels."""
    level, threads = request.param
    if level == "AVX512" and CAPABILITY != "AVX512":
        pytest.skip("this machine has no AVX-512")
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "k.cpp").write_text(WRAPPER.format(threads=threads, header=Path(few.__file__).with_suffix(".hpp")))
    flags = ["-O1", "-std=c++17", "-fopenmp", "-shared", "-fPIC", "-Wall", "-Werror", *FLAGS[level]]
    subprocess.run(["g++", *flags, str(folder / "k.cpp"), "-o", str(folder / "k.so")], check=True)
    library = ctypes.CDLL(str(folder / "k.so"))

    def product(x, panels, columns):
        # Outputs stand between others, which must stay as they are.
        held = torch.full([x.size(0) * columns + 64], 7.0)
        y = held[32:-32].view(x.size(0), columns)
        here, by, to = (ctypes.c_void_p(each.data_ptr()) for each in (x, panels, y))
        row, column, count, inner, width = (ctypes.c_long(n) for n in (*x.stride(), *x.shape, columns))
        assert library.product(here, row, column, by, to, count, inner, width)
        assert (held[:32] == 7).all() and (held[-32:] == 7).all()
        return y

    return product


@needs_kernel
@needs_compiler
@pytest.mark.parametrize("kernel", [("AVX2", 1), ("AVX512", 1), ("AVX512", 2)], indirect=True, ids=str)
def test_the_kernel(kernel):
    torch.manual_seed(0)
    for inner, columns in ((1, 1), (3, 17), (8, 16), (31, 33), (257, 130)):
        weight = torch.randn(inner, columns)
        for count in (*range(1, 20), 31, 32, 33, 47, 64):
            one_by_one = torch.randn(count, inner)
            layouts = one_by_one, torch.randn(inner, count).t(), torch.randn(count + inner).unfold(0, inner, 1)[:count]
            for x in layouts:
                y = kernel(x, few._panels(weight), columns)
                torch.testing.assert_close(y, (x.double() @ weight.double()).float(), rtol=1e-5, atol=1e-4)


@needs_kernel
@needs_compiler
@pytest.mark.parametrize("kernel", [("AVX2", 1), ("AVX512", 1)], indirect=True, ids=str)
def test_nan_and_infinity_spread_as_in_a_product(kernel):
    weight = torch.randn(9, 21)
    weight[3, 5], weight[4, 20] = float("inf"), float("nan")
    for count in (1, 5, 17):
        x = torch.randn(count, 9)
        x[0, 2], x[-1, 7] = float("nan"), float("-inf")
        y = kernel(x, few._panels(weight), 21)
        torch.testing.assert_close(y, x @ weight, equal_nan=True)


def recorded(run, x):
    return make_fx(run)(x)


def test_which_products_it_takes():
    bias = torch.randn(600)
    weight, small, double = torch.randn(512, 600), torch.randn(16, 16), torch.randn(512, 600).double()
    cases = {
        "few rows": (lambda x: x @ weight, torch.randn(16, 512), True),
        "one row": (lambda x: torch.relu(x) @ weight, torch.randn(1, 512), True),
        "many rows": (lambda x: x @ weight, torch.randn(65, 512), False),
        "rows that lie otherwise": (lambda x: x.t() @ weight, torch.randn(512, 16), True),
        "rows that overlap": (lambda x: x.unfold(0, 512, 3) @ weight, torch.randn(530), True),
        "with a bias": (lambda x: torch.addmm(bias, x, weight), torch.randn(2, 512), True),
        "small weights": (lambda x: x @ small, torch.randn(16, 16), False),
        "double precision": (lambda x: x @ double, torch.randn(16, 512).double(), False),
        "of two signals": (lambda x: x @ x.t(), torch.randn(16, 512), False),
        "weights to the left": (lambda x: weight.t() @ x, torch.randn(512, 16), False),
    }
    for name, (run, x, taken) in cases.items():
        graph = recorded(run, x)
        assert bool(few._products(graph)) is taken, name
        new = few.few_rows(graph)
        assert ("product_of_few_rows" in new.code) is taken, name
        torch.testing.assert_close(new(x), graph(x))
    assert few.few_rows_pay(recorded(lambda x: x @ weight, torch.randn(2, 512))) is (CAPABILITY in ("AVX2", "AVX512"))
    assert not few.few_rows_pay(recorded(lambda x: x @ torch.ones(64, 64), torch.randn(2, 64)))


@needs_kernel
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot", pytest.param("inductor", marks=pytest.mark.long)])
def test_a_compiled_step_takes_it(backend):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(130, 530, 3), nn.GELU(), nn.Conv1d(530, 70, 2))
    stream = pts.compile(pts.create_stream(net.eval()), chunk=5, backend=backend, autotune=False)
    tried = {(one.form, one.kernels): one for one in stream.candidates}
    own = tried["rows", "few rows"]
    assert not own.reason and own.error < 1e-5 and ("rows", "") not in tried and ("rows", "packed") not in tried
    assert "few rows" in str(own)
    x = torch.randn(1, 130, 64)
    y = [*map(stream, x.split(5, -1)), stream.flush()]
    joined = torch.cat([piece for piece in y if piece is not None], -1)
    torch.testing.assert_close(joined, net(x).detach(), rtol=0, atol=1e-5)


@needs_kernel
def test_a_search_tries_it_first_and_others_where_it_fails(monkeypatch):
    made = []

    class Eager(search.BACKENDS["eager"]):
        def __init__(self, graph, args, kernels):
            made.append(kernels)
            if kernels in failing:
                raise RuntimeError("no such kernel")
            super().__init__(graph, args, kernels)

    monkeypatch.setitem(search.BACKENDS, "aot", Eager)
    monkeypatch.setitem(search.FORMS, "aot", ("rows",))
    net = nn.Sequential(nn.Conv1d(256, 512, 2), nn.ReLU(), nn.Conv1d(512, 256, 1)).eval()
    for failing, autotune, expected in (  # noqa: B007
        ((), False, ["few rows"]),
        (("few rows",), False, ["few rows", ""]),
        ((), True, ["few rows", "", "tuned"]),
    ):
        made.clear()
        pts.compile(pts.create_stream(net), chunk=4, backend="aot", autotune=autotune)
        assert made == expected
