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


def bad_files(folder):
    """Files of which none can be read as 16 kHz mono, by what is wrong, and what is said of them."""
    (folder / "text.wav").write_text("no sound" * 40)
    (folder / "empty.wav").touch()
    (folder / "folder.wav").mkdir(exist_ok=True)
    write_wav(folder / "stereo.wav", 4000, 2)
    write_wav(folder / "rate.wav", 4000, rate_hz=8000)
    write_wav(folder / "short.wav", 4000)
    (folder / "short.wav").write_bytes((folder / "short.wav").read_bytes()[:-1])
    noise = numpy.random.RandomState(0).uniform(-0.5, 0.5, 40_000)
    for suffix, options in (("aiff", {}), ("rf64", {"format": "RF64"}), ("rifx", {"format": "WAV", "endian": "BIG"})):
        path = folder / f"short.{suffix}"
        soundfile.write(path, noise, RATE, **options)
        path.write_bytes(path.read_bytes()[:-100])
    path = folder / "short.flac"
    soundfile.write(path, noise, RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return {
        "text.wav": "LibsndfileError",
        "empty.wav": "LibsndfileError",
        "missing.wav": "No such file",
        "folder.wav": "it is no file",
        "stereo.wav": "its channels is 2; expected 1, as the first file, .*good0.wav; give mono=True",
        "rate.wav": "its rate_hz is 8000; expected 16000, as the first file, .*good0.wav; resample it",
        "short.wav": "it is cut short: it has 8043 bytes; expected 8044",
        "short.aiff": "it is cut short",
        "short.rf64": "it is cut short",
        "short.rifx": "it is cut short",
        "short.flac": "it ends after|LibsndfileError",
    }


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("options", [{}, {"balance": "length"}, {"cut_length": 700}])
def test_a_file_that_fails_harms_no_other(folder, workers, options):
    names = bad_files(folder)
    paths = [folder / f"good{number}.wav" for number in range(4)]
    wanted = [write_wav(path, 900 + 500 * number, seed=number) for number, path in enumerate(paths)]
    bad = [folder / name for name in names]
    files = [bad[0], bad[2], paths[0], *bad[3:6], *paths[1:3], *bad[6:], paths[3], bad[1]]
    dataset = AudioStreamDataset(files, 400, 3, on_error="skip", **options)
    loader = StreamDataLoader(dataset, workers)
    with pytest.warns(RuntimeWarning, match="is skipped"):
        found = joined(loader, len(files))
    for path, want in zip(paths, wanted, strict=True):
        whole = found[files.index(path)]
        assert whole.shape[1] == min(want.shape[1], options.get("cut_length", want.shape[1]))
        assert "cut_length" in options or torch.equal(whole, want)
    told = {files[index].name: text for index, text in loader.skipped.items()}
    if "cut_length" in options:  # a part of it may be whole
        told.setdefault("short.flac", "it ends after")
    assert set(told) == set(names)
    for name, text in told.items():
        assert str(folder / name) in text or name == "short.flac"
    measured = dataset.measure()
    assert [measured[files.index(path)] > 0 for path in paths] == [True] * 4
    assert not any(
        measured[index] for index, file in enumerate(files) if file.name not in ("short.flac", *map(name_of, paths))
    )


def name_of(path):
    return path.name


def test_errors_name_the_file(folder):
    names = bad_files(folder)
    write_wav(folder / "good0.wav", 900)
    for name, text in names.items():
        files = [folder / "good0.wav", folder / name]
        with pytest.raises(StreamReadError, match=f"^stream_failed: stream 1 .*{name}.*({text})") as caught:
            list(StreamDataLoader(AudioStreamDataset(files, 400, 1)))
        assert caught.value.index == 1
        if name == "short.flac":
            continue
        with pytest.raises(StreamReadError, match=f"^stream_failed: stream 1 .*{name}.*its length cannot be read"):
            AudioStreamDataset(files, 400, 1, balance="length")
    deep = folder / ("a" * 100) / ("b" * 100 + ".wav")
    with pytest.raises(StreamReadError, match=f"'{deep}'"):
        list(StreamDataLoader(AudioStreamDataset([deep], 400, 1)))


def test_other_rates_and_channels_where_asked_for(folder):
    files = [folder / "one.wav", folder / "two.wav"]
    write_wav(files[0], 100, 1, rate_hz=8000)
    want = write_wav(files[1], 100, 2, rate_hz=44100)
    with pytest.raises(StreamReadError, match="two.wav.*its rate_hz is 44100; expected 8000, as the first file"):
        list(StreamDataLoader(AudioStreamDataset(files, 50, 2, mono=True)))
    batches = list(StreamDataLoader(AudioStreamDataset(files, 50, 2, mono=True, rate_hz="any")))
    assert torch.equal(torch.cat([batch.data[1] for batch in batches], -1), want.mean(0, keepdim=True))
    with pytest.raises(StreamReadError, match="two.wav.*its channels is 2; expected 1, as the first file"):
        list(StreamDataLoader(AudioStreamDataset(files, 50, 2, rate_hz="any")))
    apart = list(StreamDataLoader(AudioStreamDataset(files, 50, 1, rate_hz="any", channels="any")))
    assert [batch.data.shape[1] for batch in apart] == [1, 1, 2, 2]
    with pytest.raises(StreamReadError, match="^unequal_chunks: "):
        list(StreamDataLoader(AudioStreamDataset(files, 50, 2, rate_hz="any", channels="any")))
    with pytest.raises(StreamReadError, match="one.wav.*its rate_hz is 8000; expected 16000; resample it"):
        list(StreamDataLoader(AudioStreamDataset(files, 50, 1, rate_hz=RATE)))
    with pytest.raises(StreamReadError, match="one.wav.*its channels is 1; expected 2; give mono"):
        list(StreamDataLoader(AudioStreamDataset(files, 50, 1, channels=2)))


@pytest.mark.parametrize("told", [0, 0xFFFFFFFF, 0x7FFFF024])
def test_wav_files_of_programs_that_could_not_go_back(folder, told):
    path = folder / "pipe.wav"
    want = write_wav(path, 1000)
    data = path.read_bytes()
    rest = 0xFFFFFFFF if told else 0
    path.write_bytes(data[:4] + told.to_bytes(4, "little") + data[8:40] + rest.to_bytes(4, "little") + data[44:])
    if not told:
        path.write_bytes(data[:4] + bytes(4) + data[8:])
    (found,) = joined(StreamDataLoader(AudioStreamDataset([path], 300, 1)), 1)
    assert torch.equal(found, want)


def test_what_is_printed(folder):
    files = [folder / "one.wav", folder / "two.wav"]
    for path in files:
        write_wav(path, 100)
    dataset = AudioStreamDataset(files, 50, 2, shuffle=True, rate_hz=RATE)
    assert repr(dataset) == (
        "AudioStreamDataset(2 files, chunk=50, rate_hz=16000, channels=None, batch_size=2, padding_mode='zeros', "
        "shuffle=True, seed=0, epoch=0)"
    )
    with pytest.raises(TypeError, match=r"^unknown_length: .*AudioStreamDataset\(2 files.*; call its \.measure\(\)$"):
        len(StreamDataLoader(dataset))
    dataset.measure()
    assert len(StreamDataLoader(dataset)) == 2
    loader = StreamDataLoader(dataset, 2, joined)
    assert repr(loader) == f"StreamDataLoader({dataset!r}, num_workers=2, collate_fn=joined)"
    assert "4 chunks" in repr(loader)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"chunk": 0}, "invalid_chunk: 0"),
        ({"chunk": 1.5}, "invalid_chunk: 1.5"),
        ({"cut_length": 0}, "invalid_cut_length: 0"),
        ({"dtype": torch.int16}, "invalid_dtype: torch.int16"),
        ({"rate_hz": "16000"}, "invalid_rate_hz: '16000'"),
        ({"rate_hz": 0}, "invalid_rate_hz: 0"),
        ({"channels": True}, "invalid_channels: True"),
        ({}, "invalid_files: no files came"),
    ],
)
def test_wrong_arguments(arguments, text):
    with pytest.raises(StreamInputError, match=f"^{text}"):
        AudioStreamDataset(**{"files": [], "chunk": 10, "batch_size": 1, **arguments})


def test_without_soundfile(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(ImportError, match="^missing_package: soundfile .*pip install soundfile"):
        AudioStreamDataset(["a.wav"], 10, 1)
