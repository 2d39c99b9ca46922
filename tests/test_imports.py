"""What neither traces nor compiles imports nothing of the compiler, and nothing that does not come with the package."""

import subprocess
import sys

CALLS = """
import sys

import torch
from torch import nn

HEAVY = ("torch._dynamo", "torch._inductor", "sympy", "onnx", "onnxruntime", "matplotlib", "scipy")
before = {name for name in HEAVY if name in sys.modules}
import torchstreamer as pts
from torchstreamer import analysis, testing


class Snake(nn.Module):
    def forward(self, x):
        return x + x.sin() ** 2


def checked(name, function):
    function()
    new = [heavy for heavy in HEAVY if heavy in sys.modules and heavy not in before]
    assert not new, f"{name} imports {', '.join(new)}"


net = nn.Sequential(nn.Conv1d(1, 4, 4, stride=2, padding=1), Snake(), nn.ConvTranspose1d(4, 1, 4, stride=2))
table = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(2))
x = torch.randn(1, 1, 40)
stream = pts.create_stream(net)
signals = pts.StreamDataset([torch.arange(8.0), torch.arange(6.0)], lambda signal: signal.split(2), batch_size=2)
matrix = {"seq_shape": (1, 1, 20), "time_dim": 2}
calls = {
    "import": lambda: None,
    "create_stream": lambda: pts.create_stream(net, example=x),
    "is_streamable": lambda: (pts.is_streamable(net), pts.is_streamable(nn.GRU(2, 2))),
    "without_padding": lambda: pts.without_padding(net),
    "a call": lambda: (stream(x), stream.flush()),
    "states": lambda: stream.set_state(pts.unstack_state(pts.stack_states([stream.get_state()]))[0]),
    "StaticStream": lambda: pts.StaticStream(stream, chunk=8),
    "loader": lambda: list(pts.StreamDataLoader(signals)),
    "auto": lambda: analysis.infer_dependency_matrix(net, **matrix),
    "nan": lambda: analysis.infer_dependency_matrix(net, method="nan", **matrix),
    "perturb": lambda: analysis.infer_dependency_matrix(net, method="perturb", **matrix),
    "gradient": lambda: analysis.infer_dependency_matrix(net, method="gradient", **matrix),
    "tokens": lambda: analysis.infer_dependency_matrix(table, (1, 20), tokens=9),
    "check_causality": lambda: analysis.check_causality(net, chunk=4, right=4, **matrix),
    "receptive_field": lambda: (analysis.receptive_field(net), analysis.receptive_field(net, x, method="measured")),
    "latency": lambda: analysis.latency(stream),
    "summary": lambda: str(analysis.summary(stream, calls=3)),
    "trace_error": lambda: analysis.trace_error(net, stream, x, chunk=9),
    "verify_stream": lambda: testing.verify_stream(nn.Conv1d(1, 1, 2), (1, 1, 9), script=False, gradients=False),
}
for name, function in calls.items():
    checked(name, function)
print("done")
"""


def test_what_neither_traces_nor_compiles_imports_no_compiler():
    found = subprocess.run([sys.executable, "-c", CALLS], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0 and found.stdout.strip() == "done", found.stderr
