"""Recurrent layers on sequences that have come whole. TorchScript compiles this file."""

from typing import List

import torch
from torch import Tensor

__all__ = ["outputs_of_rows", "states_and_outputs"]


def states_and_outputs(
    mode: str, x: Tensor, hx: List[Tensor], weights: List[Tensor], layers: int, both: bool, first: bool
) -> List[Tensor]:
    """The outputs of a recurrent layer, and its last states.

    Args:
        mode: ``gru``, ``lstm``, ``rnn_tanh`` or ``rnn_relu``
        x: ``[rows, length, C]``, or ``[length, rows, C]``
        hx: the initial state, zeros if there is none
        weights: of layer after layer, in torch's order
        layers: their number
        both: whether it runs backwards too
        first: whether the rows come first
    """
    runs = layers * (2 if both else 1)
    each = len(weights) // runs
    if len(hx) == 0:
        rows = x.size(0 if first else 1)
        hx = [x.new_zeros([runs, rows, weights[1].size(1)])]
        if mode == "lstm":  # the size of a projected output is not that of the state
            hx.append(x.new_zeros([runs, rows, weights[1].size(0) // 4]))
    bias = each > 3
    if mode == "lstm":
        y, h, c = torch.lstm(x, hx, weights, bias, layers, 0.0, False, both, first)
        return [y, h, c]
    if mode == "gru":
        y, h = torch.gru(x, hx[0], weights, bias, layers, 0.0, False, both, first)
    elif mode == "rnn_relu":
        y, h = torch.rnn_relu(x, hx[0], weights, bias, layers, 0.0, False, both, first)
    else:
        y, h = torch.rnn_tanh(x, hx[0], weights, bias, layers, 0.0, False, both, first)
    return [y, h]


def outputs_of_rows(
    mode: str, x: Tensor, hx: List[Tensor], weights: List[Tensor], layers: int, both: bool, first: bool
) -> Tensor:
    """The outputs alone, for rows that are samples too; see `states_and_outputs`."""
    start: List[Tensor] = []
    for state in hx:
        start.append(state.contiguous())
    return states_and_outputs(mode, x, start, weights, layers, both, first)[0]
