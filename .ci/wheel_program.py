"""A user's program, run and type-checked against the installed wheel."""

import sys
from importlib.metadata import version

import torch
from torch import Tensor, nn

import torchstreamer as pts

net = nn.Sequential(nn.Conv1d(1, 4, 5, padding=2), nn.ReLU(), nn.Conv1d(4, 1, 4, stride=2)).eval()
stream = pts.create_stream(net)
x = torch.randn(1, 1, 300)
with torch.no_grad():
    pieces: list[Tensor] = [y for chunk in torch.split(x, 64, dim=-1) if (y := stream(chunk)) is not None]
    last = stream.flush()
    joined = torch.cat(pieces if last is None else [*pieces, last], dim=-1)
    torch.testing.assert_close(joined, net(x))

assert pts.__version__ == version("torchstreamer")
assert pts.__file__.startswith(sys.argv[1]), pts.__file__
print(f"torchstreamer {pts.__version__} from the wheel, torch {torch.__version__}: streamed as on the whole")
