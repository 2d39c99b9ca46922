"""After any batch, a loader's state lets another loader go on with the very next one."""

import itertools
import os
import random

import pytest
import torch
from following import Opened, check_epoch, open_stream, random_case, same
from torch import nn

import torchstreamer as pts
from torchstreamer import StreamDataLoader, StreamDataset, StreamInputError

pytestmark = pytest.mark.timeout(240)

STREAMS = [[3, 1], [2], [], [1, 1, 1, 2], [4, 2], [1], [2, 2, 2]]


def loader_of(workers, mode="zeros", streamer=open_stream, streams=STREAMS, rows=3, **options):
    return StreamDataLoader(StreamDataset(list(enumerate(streams)), streamer, rows, mode, **options), workers)


def read_to(loader, count):
    """The first batches, and the state after the last of them."""
    batches = list(itertools.islice(iter(loader), count))
    return batches, loader.state_dict()


@pytest.mark.sample(every=3)
@pytest.mark.parametrize("mode", ["zeros", "data"])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_resume_after_every_batch(mode, workers):
    whole = list(loader_of(2, mode, shuffle=True))
    check_epoch(whole, STREAMS, 3, mode == "data", loader_of(0, mode, shuffle=True).dataset.plan().order)
    following = list(loader_of(0, mode, shuffle=True, seed=0))
    for count in range(len(whole) + 1):
        before, state = read_to(loader_of(2, mode, shuffle=True), count)
        resumed = loader_of(workers, mode, shuffle=True)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        after = list(resumed)
        assert len(before) + len(after) == len(whole)
        assert all(same(a, b) for a, b in zip(before + after, whole, strict=True))
        assert resumed.dataset.epoch == 1
    assert all(same(a, b) for a, b in zip(whole, following, strict=True))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mode", ["zeros", "data"])
def test_resume_random_streams_again_and_again(seed, mode):
    # Resumed after every batch, by a new loader each time.
    streams, rows = random_case(100 + seed)
    whole = list(loader_of(0, mode, streams=streams, rows=rows))
    found, state = [], None
    for _ in range(len(whole)):
        loader = loader_of(0, mode, streams=streams, rows=rows)
        if state is not None:
            loader.load_state_dict(state)
        batches, state = read_to(loader, 1)
        found += batches
    check_epoch(found, streams, rows, mode == "data")
    assert all(same(a, b) for a, b in zip(found, whole, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mode", ["zeros", "data"])
def test_resume_of_in_time_assignment(workers, mode):
    options = {"assignment": "in_time", "shuffle": True}
    whole = list(loader_of(workers, mode, **options))
    for count in range(len(whole) + 1):
        before, state = read_to(loader_of(workers, mode, **options), count)
        resumed = loader_of(workers, mode, **options)
        resumed.load_state_dict(state)
        assert all(same(a, b) for a, b in zip(before + list(resumed), whole, strict=True))
    with pytest.raises(StreamInputError, match="wrong_state: workers is"):
        loader_of(3, mode, **options).load_state_dict(read_to(loader_of(2, mode, **options), 1)[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_with_a_collate_fn(workers):
    def loader():
        dataset = StreamDataset(list(enumerate(STREAMS)), open_stream, 3, padding_value=-1)
        return StreamDataLoader(dataset, workers, lambda chunks: [chunk.tolist() for chunk in chunks])

    whole = list(loader())
    for count in range(len(whole) + 1):
        before, state = read_to(loader(), count)
        resumed = loader()
        resumed.load_state_dict(state)
        assert before + list(resumed) == whole


def test_the_state_is_plain_and_survives_saving(tmp_path):
    _, state = read_to(loader_of(0), 2)
    torch.save(state, tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == state


def test_state_before_and_between_epochs():
    loader = loader_of(0, shuffle=True)
    begin = loader.state_dict()
    first = list(loader)
    between = loader.state_dict()
    assert (begin["epoch"], between["epoch"]) == (0, 1)
    second = list(loader)
    for state, wanted in ((begin, first), (between, second)):
        other = loader_of(1, shuffle=True)
        other.load_state_dict(state)
        assert all(same(a, b) for a, b in zip(list(other), wanted, strict=True))


def test_a_break_starts_the_epoch_anew():
    loader = loader_of(0)
    whole = list(loader)
    loader.set_epoch(0)
    for _ in loader:
        break
    assert all(same(a, b) for a, b in zip(loader, whole, strict=True))


class Failing(Opened):
    """Raises before a chunk, or behind the last one."""

    def __init__(self, index, lengths, at):
        super().__init__(index, lengths)
        self.at = at

    def __iter__(self):
        for chunk, value in enumerate(super().__iter__()):
            if chunk == self.at:
                raise OSError("broken")
            yield value
        if self.at == len(self.lengths):
            raise OSError("broken at its end")


def open_or_fail(stream):
    index, lengths, at = stream
    if at == -1:
        raise OSError("broken before it began")
    return Failing(index, lengths, at)


@pytest.mark.filterwarnings("ignore:stream_failed:RuntimeWarning")
@pytest.mark.parametrize("seed", range(1000 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 40))
def test_random_options_resume_after_every_batch(seed):
    # Modes, assignments, threads, and streams that break anywhere and are skipped from there on.
    rng = random.Random(seed)
    lengths, rows = random_case(seed)
    breaks = [rng.choice([None, None, -1, 0, 1, 2]) for _ in lengths]
    left = [chunks if at is None else chunks[: max(at, 0)] for chunks, at in zip(lengths, breaks, strict=True)]
    streams = [(index, chunks, at) for index, (chunks, at) in enumerate(zip(lengths, breaks, strict=True))]
    mode, assignment = rng.choice(["zeros", "data"]), rng.choice(["planned", "planned", "in_time"])
    options = {"shuffle": rng.random() < 0.5, "seed": seed, "threads": rng.choice([0, 0, 2])}

    def make():
        dataset = StreamDataset(streams, open_or_fail, rows, mode, on_error="skip", assignment=assignment, **options)
        return StreamDataLoader(dataset)

    whole = list(make())
    if assignment == "planned":
        check_epoch(whole, left, rows, mode == "data", make().dataset.plan().order)
    read = sorted(
        (int(batch.ids[row]), int(batch.chunk_index[row])) for batch in whole for row in range(rows) if batch.valid[row]
    )
    assert read == [(index, chunk) for index, chunks in enumerate(left) for chunk in range(len(chunks))]
    for count in range(len(whole) + 1):
        before, state = read_to(make(), count)
        resumed = make()
        resumed.load_state_dict(state)
        assert all(same(a, b) for a, b in zip(before + list(resumed), whole, strict=True))


class Seekable(Opened):
    """Goes to a chunk without reading those before it, and notes that it did."""

    went = []

    def iterate_from(self, chunk):
        self.went.append((self.index, chunk))
        return itertools.islice(iter(self), chunk, None)


def test_streams_that_can_begin_anywhere_are_asked_to():
    _, state = read_to(loader_of(0), 3)
    resumed = loader_of(0, streamer=lambda stream: Seekable(*stream))
    resumed.load_state_dict(state)
    rest = list(resumed)
    wanted = list(loader_of(0))[3:]
    assert all(same(a, b) for a, b in zip(rest, wanted, strict=True))
    assert Seekable.went == [(3, 1)]


def test_training_goes_on_in_the_middle_of_signals(tmp_path):
    # The state of the loader and those of the streams that its batches go through, saved together.
    torch_state = torch.get_rng_state()
    torch.manual_seed(0)
    net = nn.Conv1d(1, 1, 3, padding=1).double().eval()
    signals = [torch.randn(1, 40 + 7 * number, dtype=torch.float64) for number in range(4)]
    torch.set_rng_state(torch_state)

    def loader():
        return StreamDataLoader(StreamDataset(signals, lambda signal: torch.split(signal, 8, dim=1), 2))

    def run(batches, streams, outputs):
        for batch in batches:
            for row, stream in enumerate(streams):
                if batch.valid[row]:
                    chunk = batch.data[row : row + 1, :, : batch.lengths[row]]
                    y = stream(chunk, final=bool(batch.last[row]))
                    if y is not None:
                        outputs.setdefault(int(batch.ids[row]), []).append(y)

    with torch.inference_mode():
        outputs, streams = {}, [pts.create_stream(net) for _ in range(2)]
        first = loader()
        run(itertools.islice(iter(first), 3), streams, outputs)
        saved = {"loader": first.state_dict(), "streams": [stream.get_state() for stream in streams]}
        torch.save(saved, tmp_path / "checkpoint.pt")

        loaded = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        second, others = loader(), [pts.create_stream(net) for _ in range(2)]
        second.load_state_dict(loaded["loader"])
        for stream, state in zip(others, loaded["streams"], strict=True):
            stream.set_state(state)
        run(second, others, outputs)
        for index, signal in enumerate(signals):
            torch.testing.assert_close(torch.cat(outputs[index], dim=-1), net(signal[None]))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"streams": STREAMS[:-1]}, "streams"),
        ({"rows": 2}, "batch_size"),
        ({"mode": "data"}, "padding_mode"),
        ({"seed": 1}, "seed"),
        ({"shuffle": True}, "shuffle"),
        ({"rank": 0, "world_size": 2}, "world_size"),
        ({"assignment": "in_time"}, "assignment"),
        ({"balance": "length", "lengths": list(map(len, STREAMS))}, "balance"),
    ],
)
def test_states_of_others_are_refused(change, name):
    _, state = read_to(loader_of(0), 2)
    with pytest.raises(StreamInputError, match=f"^wrong_state: {name} is"):
        loader_of(0, **change).load_state_dict(state)


def test_what_is_no_state_is_refused():
    for state in ({}, {"dataset": {}}, {**loader_of(0).state_dict(), "cursors": [[1]]}):
        with pytest.raises(StreamInputError, match="^wrong_state: "):
            loader_of(0).load_state_dict(state)
