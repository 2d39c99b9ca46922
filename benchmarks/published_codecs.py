"""Whole codecs as published: audio to codes to audio, beside the model offline, and beside the bare matrix products.

EnCodec of 24 kHz with its LSTM at 6 kbit/s and DAC of 44.1 kHz, of transformers; Mimi with 8 codebooks, of moshi,
beside moshi's own streaming. Full size, random weights. The packages are those that published.py installs; for them

python benchmarks/published.py --quick --only "transformers: DAC, encoder" "Mimi of moshi, upsampling"

Codes and audio in pieces are compared with those of the whole, in float32 and float64, before anything is timed.

python benchmarks/published_codecs.py                  # ten minutes and more; writes results/published_codecs.json
python benchmarks/published_codecs.py --only encodec   # one of them
python benchmarks/published_codecs.py --no-compile     # as scripts alone
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from report import write_between_markers
from tables import described, markdown, ratio
from timing import interleave, machine, quartiles
from torch import Tensor, nn

import torchstreamer as pts

HERE = Path(__file__).parent
sys.path[:] = [str(HERE), *(path for path in sys.path if Path(path or ".").resolve() != HERE.resolve())]
import published  # noqa: E402
from published.imports import reach  # noqa: E402

FOLDERS = HERE.parent / ".benchmarks" / "published"
# What is asked for: by the offline cost in long chunks, by the bare matrix products in short ones.
LONG, SHORT = 1.3, 1.3
Codes = Callable[[Tensor], Tensor]


def package(name: str) -> None:
    """Make a package importable."""
    found = next(each for each in published.PACKAGES if each.name == name)
    if not (FOLDERS / name).is_dir():
        raise SystemExit(f"{name} is not installed; python benchmarks/published_codecs.py --help says how")
    reach(FOLDERS / name, found.bare, found.stand_ins)


def encodec() -> tuple[nn.Module, Codes, Codes, Any]:
    """The model, how it encodes and decodes wholes, and our call."""
    package("transformers")
    from transformers import EncodecConfig, EncodecModel

    net = EncodecModel(EncodecConfig()).eval()
    return (
        net,
        lambda x: net.encode(x, bandwidth=6.0, return_dict=False)[0][0],
        lambda codes: net.decode(codes[None], [None], return_dict=False)[0],
        lambda net: pts.models.encodec(net, bandwidth=6.0),
    )


def dac() -> tuple[nn.Module, Codes, Codes, Any]:
    """The same of DAC."""
    package("transformers")
    from transformers import DacConfig, DacModel

    net = DacModel(DacConfig(sampling_rate=44100)).eval()
    return (
        net,
        lambda x: net.encode(x, return_dict=False)[2],
        lambda codes: net.decode(audio_codes=codes, return_dict=False)[0][:, None],
        pts.models.dac,
    )


def mimi() -> tuple[nn.Module, Codes, Codes, Any]:
    """The same of Mimi."""
    package("moshi")
    from moshi.models import loaders

    net = loaders.get_mimi(None).eval()
    net.set_num_codebooks(8)
    return net, net.encode, net.decode, pts.models.mimi


CODECS: dict[str, tuple[str, Any]] = {
    "encodec": ("EnCodec 24 kHz", encodec),
    "dac": ("DAC 44.1 kHz", dac),
    "mimi": ("Mimi", mimi),
}


def random_codebooks(net: nn.Module) -> None:
    """Give codebooks that wait for their training random entries."""
    for name, value in net.named_buffers():
        if name.rpartition(".")[2] in ("embed", "embed_sum", "embedding_sum"):
            value.normal_()


def compared(encode: Codes, decode: Codes, codec: Any, dtype: torch.dtype) -> dict[str, Any]:
    """Codes that differ from those of the whole, of how many, and how far audio is apart, in chunks of 80 ms."""
    fs = int(codec.sample_rate_hz)
    x = 0.1 * torch.randn(1, 1, 4 * fs + 77, dtype=dtype)
    codes = encode(x)
    audio = decode(codes)
    pieces = x.split(fs * 8 // 100, -1)
    found = [codec.encoder(piece, final=i == len(pieces) - 1) for i, piece in enumerate(pieces)]
    ours = torch.cat([each for each in found if each is not None], -1)
    given = [codec.decoder(each, final=i == len(pieces) - 1) for i, each in enumerate(found)]
    y = torch.cat([each for each in given if each is not None], -1)
    if ours.shape != codes.shape or y.shape != audio.shape:
        raise AssertionError(f"codes {tuple(ours.shape)} of {tuple(codes.shape)}, audio {y.shape} of {audio.shape}")
    pieces = [*map(codec.decoder, codes.split(6, -1)), codec.decoder.flush()]
    by_codes = torch.cat([each for each in pieces if each is not None], -1)
    return {
        "codes": codes.numel(),
        "differ": int((ours != codes).sum()),
        "audio": float((by_codes - audio).abs().max() / audio.abs().max()),
    }


def products(net: nn.Module, encode: Codes, decode: Codes, fs: int, chunk: int) -> list[tuple[Tensor, Tensor]]:
    """Pairs of matrices whose products are those of a chunk, of every layer of a model.

    Convolutions are one product each, LSTMs one for the inputs and one for each frame, attention two for each head with
    all 250 keys, codebooks one each. Convolutions of single channels are left out.
    """
    whole = fs * 96 // 100 // chunk * chunk
    found: list[tuple[int, int, int]] = []

    def frames(length: int) -> int:
        return max(1, round(length * chunk / whole))

    def seen(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, nn.Conv1d) and module.groups == 1:
            found.append((module.out_channels, module.in_channels * module.kernel_size[0], frames(output.shape[-1])))
        elif isinstance(module, nn.ConvTranspose1d) and module.groups == 1:
            taps = module.out_channels * module.kernel_size[0]
            found.append((taps, module.in_channels, frames(inputs[0].shape[-1])))
        elif isinstance(module, nn.Linear):
            found.append((module.out_features, module.in_features, frames(inputs[0].shape[-2])))
        elif isinstance(module, nn.LSTM):
            count, gates = frames(inputs[0].shape[0]), 4 * module.hidden_size
            for layer in range(module.num_layers):
                found.append((gates, module.input_size if layer == 0 else module.hidden_size, count))
                found.extend([(gates, module.hidden_size, 1)] * count)
        elif type(module).__name__.endswith("MultiheadAttention"):
            count, size = frames(inputs[0].shape[1]), module.embed_dim // module.num_heads
            found.extend([(250, size, count), (size, 250, count)] * module.num_heads)

    hooks = [module.register_forward_hook(seen) for module in net.modules()]
    try:
        codes = encode(0.1 * torch.randn(1, 1, whole))
        decode(codes)
    finally:
        for hook in hooks:
            hook.remove()
    books = [value for name, value in net.named_buffers() if name.rpartition(".")[2] in ("embed", "embedding_sum")]
    books += [module.weight for module in net.modules() if isinstance(module, nn.Embedding)]
    found += [(*book.shape, frames(codes.shape[-1])) for book in books[: codes.shape[1]]]
    return [(torch.randn(m, k), torch.randn(k, n)) for m, k, n in found]


def measure(name: str, make: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Differences, and seconds per second of audio of every contender."""
    net, encode, decode, call = make()
    random_codebooks(net)
    net.requires_grad_(False)
    begin = time.process_time()
    codec = call(net)
    created = time.process_time() - begin
    print(f"{codec}\nmade in {created:.0f} s", flush=True)
    fs = int(codec.sample_rate_hz)
    differences = {"float32": compared(encode, decode, codec, torch.float32)}
    twin = copy.deepcopy(codec).double()
    net.double()
    differences["float64"] = compared(encode, decode, twin, torch.float64)
    net.float()
    codec = copy.deepcopy(twin).float()
    print(json.dumps(differences), flush=True)
    seconds: dict[str, dict[str, list[float]]] = {}
    for label, ms in (("960", 960), ("80", 80)):
        seconds |= timed(net, encode, decode, codec, label, -(-fs * ms // 1000 // codec.hop) * codec.hop, args)
        told(label, {each: f"{1e3 * quartiles(v)[1]:.1f} ms/s" for each, v in seconds[label].items()})
    return {"name": name, "created_s": created, "differences": differences, "seconds": seconds}


def timed(
    net: Any, encode: Codes, decode: Codes, codec: Any, label: str, chunk: int, args: argparse.Namespace
) -> dict[str, dict[str, list[float]]]:
    """Seconds per second of audio, in chunks of so many samples."""
    fs = int(codec.sample_rate_hz)
    signal, x = 0.1 * torch.randn(1, 1, fs * 96 // 10), 0.1 * torch.randn(1, 1, chunk)
    pairs: dict[str, tuple[Any, Any]] = {"ours": (codec.encoder, codec.decoder)}
    pairs["script"] = (torch.jit.script(codec.encoder), torch.jit.script(codec.decoder))
    if not args.no_compile:
        own = dict(backend=args.backend, autotune=False, time_limit_s=args.time_limit, progress=told)
        parts = ((codec.encoder, chunk), (codec.decoder, chunk // codec.hop))
        encoder, decoder = (pts.compile(part, size, **own) for part, size in parts)
        pairs["compiled"] = encoder, decoder
    contenders: dict[str, Callable[[], Any]] = {
        each: lambda pair=pair: pair[1](pair[0](x)) for each, pair in pairs.items()
    }
    for step in contenders.values():
        for _ in range(4):
            step()
    contenders["offline"] = lambda: decode(encode(signal))
    if label == "80":
        matrices = products(net, encode, decode, fs, chunk)
        outs = [a @ b for a, b in matrices]
        contenders["products"] = lambda: [torch.mm(a, b, out=out) for (a, b), out in zip(matrices, outs, strict=True)]
    found = {label: interleave(contenders, args.rounds, args.span)}
    if label == "80" and hasattr(net, "streaming"):
        best = "compiled" if "compiled" in pairs else "script"
        with net.streaming(1):
            both = {best: contenders[best], "its own": lambda: decode(encode(x))}
            for _ in range(260):  # frames, until its attention sees all that it ever does
                both["its own"]()
                both[best]()
            found["its own"] = interleave(both, args.rounds, args.span)
    return {
        kind: {
            each: [s * fs / (signal.shape[-1] if each == "offline" else chunk) for s in spans]
            for each, spans in times.items()
        }
        for kind, times in found.items()
    }


def told(*at: Any) -> None:
    """Print how far it is."""
    print("  ", *at, flush=True)


def table(cases: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """The figures as markdown."""
    rows = []
    for case in cases:
        long, short, own = case["seconds"]["960"], case["seconds"]["80"], case["seconds"].get("its own", {})
        for each in (name for name in ("ours", "script", "compiled") if name in long):
            rows.append(
                [
                    case["name"],
                    each,
                    f"{1e3 * quartiles(long['offline'])[1]:.0f}",
                    f"{1e3 * quartiles(long[each])[1]:.0f}",
                    ratio(long[each], long["offline"], LONG),
                    f"{1e3 * quartiles(short['products'])[1]:.0f}",
                    f"{1e3 * quartiles(short[each])[1]:.0f}",
                    ratio(short[each], short["products"], SHORT),
                    ratio(own[each], own["its own"], 1) if each in own else "-",
                ]
            )
    columns = [
        "codec",
        "contender",
        "offline",
        "960 ms",
        "by offline",
        "products",
        "80 ms",
        "by products",
        "by its own",
    ]
    text = markdown(described(facts, "ms per second of audio"), columns, rows, 2)
    lines = [text, "| codec | made in, s | codes that differ, float32 | float64 | audio, float32 | float64 |"]
    lines.append("|---|" + "--:|" * 5)
    for case in cases:
        both = [case["differences"][dtype] for dtype in ("float32", "float64")]
        counts = [f"{each['differ']:,} of {each['codes']:,}" for each in both]
        audio = [f"{each['audio']:.1e}" for each in both]
        lines.append(f"| {' | '.join([case['name'], format(case['created_s'], '.0f'), *counts, *audio])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(CODECS))
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds")
    parser.add_argument("--span", type=float, default=0.1, help="seconds per contender and round")
    parser.add_argument("--backend", default="inductor", help="of pts.compile")
    parser.add_argument("--time-limit", type=float, default=120, help="seconds after which no other way is compiled")
    parser.add_argument("--no-compile", action="store_true", help="as scripts alone")
    parser.add_argument("--no-write", action="store_true", help="print only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    facts = {**machine(), "rounds": args.rounds}
    path = HERE / "results" / "published_codecs.json"
    kept = json.loads(path.read_text())["cases"] if path.exists() else []
    cases = {case["name"]: case for case in kept}
    with torch.no_grad():
        for key, (name, make) in CODECS.items():
            if args.only in (None, key):
                cases[name] = measure(name, make, args)
    text = table([cases[name] for name, _ in CODECS.values() if name in cases], facts)
    print("\n" + text)
    if not args.no_write:
        path.write_text(json.dumps({"machine": facts, "cases": list(cases.values())}) + "\n")
        write_between_markers(HERE / "README.md", text, "published-codecs")


if __name__ == "__main__":
    main()
