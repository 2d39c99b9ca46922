"""Pieces joined by id, and batches of single pieces."""

import pytest
import torch

import torchstreamer as pts


def piece(name, begin, end, **named):
    return pts.stream_tensor([torch.arange(float(begin), end)[None]], ids=[name], start=[begin], **named)


def test_random_pieces_of_many_signals_are_joined():
    torch.manual_seed(0)
    signals = {name: torch.randn(2, int(torch.randint(0, 40, ()))) for name in range(12)}
    collected, at = pts.StreamCollector(), dict.fromkeys(signals, 0)
    ended = []
    while at:
        present = [name for name in at if torch.rand(()) < 0.75]
        if not present:
            continue
        rows, marks = [], ([], [])
        for name in present:
            end = at[name] + int(torch.randint(0, 9, ()))
            rows.append(signals[name][:, at[name] : end])
            marks[0].append(name not in collected.ids())
            marks[1].append(end >= signals[name].shape[1])
            at[name] = end
        batch = pts.stream_tensor(rows, ids=present, first=marks[0], last=marks[1])
        ended += collected.update(batch.permute(2, 0, 1) if len(ended) % 2 == 0 and len(collected) == -1 else batch)
        at = {name: end for name, end in at.items() if not collected.done(name)}
    assert sorted(ended) == sorted(signals)
    for name, signal in signals.items():
        assert torch.equal(collected.pop(name), signal)
    assert not len(collected) and not collected.ids()


@pytest.mark.parametrize(
    ("code", "pieces"),
    [
        ("missing_piece", [piece("a", 3, 5)]),
        ("missing_piece", [piece("a", 0, 3, first=True), piece("a", 4, 5)]),
        ("missing_piece", [piece("a", 0, 3, first=True), piece("a", 2, 5)]),
        ("doubled_first", [piece("a", 0, 3, first=True), piece("a", 0, 3, first=True)]),
        ("ended_row", [piece("a", 0, 3, first=True, last=True), piece("a", 3, 3)]),
        ("invalid_pieces", [torch.zeros(1)]),
    ],
)
def test_what_does_not_follow_is_refused_and_changes_nothing(code, pieces):
    collected = pts.StreamCollector()
    for each in pieces[:-1]:
        collected.update(each)
    wrong = pieces[-1]
    if isinstance(wrong, pts.StreamTensor):  # beside a row that fits
        wrong = pts.collate([piece("b", 0, 2, first=True), wrong])
    with pytest.raises(pts.StreamInputError) as caught:
        collected.update(wrong)
    assert caught.value.code == code and "b" not in collected.ids()
    assert len(collected) == len(pieces) - 1


def test_an_unknown_signal_is_not_handed_out():
    with pytest.raises(pts.StreamInputError, match="unknown_row"):
        pts.StreamCollector().pop("a")


def test_a_row_does_not_keep_its_batch():
    collected = pts.StreamCollector()
    collected.update(pts.stream_tensor(torch.zeros(32, 16, 64), ids=range(32), first=True)[:1])
    assert collected.pop(0).untyped_storage().nbytes() == 16 * 64 * 4


def test_single_pieces_become_a_batch_when_it_is_asked_for():
    batch = pts.Batch([pts.Input(torch.ones(1, 3), "a", first=True)])
    assert not batch.is_collated and batch.collate() is batch and batch.is_collated
    batch.append(pts.Input(torch.ones(1, 2), "b", last=True, start=4))
    assert not batch.is_collated
    x = batch.data
    assert batch.is_collated and batch.data is x
    assert (x.ids, x.lengths, x.start, x.last) == (("a", "b"), (3, 2), (0, 4), (False, True))
    batch.extend(pts.Batch([pts.Input(torch.ones(1, 1), "c")]))
    batch.extend([pts.Input(torch.ones(1, 1), "d")])
    assert not batch.is_collated and batch.data.shape == (4, 1, 3) and len(batch) == 4
    assert [each.id for each in batch] == ["a", "b", "c", "d"] and "id='b'" in repr(batch[1])
    batch.append(pts.Input(torch.ones(1, 1), "a"))
    with pytest.raises(pts.StreamInputError, match="doubled_ids"):
        batch.collate()
