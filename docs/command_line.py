"""Writes `command-line.md`: what the program itself says of its commands, between texts that stand here.

python docs/command_line.py
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from torchstreamer.cli.app import app
from torchstreamer.cli.failing import Code

__all__ = ["page"]

PAGE = Path(__file__).parent / "command-line.md"

_HEAD = """\
# The command line

<!-- Written by docs/command_line.py. -->

`torchstreamer` streams sound through a model, says what a model needs and when it answers, checks it, and measures it.
It needs the extra `cli`: from a clone of this project, `pip install -e '.[cli]'`. `python -m torchstreamer` is the same
program.

```console
$ torchstreamer demo
6.9 s of noisy speech, streamed in chunks of 10 ms
SI-SDR -0.1 → 8.9 dB
same as offline: 4e-7
…
wrote noisy.wav, denoised.wav, demo.png in torchstreamer-demo
$ torchstreamer export torchstreamer.models:pretrained_denoiser denoiser.pt
wrote denoiser.pt  1.39 MB, 16000 Hz
$ torchstreamer inspect denoiser.pt
denoiser.pt     TorchScript, float32, 132,545 parameters, 16000 Hz
in [B, 1, T]    out [B, 1, T']   ratio 1/1   hop 160 samples (10 ms)
latency         first sample out after 480 samples (30 ms) in; look-ahead 511 samples (31.9 ms)
remembers       state 41.4 kB per signal
layers          35 streams: 10 Conv1dStream, 9 Pad1dStream, 8 PReLUStream, 1 STFTStream, …
streams in      any chunk
$ torchstreamer run denoiser.pt noisy.wav clean.wav --chunk 10ms
noisy.wav  44100 Hz, 2 channels, 3:12   resampled to 16000 and back, channels one by one
3:12  …× real time  p99 … ms per 10 ms chunk      wrote clean.wav
```

## A model

- A file that `torchstreamer export` or [`pts.export`](deploy.md) wrote. `.pt` and `.pt2` files are programs that run
  when they are loaded: take them from those you trust. An `.onnx` file is data.
- `package.module:factory`: a module, or a function without arguments that makes one, found from the folder you are in.
  Its code is run. Weights of yours are loaded in there, best with `torch.load(…, weights_only=True)`.

A pickle, as `torch.save(net)` writes it, is never loaded.

Sound is resampled to the rate that the model works at and back. The rate stands in the file (`export --rate`,
`pts.export(…, sampling_fs=16000)`), or is the attribute `sampling_fs` of a factory's module; otherwise `--rate` says
it. It is never guessed.

## Sound

A sound file is read in blocks and written while it is made, so that hours of it take no more memory than a minute. The
output has its name when it is whole, until then it is `clean.wav.part`. A file that was cut short is refused, unless
`--partial` takes what there is. Ctrl-C ends the signal there: the rest of the output is written, the file is whole, and
the exit code 130. A second Ctrl-C ends the program at once.

`-` is raw samples, which `--raw` tells of:

```sh
ffmpeg -i talk.mp4 -f s16le -ar 48000 -ac 1 - |
    torchstreamer run denoiser.pt - - --raw s16le:48000:1 | aplay -f S16_LE -r 48000
```

`device:` is the microphone, or the speaker, by the package `sounddevice`.

## Exit codes

| code | |
|---|---|
"""

_MEANING = {
    Code.DONE: "done",
    Code.CHECK: "a check failed: `verify` found a rule broken, `demo` stayed below its bar",
    Code.USAGE: "usage: an option is wrong or missing, such as the rate",
    Code.INPUT: "the input cannot be read: missing, no sound, cut short",
    Code.OUTPUT: "the output cannot be written: no such folder, the disk is full, nobody reads the pipe",
    Code.MODEL: "the model is refused, cannot be loaded, or fails on the signal",
    Code.STOPPED: "stopped by Ctrl-C; the output is whole up to there",
}

_TAIL = """
An error is one line on stderr, `error: what came; what was expected; what to do`; `--debug` shows its traceback.
"""


def page() -> str:
    """The text of the page."""
    from typer.main import get_command

    parts = [_HEAD + "".join(f"| {int(code)} | {text} |\n" for code, text in _MEANING.items()) + _TAIL]
    commands: Any = get_command(app)
    for name, command in commands.commands.items():
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        options = [each for each in command.params if each.param_type_name == "option"]
        usage = " ".join(["torchstreamer", name, *(_named(each) for each in arguments)])
        text = " ".join(command.help.split("\n")).replace("  ", "\n\n")
        rows = [f"| `{_named(each)}` | {_told(each)} |\n" for each in (*arguments, *options)]
        parts.append(f"\n## {name}\n\n```sh\n{usage}\n```\n\n{text}\n\n| | |\n|---|---|\n{''.join(rows)}")
    return "".join(parts)


def _named(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar if parameter.required else f"[{parameter.metavar}]")
    names = ", ".join((*parameter.opts, *parameter.secondary_opts))
    return names if parameter.is_flag else f"{names} {parameter.metavar}"


def _told(parameter: Any) -> str:
    text = parameter.help.replace("|", "\\|")
    flag = getattr(parameter, "is_flag", False)
    if parameter.default is None or flag or parameter.required:
        return text if not parameter.required or parameter.param_type_name == "argument" else f"{text} Needed."
    return f"{text} By default `{parameter.default}`."


if __name__ == "__main__":
    PAGE.write_text(page())
