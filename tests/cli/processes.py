"""Processes that run the command line, the models that they find, and the sound that they read."""

import os
import signal
import sys
import traceback
from pathlib import Path
from typing import NamedTuple

import soundfile
import torch

from torchstreamer.cli import benching, exporting, inspecting, run, verifying
from torchstreamer.cli.failing import guarded

# Imported here, so that no process has to.
COMMANDS = (benching, exporting, inspecting, run, verifying)

NETS = '''
"""Models for the command line."""
import torch
import torchstreamer as pts
from torch import nn

class Net(nn.Sequential):
    sampling_fs = 16000
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Conv1d(1, 4, 9, padding=4), nn.Tanh(), nn.Conv1d(4, 1, 9, padding=4))

class Blind(Net):
    sampling_fs = None

class Off(nn.Module):
    """One whose stream is not exact."""
    def forward(self, x):
        return x

pts.register_streamer(Off, lambda net: pts.Elementwise1dStream(nn.Tanh()))

class Failing(nn.Module):
    sampling_fs = 16000
    def forward(self, x):
        if x.shape[-1] > 1000:
            raise ArithmeticError("too much for me")
        return x

def refused():
    return nn.Sequential(nn.Conv1d(1, 2, 3), nn.InstanceNorm1d(2))

def stereo():
    return nn.Conv1d(2, 2, 3, padding=1)

def twice():
    return nn.ConvTranspose1d(1, 1, 2, stride=2)

def number():
    return 3
'''


class Ran(NamedTuple):
    """What a process left."""

    code: int
    out: str
    err: str


def started(arguments, stdin, out, err):
    """A process that runs the command line, without the start of Python and the import of torch."""
    child = os.fork()
    if child:
        return child
    try:
        for target, file in ((0, stdin), (1, out), (2, err)):
            os.dup2(file, target)
        sys.stdin, sys.stdout, sys.stderr = (open(i, "rw"[i > 0], closefd=False) for i in range(3))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = guarded([str(argument) for argument in arguments])
        for file in (sys.stdout, sys.stderr):
            file.flush()
        os._exit(code)
    except BaseException:
        traceback.print_exc()
        os._exit(99)


def ran(*arguments, stdin=b""):
    names = [Path(f".{name}") for name in ("in", "out", "err")]
    names[0].write_bytes(stdin)
    files = [os.open(name, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if i else 0)) for i, name in enumerate(names)]
    child = started(arguments, *files)
    _, status = os.waitpid(child, 0)
    for file in files:
        os.close(file)
    return Ran(os.waitstatus_to_exitcode(status), names[1].read_bytes().decode("latin1"), names[2].read_text())


def sound(name, rate=16000, channels=1, samples=8000, subtype="FLOAT", seed=0):
    x = 0.1 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(seed))
    soundfile.write(name, x.mT.numpy(), rate, subtype=subtype)
    return x


def read(name):
    return torch.from_numpy(soundfile.read(name, dtype="float32", always_2d=True)[0]).mT
