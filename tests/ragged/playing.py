"""Signals that come and go under ids that are used again, in pieces of any length, beside rows full of nan."""

import math
import random

import torch

import torchstreamer as pts


def play(step, signals, shortest, longest, time, ids=12, presence=0.75, multiple=1, seed=0):
    """Hand signals in piece by piece, each present by chance, and join what came out of each.

    Args:
        step: takes a list of ``(id, piece, first, last, start)``, and gives for each what came out, or ``None``
        signals: a list of tensors without an axis of rows
        shortest: samples of a piece, but for the last of a signal, and some that have none
        longest: likewise
        time: axis of time of a signal
        ids: how many there are for all signals, and one more, whose samples are nan
        presence: how often a signal has a piece
        multiple: of which the length of a signal must be one
        seed: of what is drawn
    """
    draw = random.Random(seed)
    waiting = list(range(len(signals)))
    live, given = {}, {number: [] for number in waiting}
    count, begun = 0, False
    while waiting or live:
        for id in range(ids):
            if id not in live and waiting and draw.random() < 0.5:
                live[id] = waiting.pop(0), 0, True
        rows = []
        for id, (number, at, new) in live.items():
            if draw.random() < presence:
                n = draw.randint(shortest, longest) if draw.random() < 0.9 else 0
                stop = min(at + n, signals[number].shape[time])
                ends = stop == signals[number].shape[time] and draw.random() < 0.7
                rows.append((id, signals[number].narrow(time, at, stop - at).clone(), new, ends, at))
        if not rows:
            continue
        if draw.random() < 0.5:
            bad = torch.full_like(rows[0][1], math.nan)
            rows.insert(draw.randrange(len(rows) + 1), ("nan", bad, not begun, False, None))
            count, begun = count + bad.shape[time], True
        for (id, piece, _, ends, at), y in zip(rows, step(rows), strict=True):
            if id == "nan":
                continue
            number = live[id][0]
            if y is not None:
                given[number].append(y)
            live[id] = number, at + piece.shape[time], False
            if ends:
                del live[id]
    if begun:
        bad = torch.full_like(signals[0].narrow(time, 0, -count % multiple), math.nan)
        step([("nan", bad, False, True, None)])
    return given


def through_rows(rows):
    """For `play`: through a `RowStream`."""

    def step(pieces):
        given = rows.step([each[:4] for each in pieces])
        return [piece.output for piece in given]

    return step


def through_model(model, time):
    """For `play`: through a patched model, with nan in the padding; for pieces with this axis of time."""

    def step(pieces):
        ids, tensors, first, last, start = zip(*pieces, strict=True)
        lengths = [piece.shape[time] for piece in tensors]
        shape = [len(tensors), *tensors[0].shape]
        shape[time + 1] = max(lengths) + 1
        padded = tensors[0].new_full(shape, math.nan)
        for row, piece in zip(padded, tensors, strict=True):
            row.narrow(time, 0, piece.shape[time]).copy_(piece)
        x = pts.stream_tensor(padded, ids=ids, lengths=lengths, first=first, last=last, start=start, time_dim=time + 1)
        y = model(x)
        assert y.ids == x.ids and y.first == x.first and y.last == x.last
        return [row.tensor() for row in y.unbatch()]

    return step


def compare(given, signals, net, time, tolerance):
    """Whether each signal has what the network gives on it alone; ``time`` is that of its output."""
    for number, x in enumerate(signals):
        try:
            expected = net(x[None])[0]
        except RuntimeError:  # too short for the network
            expected = None
        pieces = [y for y in given[number] if y.shape[time]]
        if expected is None or not expected.numel():
            assert not pieces
            continue
        found = torch.cat(pieces, time)
        assert found.shape == expected.shape
        assert float((found - expected).abs().max()) <= tolerance * max(float(expected.abs().max()), 1e-3)
