"""Write a network as a C++ header that `filter_wav.cpp` includes: the network of `stream_speech.py`, of class Filter.

python examples/native/save_filter.py [filter.hpp]
"""

import argparse
import sys
from pathlib import Path

import torchstreamer as pts

sys.path.insert(0, str(Path(__file__).parents[1]))
from stream_speech import build_net


def main() -> None:
    """Export the stream."""
    parser = argparse.ArgumentParser(description="Write a stream as a C++ header.")
    parser.add_argument("output", type=Path, nargs="?", default=Path("filter.hpp"), help="file to write")
    output = parser.parse_args().output
    pts.export(pts.create_stream(build_net()), output, name="Filter", sampling_fs=16000)
    print(f"written {output}")


if __name__ == "__main__":
    main()
