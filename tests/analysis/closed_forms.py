"""Truths that can be written down, and networks in the layout in which they are probed."""

import torch
from torch import nn


class Frames(nn.Module):
    """A network of [B, C, T] as one of [B, T, C]."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.transpose(1, 2)).transpose(1, 2)


def grid(ins, outs):
    return torch.arange(ins)[:, None], torch.arange(outs)


def conv_truth(ins, kernel, stride=1, dilation=1, padding=0):
    outs = (ins + 2 * padding - (kernel - 1) * dilation - 1) // stride + 1
    i, o = grid(ins, outs)
    tap = i - (o * stride - padding)
    return (tap >= 0) & (tap <= (kernel - 1) * dilation) & (tap % dilation == 0)
