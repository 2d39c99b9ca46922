"""Sound files as streams: the chunks are the file's samples, to the bit, whoever reads them from wherever."""

import itertools
import wave

import numpy
import pytest
import soundfile
import torch
from following import same

from torchstreamer import AudioStreamDataset, StreamDataLoader, StreamInputError, StreamReadError

pytestmark = pytest.mark.timeout(120)

RATE = 16000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sounds")


def write_wav(path, frames, channels=1, seed=0, rate_hz=RATE):
    """A file of 16-bit noise, by the standard library, and its samples ``[channels, frames]`` as float."""
    samples = numpy.random.RandomState(seed).randint(-(2**15), 2**15, (frames, channels)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate_hz, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return torch.from_numpy(samples.T / 2.0**15).float()


def joined(batches, count):
    """The valid samples of every stream, from its batches."""
    parts = {}
    for batch in batches:
        for row in batch.valid.nonzero()[:, 0].tolist():
            index = int(batch.ids[row])
            assert bool(batch.first[row]) == (index not in parts)
            assert int(batch.chunk_index[row]) == len(parts.setdefault(index, []))
            parts[index].append(batch.data[row, :, : batch.lengths[row]])
    return [torch.cat(parts[index], dim=-1) if index in parts else None for index in range(count)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("chunk", [1600, 1, 70_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_files_in_chunks(folder, workers, chunk, channels):
    frames = [4801, 1600, 0, 1] if chunk > 1 else [30, 3, 0, 1]
    if chunk > 10_000:
        frames = [200_001, 70_000, 0, 5]
    paths = [folder / f"{channels}-{chunk}-{number}.wav" for number in range(len(frames))]
    wanted = [
        write_wav(path, count, channels, seed) for seed, (path, count) in enumerate(zip(paths, frames, strict=True))
    ]
    batches = list(StreamDataLoader(AudioStreamDataset(paths, chunk, 3), workers))
    for batch in batches:
        assert batch.data.dtype == torch.float32
        assert batch.data.shape[:2] == (3, channels)
        inside = batch.valid & ~batch.last
        assert (batch.lengths[inside] == chunk).all()
    for found, want in zip(joined(batches, len(paths)), wanted, strict=True):
        assert torch.equal(found, want) if want.numel() else found is None


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3", "aiff"])
def test_other_formats_also_from_the_middle(folder, suffix):
    noise = numpy.random.RandomState(0).uniform(-0.5, 0.5, (100_000, 2))
    path = folder / f"noise.{suffix}"
    soundfile.write(path, noise, RATE)
    whole = torch.from_numpy(soundfile.read(path, dtype="float32", always_2d=True)[0].T)
    dataset = AudioStreamDataset([path], 1600, 1)
    # The decoder of MP3 rounds differently by how much it is asked for at once.
    error = 1e-6 if suffix == "mp3" else 0
    torch.testing.assert_close(joined(StreamDataLoader(dataset), 1)[0], whole, rtol=0, atol=error)
    for count in (1, 5, 41):
        loader, resumed = StreamDataLoader(dataset), StreamDataLoader(dataset, 1)
        before = list(itertools.islice(loader, count))
        resumed.load_state_dict(loader.state_dict())
        after = list(resumed)
        data = torch.cat([batch.data[0, :, : batch.lengths[0]] for batch in before + after], dim=-1)
        torch.testing.assert_close(data, whole, rtol=0, atol=error)


def test_float64_and_mono(folder):
    path = folder / "stereo.wav"
    want = write_wav(path, 1000, 2)
    (batch,) = StreamDataLoader(AudioStreamDataset([path], 1000, 1, dtype=torch.float64))
    assert batch.data.dtype == torch.float64
    assert torch.equal(batch.data[0], want.double())
    (batch,) = StreamDataLoader(AudioStreamDataset([path], 1000, 1, mono=True))
    assert torch.equal(batch.data[0], want.mean(0, keepdim=True))


def test_random_cuts(folder):
    paths = [folder / f"cut{number}.wav" for number in range(3)]
    wanted = [write_wav(path, frames, seed=frames) for path, frames in zip(paths, (5000, 900, 3000), strict=True)]
    starts = {}
    for workers in (0, 2):
        dataset = AudioStreamDataset(paths, 160, 2, cut_length=1000, seed=3, balance="length")
        loader = StreamDataLoader(dataset, workers)
        assert len(loader) == 13
        starts[workers] = []
        for _ in range(3):
            for found, want in zip(joined(loader, 3), wanted, strict=True):
                assert found.shape[1] == min(1000, want.shape[1])
                places = [at for at in range(want.shape[1] - found.shape[1] + 1) if want[0, at] == found[0, 0]]
                (start,) = [at for at in places if torch.equal(want[:, at : at + found.shape[1]], found)]
                starts[workers].append(start)
    assert starts[0] == starts[2]
    assert len(set(starts[0][::3])) == 3  # another part in every epoch
    assert starts[0][1::3] == [0, 0, 0]  # shorter than a cut


def test_cuts_resume_in_the_middle(folder):
    path = folder / "long.wav"
    write_wav(path, 20_000)

    def loader(workers):
        return StreamDataLoader(AudioStreamDataset([path], 1000, 1, cut_length=9_500), workers)

    whole = list(loader(0))
    first = loader(0)
    before = list(itertools.islice(first, 4))
    second = loader(1)
    second.load_state_dict(first.state_dict())
    assert all(same(a, b) for a, b in zip(before + list(second), whole, strict=True))


def test_lengths_by_the_headers(folder):
    paths = [folder / f"length{frames}.wav" for frames in (1600, 1601, 0)]
    for path in paths:
        write_wav(path, int(path.stem.removeprefix("length")))
    dataset = AudioStreamDataset(paths, 1600, 1)
    assert dataset.lengths is None
    assert dataset.measure() == dataset.lengths == [1, 2, 0]
    assert len(StreamDataLoader(dataset)) == len(list(StreamDataLoader(dataset))) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_files_that_cannot_be_read(folder, workers):
    text = folder / "text.wav"
    text.write_text("no sound")
    good = folder / "good.wav"
    want = write_wav(good, 100, rate_hz=8000)
    for path, what in ((text, "LibsndfileError"), (folder / "missing.wav", "LibsndfileError")):
        with pytest.raises(StreamReadError, match=f"^stream_failed: stream 1 .*{path.name}.*{what}") as caught:
            list(StreamDataLoader(AudioStreamDataset([good, path], 50, 1), workers))
        assert caught.value.index == 1
        with pytest.warns(RuntimeWarning, match="is skipped"):
            found = joined(StreamDataLoader(AudioStreamDataset([good, path], 50, 1, on_error="skip"), workers), 2)
        assert torch.equal(found[0], want)
    with pytest.raises(StreamReadError, match="its rate is 8000 Hz; expected 16000 Hz"):
        list(StreamDataLoader(AudioStreamDataset([good], 50, 1, rate_hz=RATE), workers))
    assert len(list(StreamDataLoader(AudioStreamDataset([good], 50, 1, rate_hz=8000), workers))) == 2


def test_a_file_cut_short(folder):
    path = folder / "short.wav"
    write_wav(path, 10_000)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    samples = soundfile.read(path, dtype="float32")[0]  # libsndfile mends the header's number
    (found,) = joined(StreamDataLoader(AudioStreamDataset([path], 300, 1)), 1)
    assert torch.equal(found[0], torch.from_numpy(samples))


def test_mono_and_stereo_do_not_mix(folder):
    write_wav(folder / "one.wav", 100, 1)
    write_wav(folder / "two.wav", 100, 2)
    with pytest.raises(StreamReadError, match="^unequal_chunks: "):
        list(StreamDataLoader(AudioStreamDataset([folder / "one.wav", folder / "two.wav"], 50, 2)))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"chunk": 0}, "invalid_chunk: 0"),
        ({"chunk": 1.5}, "invalid_chunk: 1.5"),
        ({"cut_length": 0}, "invalid_cut_length: 0"),
        ({"dtype": torch.int16}, "invalid_dtype: torch.int16"),
    ],
)
def test_wrong_arguments(arguments, text):
    with pytest.raises(StreamInputError, match=f"^{text}"):
        AudioStreamDataset(**{"files": [], "chunk": 10, "batch_size": 1, **arguments})


def test_without_soundfile(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(ImportError, match="^soundfile is missing: .*pip install soundfile"):
        AudioStreamDataset([], 10, 1)
