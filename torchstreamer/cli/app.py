"""The commands and their options; torch is imported when one of them runs."""

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from .failing import debugging

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_MODEL_HELP = (
    "A file that `torchstreamer export` or `pts.export` wrote (.pt, .pt2, .onnx), or package.module:factory: a module, "
    "or a function without arguments that makes one. Its code is run, and so is that of .pt and .pt2 files, which are "
    "programs: take them from those you trust. Pickles are never loaded."
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help=_MODEL_HELP)]
Rate = Annotated[
    Optional[int],
    typer.Option(
        "--rate",
        metavar="HZ",
        min=1,
        help="Samples per second that the model was trained on. Needed where the export does not say; never guessed.",
    ),
]
Example = Annotated[
    Optional[str],
    typer.Option(
        "--example", metavar="B,C,T", help="Shape of an input of a factory's model, for models that must be captured."
    ),
]
Threads = Annotated[Optional[int], typer.Option("--threads", metavar="N", min=1, help="Threads that compute.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Debug = Annotated[bool, typer.Option("--debug", callback=debugging, help="Show the traceback of an error.")]


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version, and end.")] = False,
) -> None:
    """Exact streaming of PyTorch networks: feed a signal in pieces, get what the network gives on the whole.

    Exit codes: 0 done; 1 a check failed; 2 usage; 3 the input cannot be read; 4 the output cannot be written; 5 the
    model is refused, or cannot be loaded; 130 stopped by Ctrl-C.
    """
    if version:
        typer.echo(f"torchstreamer {sys.modules['torchstreamer'].__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command()
def run(
    model: Model,
    input: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A sound file; `-` for raw samples on stdin, see --raw; `device:` or `device:NAME` for a microphone.",
        ),
    ],
    output: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT",
            help="A sound file, whose suffix says the format; `-` for raw samples on stdout; `device:` for a speaker.",
        ),
    ],
    chunk: Annotated[
        str, typer.Option("--chunk", metavar="TIME", help="How much is read at once: a time such as 10ms, or samples.")
    ] = "100ms",
    rate: Rate = None,
    raw: Annotated[
        Optional[str],
        typer.Option(
            "--raw",
            metavar="FORMAT",
            help="What raw samples are: encoding:rate:channels, as s16le:16000:1. Encodings: s16le, s24le, s32le, "
            "f32le, f64le. Without stdin the encoding is enough. It also says what a microphone is asked for.",
        ),
    ] = None,
    subtype: Annotated[
        Optional[str],
        typer.Option(
            "--subtype",
            metavar="NAME",
            help="How samples are stored, as PCM_16 or FLOAT. By default as in the input, or FLOAT.",
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Take what there is of an input that was cut short.")
    ] = False,
    example: Example = None,
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Stream sound through a model.

    Sound of another rate is resampled to the model's and back; a model of one channel gets the channels one by one.
    The output has its name when it is whole, until then it is NAME.part. Ctrl-C ends the signal there: the output is
    valid, and the exit code 130.
    """
    from .run import run_command

    run_command(model, input, output, chunk, rate, raw, subtype, partial, example, threads)


@app.command()
def inspect(
    model: Model,
    rate: Rate = None,
    example: Example = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="List every layer: path, handler, rates, field, state.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Tell what a model takes and gives, when, and what it remembers."""
    from .inspecting import inspect_command

    inspect_command(model, rate, example, layers, json)


@app.command()
def verify(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="package.module:factory, of a network in its eval form; its code is run."),
    ],
    example: Annotated[
        str, typer.Option("--example", metavar="B,C,T", help="Shape of a signal: rows, channels, samples.")
    ],
    capture: Annotated[bool, typer.Option("--capture", help="Capture the network with the example.")] = False,
    script: Annotated[bool, typer.Option("--script/--no-script", help="Whether the stream must script.")] = True,
    gradients: Annotated[
        bool, typer.Option("--gradients/--no-gradients", help="Whether gradients must equal the offline ones.")
    ] = True,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check every rule of the contract on the stream of a network.

    If one is broken the exit code is 1, and the rule and the smallest chunking that shows it are told.
    """
    from .verifying import verify_command

    verify_command(model, example, capture, script, gradients, json)


@app.command()
def bench(
    model: Model,
    chunk: Annotated[
        str, typer.Option("--chunk", metavar="TIME", help="Chunks, between commas: times such as 10ms, or samples.")
    ] = "1ms,10ms,100ms",
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="SECONDS", min=0.01, help="Length of the signal, of noise.")
    ] = 10.0,
    rate: Rate = None,
    example: Example = None,
    threads: Annotated[int, typer.Option("--threads", metavar="N", min=1, help="Threads that compute.")] = 1,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure how long chunks take, and how fast the whole is, against the model on the signal at once."""
    from .benching import bench_command

    bench_command(model, chunk, seconds, rate, example, threads, json)


@app.command()
def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="package.module:factory, of a network; its code is run.")
    ],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT",
            help="The file; its suffix says what: .pt (TorchScript), .pt2 (AOTInductor), .onnx, .hpp or .cpp (C++).",
        ),
    ],
    rate: Rate = None,
    chunk: Annotated[
        Optional[str],
        typer.Option("--chunk", metavar="TIME", help="Of a step: a time, or samples; for .pt2 and .onnx alone."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Rows; for .pt2 and .onnx alone.")] = 1,
    channels: Annotated[
        Optional[int],
        typer.Option("--channels", metavar="N", min=1, help="Of the input, where the model does not say."),
    ] = None,
    example: Example = None,
    debug: Debug = False,
) -> None:
    """Write a model to a file that the other commands take, and that runs without its source."""
    from .exporting import export_command

    export_command(model, output, rate, chunk, batch, channels, example)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the files are written.")] = Path(
        "torchstreamer-demo"
    ),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Hear and see it: a noisy recording, denoised in chunks of 10 ms.

    Writes noisy.wav, denoised.wav and demo.png. The exit code is 1 if the stream is not the same as offline, or the
    recording gains less than 5.5 dB (SI-SDR).
    """
    from .demonstrating import demo_command

    demo_command(folder, json)
