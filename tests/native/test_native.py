"""Networks as C++ beside the modules on whole signals, and what the class and its C interface promise."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import torchstreamer as pts

sys.path.insert(0, str(Path(__file__).parent))

import conv_nets
import more_nets
from compiled import agree, chunkings, compiled

NETS = {**conv_nets.nets(), **more_nets.nets()}
# With vectors, which take longer to compile: a layer of each kernel, and widths around whole vectors.
WIDE = [
    "wide",
    "stack",
    "depthwise",
    "grouped",
    "branches",
    "causal",
    "transposed_long",
    "max_padded",
    "functions",
    "gru_lag",
]


def streamed(name: str) -> pts.BaseStream:
    net = NETS[name]
    channels = (conv_nets if name in conv_nets.nets() else more_nets).channels(net)
    example = torch.randn(2, channels, 64, generator=torch.Generator().manual_seed(0))
    return (
        pts.create_stream(net, example)
        if isinstance(net, more_nets.Over) or name in CAPTURED
        else pts.create_stream(net)
    )


CAPTURED = ("branches", "causal", "dense")
OPTIONS = more_nets.options()


# Those that run by default: one of each kind.
FEW = ["same", "stack", "depthwise", "strided", "skipping_padded", "branches", "batch_norm", "transposed", "reflect"]
FEW += ["max_padded", "average_ceil", "linear", "softmax", "gru_lag", "lstm", "gru"]
FEW += ["cumulative", "logcumsumexp", "running_mean", "positions", "more_samples", "folded"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return compiled({name: streamed(name) for name in FEW}, folder, options=OPTIONS)


def compare(made, names) -> None:
    generator = np.random.default_rng(0)
    for name in names:
        for n in (1, 2, 7, 65, 150):
            x = torch.from_numpy(generator.standard_normal([1, made[name].ins, n])).float()
            for cuts in chunkings(n, generator):
                agree(NETS[name], made[name], x, cuts)


def test_some_equal_the_module_on_the_whole(made):
    compare(made, FEW)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_all_equal_the_module_on_the_whole(tmp_path):
    compare(compiled({name: streamed(name) for name in NETS}, tmp_path, options=OPTIONS), NETS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_vectors_equal_the_module_on_the_whole(tmp_path):
    generator = np.random.default_rng(1)
    for name, each in compiled({name: streamed(name) for name in WIDE}, tmp_path, plain=False, options=OPTIONS).items():
        for n in (1, 5, 64, 211):
            x = torch.from_numpy(generator.standard_normal([1, each.ins, n])).float()
            for cuts in chunkings(n, generator):
                agree(NETS[name], each, x, cuts)


@pytest.mark.parametrize("name", ["stack", "strided", "max_padded", "softmax", "gru", "transposed", "logcumsumexp"])
def test_what_is_no_number_spreads_as_in_torch(made, name):
    for bad in (float("nan"), float("inf"), float("-inf")):
        x = torch.randn(1, made[name].ins, 40, generator=torch.Generator().manual_seed(3))
        x[0, 0, 20] = bad
        agree(NETS[name], made[name], x, [9] * 4 + [4])


def test_goes_on_from_a_saved_state(made):
    for name in ("strided", "gru_lag", "reflect"):
        net = made[name]
        x = torch.randn(net.ins, 90, generator=torch.Generator().manual_seed(4))
        begun = net(x[:, :37].contiguous())
        state = net.state()
        rest = torch.cat([net(x[:, 37:].contiguous()), net.flush()], -1)
        assert net.load(state)
        again = torch.cat([net(x[:, 37:60].contiguous()), net(x[:, 60:].contiguous()), net.flush()], -1)
        torch.testing.assert_close(again, rest)
        torch.testing.assert_close(torch.cat([begun, rest], -1), NETS[name](x[None])[0], atol=1e-5, rtol=1e-5)
        assert not made["stack"].load(state + bytes(1 << 20))  # of another net


MAIN = """
#include "net.hpp"
#include <cstdio>
#include <cstdlib>
#include <new>
static long asked = 0;
void* operator new(std::size_t n) { ++asked; return std::malloc(n); }
void* operator new(std::size_t n, std::align_val_t a) { ++asked; return std::aligned_alloc(std::size_t(a), n); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
int second(const float* const* in, int n, float* const* out);  // the same header, in another file

static Denoiser one;
int main() {
  static_assert(Denoiser::hop == 2 && Denoiser::rate_hz == 16000 && Denoiser::channels_in[0] == 2);
  Denoiser* const two = new Denoiser();
  const long before = asked;
  static float x[2][100], y[3][200], z[3][200];
  for (int c = 0; c < 2; ++c) for (int i = 0; i < 100; ++i) x[c][i] = float((i * 7 + c) % 13) - 6;
  const float* in[2] = {x[0], x[1]};
  const float* late[2] = {x[0] + 41, x[1] + 41};
  float* out[3] = {y[0], y[1], y[2]};
  int count = one.process(in, 100, out);
  float* more[3] = {z[0], z[1], z[2]};
  int other = two->process(in, 41, more);
  for (int c = 0; c < 3; ++c) more[c] += other;
  other += two->process(late, 59, more);
  int same = count == other && second(in, 0, out) == 0;
  for (int c = 0; c < 3; ++c) for (int i = 0; i < count; ++i) same = same && std::fabs(y[c][i] - z[c][i]) < 1e-5f;
  count = one.flush(out);
  std::printf("%d %d %ld\\n", same, count > 0 && count <= Denoiser::most_at_end[0], asked - before);
  delete two;
}
"""


def test_classes_of_one_name_live_in_one_process(tmp_path):
    """Tables of inline functions are one for all libraries of a process where the classes have one name."""
    torch.manual_seed(0)
    found = []
    for scale in (2, 3):
        net = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.Upsample(scale_factor=scale, mode="linear"))
        folder = tmp_path / str(scale)
        folder.mkdir()
        found.append((net, compiled({"net": pts.create_stream(net)}, folder)["net"]))
    for net, one in found:
        agree(net, one, torch.randn(1, 1, 20), [7, 13])


def test_a_header_serves_several_files_and_instances_without_the_heap(tmp_path):
    net = nn.Sequential(nn.Conv1d(2, 8, 5, padding=2, stride=2), nn.ReLU(), pts.Recurrent1d(nn.GRU(8, 3))).eval()
    path = pts.export(pts.create_stream(net), tmp_path / "net.hpp", name="Denoiser", sampling_fs=16000)
    (tmp_path / "main.cpp").write_text(MAIN)
    body = "static Denoiser net;\n"
    body += "int second(const float* const* in, int n, float* const* out) { return net.process(in, n, out); }"
    (tmp_path / "second.cpp").write_text(f'#include "net.hpp"\n{body}\n')
    command = ["g++", "-std=c++17", "-O0", "-march=native", "-Wall", "-Wextra", "-Werror", "-fno-exceptions"]
    command += ["-Wno-mismatched-new-delete"]
    subprocess.run([*command, "main.cpp", "second.cpp", "-o", "main"], cwd=tmp_path, check=True)
    said = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout
    assert said == "1 1 0\n"
    text = path.read_text()
    assert "Conv1d" in text and text.isascii()


def test_double_in_vectors(tmp_path):
    net = (
        nn.Sequential(nn.Conv1d(3, 20, 5, padding=2), nn.Tanh(), nn.ConvTranspose1d(20, 1, 4, stride=2)).double().eval()
    )
    made = compiled({"net": pts.create_stream(net)}, tmp_path, plain=False)["net"]
    x = torch.randn(1, 3, 70, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    agree(net, made, x, [33, 0, 37], 1e-12)


class Attends(nn.Module):
    def forward(self, x):
        return torch.fft.rfft(x, dim=1).abs()


def test_what_cannot_be_written_is_refused_by_name(tmp_path):
    with pytest.raises(pts.UnsupportedModuleError, match="^not_native: .*in C\\+\\+: .*fft.*; use pts.compile"):
        pts.export(pts.create_stream(Attends(), torch.randn(1, 4, 30)), tmp_path / "net.cpp")
    with pytest.raises(pts.UnsupportedModuleError, match="^not_native: .*float32 or float64"):
        pts.export(pts.create_stream(nn.Conv1d(1, 1, 3).bfloat16()), tmp_path / "net.cpp")
    stream = pts.create_stream(nn.Conv1d(1, 1, 3))
    for arguments in ({"chunk": 4}, {"batch": 2}, {"autotune": True}, {"metadata": {}}):
        with pytest.raises(ValueError, match=f"^unused_argument: {next(iter(arguments))}= came"):
            pts.export(stream, tmp_path / "net.hpp", **arguments)
    with pytest.raises(ValueError, match="^invalid_name: "):
        pts.export(stream, tmp_path / "net.hpp", name="a net")
    assert not list(tmp_path.iterdir())


FEED = """
typedef std::vector<std::vector<float>> Rows;
template <class Pointer> std::vector<Pointer> pointers(Rows& rows) {
  std::vector<Pointer> found;
  for (auto& row : rows) found.push_back(row.data());
  return found;
}
template <class N> void feed() {
  static N net;
  for (int turn = 0; turn < 2; ++turn) {
    for (int n : {1, 0, 3, 70, 200}) {
      Rows x(N::channels_in[0], std::vector<float>(n, .5f)), y(N::channels_out[0], std::vector<float>(N::most(n)));
      net.process(pointers<const float*>(x).data(), n, pointers<float*>(y).data());
    }
    Rows y(N::channels_out[0], std::vector<float>(N::most_at_end[0]));
    net.flush(pointers<float*>(y).data());
  }
}
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_sanitizers_find_nothing(tmp_path):
    # In a program of its own, as they want to be loaded first.
    names = FEW
    lines = ["#include <vector>"]
    for i, name in enumerate(names):
        pts.export(streamed(name), tmp_path / f"net{i}.cpp", name=f"Net{i}", **OPTIONS.get(name, {}))
        lines.append(f'#include "net{i}.cpp"')
    lines.append(FEED)
    lines.append("int main() { " + " ".join(f"feed<Net{i}>();" for i in range(len(names))) + " }")
    (tmp_path / "main.cpp").write_text("\n".join(lines))
    command = ["g++", "-std=gnu++17", "-O1", "-DTORCHSTREAMER_PLAIN", "-fsanitize=address,undefined"]
    subprocess.run([*command, "-fno-sanitize-recover=all", "main.cpp", "-o", "main"], cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True)
    assert done.returncode == 0, re.sub(r"\n+", "\n", done.stderr[:2000])
