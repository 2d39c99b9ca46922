"""The API of pytorch-stream-dataloader 1.0, as its documentation uses it."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from torchstreamer import StreamDataLoader, StreamDataset, StreamInputError

pytestmark = pytest.mark.timeout(120)


class TextStream:
    def __init__(self, text, tbins):
        self.text = np.frombuffer(text, dtype=np.uint8)
        self.tbins = tbins

    def __iter__(self):
        for i in range(0, len(self.text), self.tbins):
            data = self.text[i : i + self.tbins]
            frame = np.zeros((1, self.tbins), dtype=np.float32)
            frame[0, : len(data)] = data
            yield (torch.from_numpy(frame), 0)


def collate_fn(data_list):
    texts, _ = zip(*data_list, strict=True)
    return torch.cat(texts)


class TextLoader(StreamDataLoader):
    def __init__(self, texts, batch_size, num_workers, tbins=5):
        def iterator_fun(text):
            return TextStream(text, tbins)

        dataset = StreamDataset(texts, iterator_fun, batch_size, "data", None)
        super().__init__(dataset, num_workers, collate_fn)


@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
def test_the_text_example(num_workers):
    letters = "abcdefgh"
    texts = ["".join(f"{letter}_{number};" for number in range(9)).encode() for letter in letters]
    batches = list(TextLoader(texts, 8, num_workers, tbins=12))
    assert len(batches) == 3
    for number, batch in enumerate(batches):
        rows = [bytes(row.to(torch.uint8).tolist()).decode() for row in batch]
        assert rows == ["".join(f"{letter}_{3 * number + k};" for k in range(3)) for letter in letters]


def count_to(stop):
    return iter(range(stop))


def test_rows_of_one_worker_in_a_plain_loader():
    # For one network per worker: the dataset alone gives the rows of a worker, and its number.
    dataset = StreamDataset([3, 2, 4, 1], count_to, 3, "zeros", -1)
    assert list(dataset) == [((0, 0, 0), 0), ((1, 1, 1), 0), ((2, -1, 2), 0), ((0, -1, 3), 0)]
    own = torch.Generator()  # else torch's loader draws from everybody's
    loader = DataLoader(dataset, batch_size=None, num_workers=2, collate_fn=lambda pair: pair, generator=own)
    found = {0: [], 1: []}
    for values, worker in loader:
        found[worker].append(values)
    assert found == {0: [(0,), (1,), (2,), (0,)], 1: [(0, 0), (1, 1), (-1, 2), (-1, 3)]}
    again = StreamDataset([3, 2], count_to, 2, "data", None)
    assert [values for values, _ in again] == [(0, 0), (1, 1), (2, 0)]


def test_published_names():
    dataset = StreamDataset(stream_list=[3, 1], streamer=count_to, batch_size=2, padding_mode="zeros", fill_value=-1)
    assert dataset.stream_list == dataset.streams == [3, 1]
    assert dataset.fill_value == dataset.padding_value == -1
    assert list(StreamDataLoader(dataset, 0, list)) == [[0, 0], [1, -1], [2, -1]]
    dataset.stream_list = (1, 2)
    dataset.fill_value = -2
    assert list(StreamDataLoader(dataset, 0, list)) == [[0, 0], [-2, 1]]
    assert StreamDataset([3], count_to, 1, "data", fill_value=None).fill_value is None
    for wrong in ({"streams": [1], "stream_list": [1]}, {"stream_list": [1], "padding_value": 0, "fill_value": 0}):
        with pytest.raises(StreamInputError, match="^invalid_(stream_list|fill_value): .* as they are one"):
            StreamDataset(streamer=count_to, batch_size=1, **wrong)
    for lacking in ({}, {"stream_list": [1]}, {"stream_list": [1], "streamer": count_to}):
        with pytest.raises(StreamInputError, match="^invalid_(streams|streamer|batch_size): .* is None"):
            StreamDataset(**lacking)


def test_positional_arguments():
    dataset = StreamDataset([3], count_to, 1, "zeros", 0)
    assert list(StreamDataLoader(dataset, 0, sum)) == [0, 1, 2]
    assert (dataset.batch_size, dataset.padding_mode, dataset.streamer) == (1, "zeros", count_to)
    assert StreamDataLoader(dataset, 2, sum).num_workers == 2
