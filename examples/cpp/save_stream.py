"""Keep a stream as a file that `stream_wav` reads: the network of `stream_speech.py`, scripted.

python examples/cpp/save_stream.py [stream.pt]
"""

import argparse
import sys
import warnings
from pathlib import Path

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")  # not needed here
    import torch

    import torchstreamer as pts

sys.path.insert(0, str(Path(__file__).parents[1]))
from stream_speech import build_net


def main() -> None:
    """Script the stream and save it."""
    parser = argparse.ArgumentParser(description="Keep a scripted stream as a file.")
    parser.add_argument("output", type=Path, nargs="?", default=Path("stream.pt"), help="file to write")
    output = parser.parse_args().output
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit")
        torch.jit.save(torch.jit.script(pts.create_stream(build_net())), output)
    print(f"written {output}")


if __name__ == "__main__":
    main()
