"""Train networks on signals that arrive in pieces, by truncated back-propagation, and see what their memory is worth.

    python examples/train_on_streams.py [losses.json]

A GRU learns to tell the next character of a text, Python's own help, and a causal convolutional network to take an echo
out of speech that comes back 25 ms later, longer than a chunk. Each is trained through its stream, chunk by chunk, and
its state is cut after each step of the optimizer. A twin sees the same chunks, but forgets at each of them. Both are
compared on data that was kept back.
"""

import argparse
import json
import math
import sys
import warnings
import wave
from pathlib import Path
from pydoc_data.topics import topics

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")  # not needed here
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    import torchstreamer as pts

HERE = Path(__file__).parent
TOPICS = ["attribute-access", "comparisons", "customization", "import"]  # of Python's own help
KEPT_BACK = ["assignment"]
CHARACTERS = 128  # ASCII; all others count as one
CHUNK = 16  # characters
ROWS = 16

SPEECH_CHUNK = 160  # samples, 20 ms at 8 kHz
ECHO = 200  # samples by which the echo comes later
SPEECH_ROWS = 6

Chunks = list[tuple[Tensor, Tensor, Tensor]]  # input, target, and which samples count


def in_chunks(x: Tensor, target: Tensor, lengths: Tensor, chunk: int) -> Chunks:
    """A batch of signals ``[B, C, T]`` in pieces, with masks ``[B, t]`` of what is no padding."""
    counts = torch.arange(x.shape[-1]) < lengths[:, None]
    pieces = [torch.split(each, chunk, -1) for each in (x, target, counts)]
    return list(zip(*pieces, strict=True))


def run(
    stream: pts.BaseStream, chunks: Chunks, carry: bool, optimizer: torch.optim.Optimizer | None, text: bool
) -> float:
    """The mean loss over a batch of signals, chunk by chunk; a step of the optimizer after each if there is one."""
    total, count = 0.0, 0
    stream.train(optimizer is not None)
    stream.reset()
    for x, target, counts in chunks:
        if not carry:
            stream.reset()
        y = stream(x)
        assert y is not None  # a causal network gives a sample for each that comes
        y = y.transpose(1, 2)[counts]
        wanted = target.transpose(1, 2)[counts]
        loss = F.cross_entropy(y, wanted[:, 0]) if text else F.mse_loss(y, wanted)
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(stream.parameters(), 1.0)
            optimizer.step()
            stream.detach_state()  # the next chunk goes on from here, and its gradient ends here
        total += loss.item() * len(y)
        count += len(y)
    return total / count


def learn(net: nn.Module, train: Chunks, kept_back: Chunks, epochs: int, rate: float, carry: bool) -> list[float]:
    """Train a network through its stream; its loss on the data kept back, before and after each epoch."""
    text = train[0][1].dtype == torch.int64
    with torch.no_grad():
        net(torch.cat([x for x, _, _ in train], -1))  # the statistics of batch norm, which a stream takes as they are
    stream = pts.create_stream(net, training="frozen")
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    losses = []
    for epoch in range(epochs + 1):
        if epoch:
            run(stream, train, carry, optimizer, text)
        with torch.no_grad():
            losses.append(run(stream, kept_back, carry, None, text))
    return losses


# ---------------------------------------------------------------------- text


def texts_of(names: list[str]) -> Tensor:
    """The characters of some topics of Python's ``help()``, as numbers; versions of Python hardly differ in these."""
    texts = "".join(topics[name] for name in names)
    return torch.tensor([min(ord(character), CHARACTERS - 1) for character in texts])


def rows_of(whole: Tensor, rows: int) -> Chunks:
    """A text cut into rows of unequal length, at the ends of lines."""
    ends = (whole == ord("\n")).nonzero()[:, 0] + 1
    cuts = [0] + [int(ends[(ends - len(whole) * row // rows).abs().argmin()]) for row in range(1, rows)] + [len(whole)]
    parts = [whole[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    padded = nn.utils.rnn.pad_sequence(parts, batch_first=True)
    lengths = torch.tensor([len(part) - 1 for part in parts])
    one_hot = F.one_hot(padded, CHARACTERS).mT.float()
    return in_chunks(one_hot[..., :-1], padded[:, None, 1:], lengths, CHUNK)


def reader() -> nn.Module:
    """Tells the next character from those before it."""
    gru = nn.GRU(32, 64)
    return nn.Sequential(
        nn.Conv1d(CHARACTERS, 32, 1), pts.Recurrent1d(gru), nn.Dropout(0.1), nn.Conv1d(64, CHARACTERS, 1)
    )


# ---------------------------------------------------------------------- sound


def speech() -> Tensor:
    """The recording in this folder, 8 kHz, between -1 and 1."""
    with wave.open(str(HERE / "speech.wav")) as file:
        samples = torch.frombuffer(bytearray(file.readframes(file.getnframes())), dtype=torch.int16)
    x = samples.float()
    return F.avg_pool1d(x[None, None], 2)[0, 0] / x.abs().max()


def with_echo(clean: Tensor, rows: int) -> Chunks:
    """Rows of speech with its echo, and without."""
    heard = clean + 0.7 * F.pad(clean, (ECHO, 0))[: len(clean)]
    length = len(clean) // rows
    x, y = (10 * signal[: rows * length].view(rows, 1, length) for signal in (heard, clean))
    return in_chunks(x, y, torch.full((rows,), length), SPEECH_CHUNK)


def decibels(ratio: Tensor) -> float:
    """A ratio of powers."""
    return 10 * math.log10(ratio.item())


class Causal(nn.Module):
    """Adds to a sound what two layers make of it and of what came up to 50 ms before."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 16, 21, dilation=10)
        self.norm = nn.BatchNorm1d(16, momentum=None)  # the mean of the statistics of all batches
        self.second = nn.Conv1d(16, 1, 21, dilation=10)

    def forward(self, x: Tensor) -> Tensor:
        """The sound without its echo."""
        h = F.leaky_relu(self.norm(self.first(F.pad(x, (ECHO, 0)))))
        return x + self.second(F.pad(h, (ECHO, 0)))


def main() -> int:
    """Run the example; 1 if memory does not help."""
    parser = argparse.ArgumentParser(description="Train networks on streams, with and without memory.")
    parser.add_argument("output", type=Path, nargs="?", help="file for the losses on what was kept back")
    output = parser.parse_args().output

    torch.set_num_threads(1)
    train_text, test_text = rows_of(texts_of(TOPICS), ROWS), rows_of(texts_of(KEPT_BACK), 4)
    clean = speech()
    cut = len(clean) * 3 // 4
    train_sound, test_sound = with_echo(clean[:cut], SPEECH_ROWS), with_echo(clean[cut:], 1)

    curves: dict[str, dict[str, list[float]]] = {}
    for name, make, train, test, epochs, rate in (
        ("text", reader, train_text, test_text, 3, 6e-3),
        ("sound", Causal, train_sound, test_sound, 8, 1e-2),
    ):
        curves[name] = {}
        for memory, carry in (("carried", True), ("forgotten", False)):
            torch.manual_seed(0)
            curves[name][memory] = learn(make(), train, test, epochs, rate, carry)
    for memory, losses in curves["text"].items():
        print(f"text,  state {memory:<10} {losses[-1]:.3f} nats per character")
    heard, clean = (torch.cat([chunk[i] for chunk in test_sound], -1) for i in (0, 1))
    power = clean.square().mean()
    print(f"sound as it comes      {decibels(power / (heard - clean).square().mean()):.1f} dB above its echo")
    for memory, losses in curves["sound"].items():
        print(f"sound, state {memory:<10} {decibels(power / losses[-1]):.1f} dB above what is left of the echo")
    if output is not None:
        output.write_text(json.dumps(curves))
    if any(losses["carried"][-1] >= losses["forgotten"][-1] for losses in curves.values()):
        print("Carrying the state did not help.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
