"""RTNeural's step of a recurrent layer, for what ours is compared with. It is C++, and only headers.

git clone --depth 1 --recurse-submodules https://github.com/jatinchowdhury18/RTNeural .benchmarks/RTNeural
"""

import json
import subprocess
import tempfile
import weakref
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor, nn

__all__ = ["RTNeural"]

HERE = Path(__file__).parent
SOURCE = HERE.parent / ".benchmarks" / "RTNeural"


class RTNeural:
    """The static model of a layer, built with Eigen for this machine, in a process of its own.

    Args:
        net: an `nn.GRU` or `nn.LSTM` of one layer, with as many inputs as hidden values
        x: signal ``[B = 1, C, T]`` that it runs over and over

    Raises:
        ImportError: its source is not at hand
        RuntimeError: it could not be built
    """

    def __init__(self, net: nn.GRU | nn.LSTM, x: Tensor) -> None:
        if not (SOURCE / "RTNeural" / "RTNeural.h").exists():
            raise ImportError(str(__doc__).splitlines()[-1])
        folder = Path(tempfile.mkdtemp(prefix="rtneural-"))
        weights = {name: value.tolist() for name, value in net.state_dict().items()}
        (folder / "layer.json").write_text(json.dumps({**weights, "x": x[0].t().tolist()}))
        eigen = [
            each
            for each in (SOURCE / "modules" / "Eigen", Path("/usr/include/eigen3"))
            if (each / "Eigen/Core").exists()
        ]
        command = ["g++", "-std=c++17", "-O3", "-march=native", "-DNDEBUG", "-w", "-DRTNEURAL_USE_EIGEN=1"]
        command += [
            "-DRTNEURAL_DEFAULT_ALIGNMENT=32",
            "-DEIGEN_STACK_ALLOCATION_LIMIT=0",
            f"-DLAYER={type(net).__name__}",
            f"-DSIZE={net.hidden_size}",
        ]
        command += [f"-I{each}" for each in [SOURCE / "RTNeural", SOURCE, SOURCE / "modules" / "json", *eigen[:1]]]
        built = subprocess.run(
            [*command, str(HERE / "rtneural.cpp"), "-o", str(folder / "layer")], capture_output=True, text=True
        )
        if built.returncode:
            raise RuntimeError(f"RTNeural could not be built: {built.stderr[-2000:]}")
        self.samples = x.shape[-1]
        self.process = subprocess.Popen(
            [str(folder / "layer"), str(folder / "layer.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.close = weakref.finalize(self, _end, self.process, folder)

    def __enter__(self) -> "RTNeural":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def outputs(self) -> Tensor:
        """What it gives for the signal, ``[1, C, T]``."""
        self._say("check")
        return torch.tensor([self._numbers() for _ in range(self.samples)]).t().unsqueeze(0)

    def seconds(self, count: int) -> float:
        """Of a step, over so many."""
        self._say(f"time {count}")
        return self._numbers()[0]

    def tail(self, count: int) -> tuple[float, float]:
        """The 99.9th percentile and the maximum of so many single steps, in seconds."""
        self._say(f"tail {count}")
        high, most = self._numbers()
        return high, most

    def _say(self, command: str) -> None:
        assert self.process.stdin is not None
        print(command, file=self.process.stdin, flush=True)

    def _numbers(self) -> list[float]:
        assert self.process.stdout is not None
        return [float(word) for word in self.process.stdout.readline().split()]


def _end(process: "subprocess.Popen[str]", folder: Path) -> None:
    process.kill()
    process.wait()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
