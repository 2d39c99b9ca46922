"""What can happen to processes: killed, interrupted, left early, used twice; and streams that fail in them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import pytest
import torch
from following import check_epoch, open_stream, same

from torchstreamer import StreamDataLoader, StreamDataset, StreamInputError, StreamReadError, WorkerError

pytestmark = pytest.mark.timeout(120)

STREAMS = [[3, 1, 2], [2, 2], [1, 1, 1, 2], [4, 2]]


def loader_of(streamer=open_stream, workers=2, rows=2, streams=STREAMS, **options):
    given = {name: options.pop(name) for name in ("on_error", "padding_mode", "threads") if name in options}
    return StreamDataLoader(StreamDataset(list(enumerate(streams)), streamer, rows, **given), workers, **options)


def wait_for_the_end_of(processes):
    """The processes among these that are still there after a while."""
    deadline = time.monotonic() + 20
    while processes & set(multiprocessing.active_children()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return processes & set(multiprocessing.active_children())


# --------------------------------------------------------------------------- streams that fail


class Failing:
    """Raises before a chunk of one stream."""

    def __init__(self, stream, at):
        self.index, self.lengths = stream
        self.at = at

    def __iter__(self):
        for chunk, value in enumerate(open_stream((self.index, self.lengths))):
            if (self.index, chunk) == self.at:
                raise OSError("the disk is gone")
            yield value


def fail_in_the_middle(stream):
    return Failing(stream, (2, 2))


def fail_to_open(stream):
    if stream[0] == 2:
        raise FileNotFoundError("no such file")
    return open_stream(stream)


def give_none(stream):
    yield from open_stream(stream)
    if stream[0] == 2:
        yield None


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("collated", [True, False])
@pytest.mark.parametrize(
    ("streamer", "whole", "text"),
    [
        (fail_in_the_middle, 5, r"stream 2 \(\(2, \[1, 1, 1, 2\]\)\), chunk 2: OSError while it was read: the disk"),
        (fail_to_open, 3, r"stream 2 .*, chunk 0: FileNotFoundError while it was opened: no such file \(.*line \d+\)"),
        (give_none, 7, r"stream 2 .*, chunk 4: it gave None; a chunk was expected"),
    ],
)
def test_a_stream_that_fails_is_named(streamer, whole, text, workers, collated):
    # All that was read before it is given. Row 0 reads streams 0 and 2: 3 and 4 chunks.
    loader = loader_of(streamer, workers, collate_fn=None if collated else list)
    batches = []
    with pytest.raises(StreamReadError, match=f"^stream_failed: {text}") as caught:
        for batch in loader:
            batches.append(batch)
    assert caught.value.index == 2
    assert caught.value.code == "stream_failed"
    assert len(batches) == whole
    if collated:
        wanted = list(loader_of(workers=0))
        for batch, want in zip(batches, wanted[:whole], strict=True):
            assert torch.equal(batch.ids, want.ids)
            assert torch.equal(batch.data, want.data)
            # The row that failed did not come to its end.
            failed = batch.ids == 2
            assert torch.equal(batch.last[~failed], want.last[~failed])
            assert not batch.last[failed].any()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mode", ["zeros", "data"])
def test_streams_that_fail_can_be_skipped(workers, mode):
    loader = loader_of(fail_in_the_middle, workers, on_error="skip", padding_mode=mode)
    with pytest.warns(RuntimeWarning, match=r"stream 2 .*the disk is gone.*; the rest of it is skipped") as warned:
        batches = list(loader)
    assert len(warned) == 1
    assert list(loader.skipped) == [2]
    check_epoch(batches, [STREAMS[0], STREAMS[1], STREAMS[2][:2], STREAMS[3]], 2, mode == "data")


@pytest.mark.parametrize("workers", [0, 2])
def test_all_streams_may_fail(workers):
    def fail(stream):
        raise OSError("nothing here")

    loader = loader_of(fail, workers, on_error="skip")
    with pytest.warns(RuntimeWarning) as warned:
        assert list(loader) == []
    assert len(warned) == 4
    assert sorted(loader.skipped) == [0, 1, 2, 3]


def test_the_cause_is_kept_where_it_is_known():
    with pytest.raises(StreamReadError) as caught:
        list(loader_of(fail_in_the_middle, 0))
    assert isinstance(caught.value.__cause__, OSError)


# --------------------------------------------------------------------------- processes that end


class Killed:
    """Ends its process in the middle of a stream, as a lack of memory does."""

    def __init__(self, stream):
        self.index, self.lengths = stream

    def __iter__(self):
        for chunk, value in enumerate(open_stream((self.index, self.lengths))):
            if (self.index, chunk) == (3, 1):
                os.kill(os.getpid(), signal.SIGKILL)
            yield value


@pytest.mark.parametrize("persistent", [False, True])
def test_a_killed_worker_is_an_error(persistent):
    begin, others = time.monotonic(), set(multiprocessing.active_children())
    loader = loader_of(Killed, persistent_workers=persistent)
    with pytest.raises(WorkerError, match="^worker_died: the process that reads rows 1 to 1 gave no answer"):
        list(loader)
    assert time.monotonic() - begin < 60
    # The others end too, and the loader can be used again.
    assert not wait_for_the_end_of(set(multiprocessing.active_children()) - others)
    check_epoch(list(StreamDataLoader(StreamDataset(loader.dataset.streams[:3], open_stream, 2), 2)), STREAMS[:3], 2, 0)


class Stuck:
    def __init__(self, stream):
        self.stream = stream

    def __iter__(self):
        yield torch.zeros(1, 3)
        time.sleep(60)


def test_a_worker_that_does_not_answer_in_time():
    loader = loader_of(Stuck, workers=1, timeout=2)
    with pytest.raises(WorkerError, match="^worker_died: .*timed out"):
        list(loader)


def test_a_lambda_cannot_be_spawned():
    loader = loader_of(lambda stream: open_stream(stream), multiprocessing_context="spawn")
    with pytest.raises(StreamInputError, match="^unpicklable_dataset: .*lambda.*multiprocessing_context='fork'"):
        list(loader)
    check_epoch(list(loader_of(lambda stream: open_stream(stream), multiprocessing_context="fork")), STREAMS, 2, False)


@pytest.mark.parametrize("persistent", [False, True])
def test_leaving_early_and_two_at_once(persistent):
    others = set(multiprocessing.active_children())
    loader = loader_of(persistent_workers=persistent, padding_mode="data")
    whole = list(loader)
    loader.set_epoch(0)
    for _ in range(3):
        for batch in loader:
            assert same(batch, whole[0])
            break
    first, second = iter(loader), iter(loader)
    for want in whole[:3]:
        assert same(next(first), want)
    for want in whole:
        assert same(next(second), want)
    for want in whole[3:]:
        assert same(next(first), want)
    for iterator in (first, second):
        with pytest.raises(StopIteration):
            next(iterator)
    readers = set(multiprocessing.active_children()) - others
    assert len(readers) == (2 if persistent else 0)
    del first, second, loader, batch
    assert not wait_for_the_end_of(readers)


def test_interrupted_from_the_keyboard(tmp_path):
    # Ctrl-C reaches all processes of the group.
    script = tmp_path / "reads.py"
    script.write_text(
        textwrap.dedent(
            """
            import itertools, signal, time, torch
            from torchstreamer import StreamDataLoader, StreamDataset

            def endless(stream):
                for _ in itertools.count():
                    time.sleep(0.01)
                    yield torch.zeros(1, 10)

            if __name__ == "__main__":
                # A background job of a shell is born without it.
                signal.signal(signal.SIGINT, signal.default_int_handler)
                loader = StreamDataLoader(StreamDataset(range(4), endless, 4), 2)
                try:
                    for number, _ in enumerate(loader):
                        if number == 3:
                            print("reading", flush=True)
                except KeyboardInterrupt:
                    print("interrupted", flush=True)
            """
        )
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "reading\n"
    os.killpg(process.pid, signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert out == "interrupted\n", errors
    assert process.returncode == 0
    with pytest.raises(ProcessLookupError):  # nobody of the group is left
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.1)


# --------------------------------------------------------------------------- the rest


def note_number(number):
    os.environ["READER"] = str(number)


def tell_number(stream):
    yield torch.tensor([int(os.environ["READER"])])


def test_worker_init_fn_gets_the_number_of_the_process():
    loader = loader_of(tell_number, 3, rows=4, worker_init_fn=note_number)
    (batch,) = list(loader)
    assert batch.data[:, 0].tolist() == [0, 1, 2, 2]  # rows 0, 1, and 2 to 3
    assert "READER" not in os.environ


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_batches():
    (batch, *_) = loader_of(workers=0, pin_memory=True)
    assert batch.data.is_pinned() and batch.ids.is_pinned()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_pinning_needs_a_gpu():
    with pytest.warns(UserWarning, match="pin_memory=True has no effect"):
        loader = loader_of(workers=0, pin_memory=True)
    check_epoch(list(loader), STREAMS, 2, False)


def test_reading_gives_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(loader_of())
