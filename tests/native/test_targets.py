"""The same C++ on other machines: ARM, by an emulator, WebAssembly, by Node, and x86 without its newer vectors."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import torchstreamer as pts
from torchstreamer.deploy.chunks import input_channels

sys.path.insert(0, str(Path(__file__).parent))

import conv_nets
import more_nets

NETS = {**conv_nets.nets(), **more_nets.nets()}
NAMES = ["same", "stack", "depthwise", "grouped", "strided", "transposed_long", "max_padded", "linear", "softmax"]
NAMES += ["gru_lag", "lstm", "functions", "reflect"]
CHANNELS = {name: 3 for name in more_nets.options()}
LENGTH = 150

# Takes the number of a net and its signal, in pieces, and gives all that comes out.
MAIN = """
#include <cstdio>
#include <vector>
typedef std::vector<std::vector<float>> Rows;
template <class N> int run() {
  static N net;
  constexpr int length = LENGTH, ins = N::channels_in[0], outs = N::channels_out[0];
  Rows x(ins, std::vector<float>(length)), y(outs, std::vector<float>(N::most(length) + 4096));
  for (auto& row : x)
    if (std::fread(row.data(), 4, length, stdin) != length) return 2;
  int done = 0, given = 0;
  const float* in[ins];
  float* out[outs];
  for (int piece : {1, 0, 2, 5, 64, 65, 13}) {
    for (int c = 0; c < ins; ++c) in[c] = x[c].data() + done;
    for (int c = 0; c < outs; ++c) out[c] = y[c].data() + given;
    given += net.process(in, piece, out);
    done += piece;
  }
  for (int c = 0; c < outs; ++c) out[c] = y[c].data() + given;
  given += net.flush(out);
  for (auto& row : y) std::fwrite(row.data(), 4, given, stdout);
  return done == length ? 0 : 3;
}
int main() {
  int which = std::getchar();
  switch (which) { CASES }
  return 4;
}
"""

WASI = """
import { readFile } from 'node:fs/promises';
import { WASI } from 'node:wasi';
const wasi = new WASI({ version: 'preview1', args: ['net'], env: {} });
const made = await WebAssembly.compile(await readFile(process.argv[2]));
const net = await WebAssembly.instantiate(made, { wasi_snapshot_preview1: wasi.wasiImport });
process.exitCode = wasi.start(net) ?? 0;
"""

TARGETS = {
    "arm": (["aarch64-linux-gnu-g++", "-static"], ["qemu-aarch64"]),
    "wasm": (
        ["clang++", "--target=wasm32-wasi", "-msimd128", "-fno-exceptions"],
        ["node", "--no-warnings", "wasi.mjs"],
    ),
    "sse2": (["g++", "-march=x86-64"], []),
    "clang": (["clang++", "-march=native"], []),
}


def streamed(name):
    net = NETS[name]
    if isinstance(net, more_nets.Over):
        return pts.create_stream(net, torch.randn(1, 3, 64))
    return pts.create_stream(net)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("targets")
    lines, cases = [], []
    for i, name in enumerate(NAMES):
        pts.export(streamed(name), folder / f"net{i}.hpp", name=f"Net{i}", **more_nets.options().get(name, {}))
        lines.append(f'#include "net{i}.hpp"')
        cases.append(f"case {i}: return run<Net{i}>();")
    main = MAIN.replace("LENGTH", str(LENGTH)).replace("CASES", " ".join(cases))
    (folder / "main.cpp").write_text("\n".join([*lines, main]))
    (folder / "wasi.mjs").write_text(WASI)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_other_machines_give_the_same(target, source):
    (compiler, *options), runner = TARGETS[target]
    for program in (compiler, *runner[:1]):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    if target == "wasm" and int(subprocess.check_output(["node", "--version"], text=True)[1:].split(".")[0]) < 20:
        pytest.skip("needs node 20 or later")
    if target == "sse2" and "x86" not in subprocess.run(["uname", "-m"], capture_output=True, text=True).stdout:
        pytest.skip("needs an x86 machine")
    program = f"{target}.out"
    command = [compiler, *options, "-std=gnu++17", "-O1", "-Wall", "-Wextra", "-Werror", "main.cpp", "-o", program]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True)
    if target == "wasm" and "file not found" in built.stderr:
        pytest.skip("needs the headers of wasi-libc and libc++ for wasm32")
    assert built.returncode == 0, built.stderr[:2000]
    for i, name in enumerate(NAMES):
        net = NETS[name]
        channels = CHANNELS.get(name) or input_channels(streamed(name))
        x = torch.randn(1, channels, LENGTH, generator=torch.Generator().manual_seed(i))
        started = [*runner, program] if runner else [str(source / program)]
        done = subprocess.run(started, cwd=source, input=bytes([i]) + x.numpy().tobytes(), capture_output=True)
        assert done.returncode == 0, done.stderr.decode()[:2000]
        with torch.no_grad():
            expected = net(x)[0]
        y = torch.from_numpy(np.frombuffer(done.stdout, np.float32).copy()).reshape(expected.shape)
        scale = max(float(expected.abs().max()), 1.0)
        torch.testing.assert_close(
            y, expected, rtol=0, atol=1e-5 * scale, msg=lambda said, name=name: f"{name}: {said}"
        )
