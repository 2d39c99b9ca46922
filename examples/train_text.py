"""Train a small GRU on texts that arrive in pieces, its state carried from batch to batch.

    python examples/train_text.py [losses.json]

Row b of every batch continues row b of the batch before, so the state of the GRU goes on from batch to batch, and
begins anew where another text begins. The same network is trained a second time with its state reset at every batch:
it sees the same characters in the same order, and remembers nothing that lies further back than a chunk. The texts are
the sections of this project's documentation, without its code and tables; those of two pages are kept back, to test
the networks on.
"""

import argparse
import json
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")  # not needed here
    import torch
    from torch import Tensor, nn

    import torchstreamer as pts

DOCS = Path(__file__).parent.parent / "docs"
KEPT_BACK = ["concepts.md", "state.md"]
CHUNK = 12  # characters
ROWS = 16
EPOCHS = 4
HIDDEN = 64
CHARACTERS = 128  # ASCII; all others count as one


def prose_of(page: Path) -> str:
    """A page without its code, tables and marks, which read otherwise than sentences do."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return "\n".join(line for line in text.splitlines() if not re.match(r" *(\||!|:::|<|\w+: )", line))


def sections_of(pages: list[Path]) -> list[str]:
    """The sections of some pages, each a text."""
    return [section for page in pages for section in prose_of(page).split("\n## ") if len(section.strip()) > 1]


def open_text(text: str) -> Iterator[tuple[Tensor, Tensor]]:
    """The characters of a text in chunks, and those that come next."""
    codes = torch.tensor([min(ord(character), CHARACTERS - 1) for character in text])
    for at in range(0, len(codes) - 1, CHUNK):
        target = codes[at + 1 : at + 1 + CHUNK]
        yield codes[at : at + len(target)], target


def loader_of(texts: list[str], shuffle: bool) -> pts.StreamDataLoader:
    """Batches of texts, read by two processes, laid out so that the rows end together."""
    lengths = [-(-(len(text) - 1) // CHUNK) for text in texts]
    dataset = pts.StreamDataset(texts, open_text, ROWS, shuffle=shuffle, balance="length", lengths=lengths)
    return pts.StreamDataLoader(dataset, num_workers=2, persistent_workers=True)


class Network(nn.Module):
    """Tells the next character from those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CHARACTERS, 32)
        self.gru = nn.GRU(32, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, CHARACTERS)

    def forward(self, text: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of the next characters ``[B, T, CHARACTERS]``, and the state ``[1, B, HIDDEN]``."""
        hidden, state = self.gru(self.embedding(text), state)
        return self.head(hidden), state


def run(net: Network, loader: pts.StreamDataLoader, carry: bool, optimizer: torch.optim.Optimizer | None) -> float:
    """One epoch; the mean loss per character, in nats."""
    total, count = 0.0, 0
    state = torch.zeros(1, ROWS, HIDDEN)
    for batch in loader:
        text, target = batch.data
        begins = batch.first if carry else torch.ones(ROWS, dtype=torch.bool)
        state = torch.where(begins[:, None], 0.0, state.detach())
        scores, state = net(text, state)
        # Rows without a text, and what pads the shorter chunks, do not count.
        counts = torch.arange(text.shape[1]) < batch.lengths[0][:, None]
        loss = nn.functional.cross_entropy(scores[counts], target[counts])
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        total += loss.item() * int(counts.sum())
        count += int(counts.sum())
    return total / count


def train(carry: bool, texts: list[str], tests: list[str]) -> float:
    """Train a network; its loss on the texts that were kept back."""
    torch.manual_seed(0)
    net = Network()
    optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
    loader = loader_of(texts, shuffle=True)
    for epoch in range(EPOCHS):
        loss = run(net, loader, carry, optimizer)
        print(f"  epoch {epoch + 1}: {loss:.3f}")
    with torch.no_grad():
        return run(net, loader_of(tests, shuffle=False), carry, None)


def main() -> int:
    """Run the example; 1 if the state that is carried does not help."""
    parser = argparse.ArgumentParser(description="Train a GRU on streams of text, with and without its state carried.")
    parser.add_argument("output", type=Path, nargs="?", help="file for the two losses")
    output = parser.parse_args().output

    torch.set_num_threads(1)
    pages = sorted(DOCS.glob("*.md"))
    texts = sections_of([page for page in pages if page.name not in KEPT_BACK])
    tests = sections_of([page for page in pages if page.name in KEPT_BACK])
    print(f"texts               {len(texts)} to train on, {len(tests)} kept back; {ROWS} rows, chunks of {CHUNK}")
    losses = {}
    for name, carry in (("carried", True), ("reset", False)):
        print(f"state {name}")
        losses[name] = train(carry, texts, tests)
    for name, loss in losses.items():
        print(f"state {name:<13} {loss:.3f} nats per character on the texts kept back")
    if output is not None:
        output.write_text(json.dumps(losses))
    if not losses["carried"] < losses["reset"]:
        print("Carrying the state did not help.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
