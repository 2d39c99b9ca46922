"""Read sound files in pieces, several at once, and stream each through a network that goes on from batch to batch.

    python examples/load_audio.py [output.wav]

Needs the package soundfile. The recording of `stream_speech.py` is cut into five files of unequal length. Two processes
read them in chunks of 20 ms, as the three rows of a batch: when a file ends, the next one takes its row. Each row has a
stream of the network; what comes out for a file, joined, is what the network gives on the whole file.
"""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    import soundfile  # type: ignore[import-untyped]
    import torch
    from torch import Tensor, nn

    import torchstreamer as pts

SPEECH = Path(__file__).parent / "speech.wav"
ENDS_S = [0.7, 1.0, 2.3, 2.9, 4.4]  # of the five files, in the recording
CHUNK_MS = 20
ROWS = 3
LIMIT = 1e-5  # of the output's scale


def cut_up(folder: Path) -> tuple[list[Path], int]:
    """The recording in five files, and its rate."""
    samples, rate_hz = soundfile.read(SPEECH, dtype="float32")
    paths, start = [], 0
    for number, end_s in enumerate(ENDS_S):
        end = min(round(end_s * rate_hz), len(samples))
        paths.append(folder / f"part{number}.flac")
        soundfile.write(paths[-1], samples[start:end], rate_hz)
        start = end
    return paths, rate_hz


def main() -> int:
    """Run the example; 1 if what was streamed is not what the network gives on the whole files."""
    parser = argparse.ArgumentParser(description="Stream sound files, several at once, through a network.")
    parser.add_argument("output", type=Path, nargs="?", default=Path("load_audio_out.wav"), help="WAV file to write")
    output = parser.parse_args().output

    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(1, 8, 9, padding=4), nn.GELU(), nn.Conv1d(8, 1, 9, padding=4)).eval()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        paths, rate_hz = cut_up(Path(folder))
        dataset = pts.AudioStreamDataset(paths, rate_hz * CHUNK_MS // 1000, ROWS, balance="length", rate_hz=rate_hz)
        plan = dataset.plan()
        print(f"files               {len(paths)} in {ROWS} rows: {', '.join(map(str, plan.rows))}")
        print(f"batches             {plan.steps} of {CHUNK_MS} ms, {100 * (plan.padding or 0):.0f} % of them padding")

        streams = [pts.create_stream(net) for _ in range(ROWS)]
        pieces: list[list[Tensor]] = [[] for _ in paths]
        for batch in pts.StreamDataLoader(dataset, num_workers=2):
            for row in batch.valid.nonzero()[:, 0].tolist():
                chunk = batch.data[row, :, : batch.lengths[row]]
                y = streams[row](chunk, final=bool(batch.last[row]))
                if y is not None:
                    pieces[batch.ids[row]].append(y)

        difference, joined = 0.0, []
        for path, piece in zip(paths, pieces, strict=True):
            whole = net(torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None, None])[0]
            joined.append(torch.cat(piece, dim=-1))
            if joined[-1].shape != whole.shape:
                difference = float("inf")
            else:
                difference = max(difference, ((joined[-1] - whole).abs().max() / whole.abs().max()).item())
        sound = torch.cat(joined, dim=-1)
        soundfile.write(output, (sound / sound.abs().max())[0].numpy(), rate_hz)

    print(f"output              {sound.shape[-1] / rate_hz:.2f} s, {sound.shape[-1]} samples")
    print(f"largest difference  {difference:.1e} of the output's scale")
    print(f"written             {output}")
    if not difference <= LIMIT:
        print(f"The difference is larger than {LIMIT:.0e}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
