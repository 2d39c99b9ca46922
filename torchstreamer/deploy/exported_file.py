"""What is checked of an exported file before anything in it is used: its seal, and the geometry it tells.

This file imports neither torch nor anything else of this package, so it can be copied to where no torch is, with
`step_runner.py` and `onnx_runner.py`.
"""

import hashlib
import json
import os
import stat
from typing import Any, Dict, List, Optional, Sequence, Tuple

__all__ = [
    "KEY",
    "OPEN",
    "SEAL",
    "check_graph",
    "names_of",
    "parse_geometry",
    "parse_library",
    "possible_row",
    "read_sealed",
    "refusal",
    "sampling_rate",
    "shortest_signal",
    "signals_of",
    "told",
]

# Under this name the geometry stands in the metadata of a file.
KEY = "torchstreamer"
# An exported file ends in a seal and the SHA-256 of all bytes before, in hexadecimal. In an .onnx file the two are one
# more entry of the metadata, as protobuf takes it at the end of a message: tag and length of the entry, of its key, of
# its value.
SEAL = b"\x72\x58\x0a\x14torchstreamer.sha256\x12\x40"

_DIGEST = 64
_MOST = 2**40  # of any number in a geometry
_MOST_BYTES = 2**32  # of all states together, and of a chunk
_DTYPES = {  # bytes, and the name in ONNX
    "bool": (1, "bool"),
    "uint8": (1, "uint8"),
    "int8": (1, "int8"),
    "int16": (2, "int16"),
    "int32": (4, "int32"),
    "int64": (8, "int64"),
    "float16": (2, "float16"),
    "bfloat16": (2, "bfloat16"),
    "float32": (4, "float"),
    "float64": (8, "double"),
    "complex64": (8, "complex64"),
    "complex128": (16, "complex128"),
}

# What a program takes as the length of a signal that goes on: longer than any that ends, also in samples of what is
# made of it.
OPEN = 1 << 61

# The latest sample that a row may have come to in a saved state: what is computed from it overflows nowhere.
_LATEST = 1 << 50


def possible_row(age: int, total: int, left: int, chunk: int, flush_steps: int, length_multiple: int) -> bool:
    """Whether the clocks of a row belong together.

    Args:
        age: steps that the row has done
        total: length of its signal, beyond any number while that goes on
        left: steps until it is free, -1 while its signal goes on
        chunk: samples per step
        flush_steps: steps that the end of a signal takes
        length_multiple: what the length of a signal is a multiple of
    """
    if not 0 <= age <= _LATEST // chunk:
        return False
    if left == -1:
        return total == OPEN
    if left == age == total == 0:  # nothing ever came
        return True
    begun = (age - 1 - (flush_steps - left)) * chunk  # samples before the last step that brought any
    return 0 <= left <= flush_steps and begun >= 0 and begun <= total <= begun + chunk and total % length_multiple == 0


def refusal(path: Any, reason: str) -> str:
    """What is said of a file that cannot be taken."""
    return (
        f"invalid_file: {path} cannot be loaded: {reason}; a file as torchstreamer.export wrote it was expected; "
        "export the stream anew"
    )


def read_sealed(path: Any, seal: bytes, error: Any = ValueError) -> bytes:
    """The bytes of an exported file, after its checksum was found right.

    Args:
        path: the file
        seal: that of its format
        error: what is raised of a file that is not such, or damaged

    Raises:
        FileNotFoundError: there is no such file
    """
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)  # a pipe would never end
        data = b""
        if regular:
            with open(path, "rb") as file:
                data = file.read()
    except FileNotFoundError:
        raise
    except (OSError, ValueError, MemoryError) as reason:
        raise error(refusal(path, f"it cannot be read ({reason})")) from reason
    if not regular:
        raise error(refusal(path, "it is no file"))
    whole = len(data) - _DIGEST
    if whole < len(seal) or data[whole - len(seal) : whole] != seal:
        raise error(refusal(path, "it does not end as files of this format do: it is another's, cut short or renamed"))
    if hashlib.sha256(memoryview(data)[:whole]).hexdigest().encode() != data[whole:]:
        raise error(refusal(path, "its checksum is another: it was damaged or changed"))
    return data


def parse_geometry(text: str) -> Dict[str, Any]:
    """The geometry of a program, from a file's metadata.

    Raises:
        ValueError: it is none, or one of no program that there can be; the message says what is wrong
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its geometry is no JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError("its geometry is no JSON object")
    several = found.get("version") == 2
    for name, good in (_SEVERAL if several else _EXPECTED).items():
        if name not in found or not good(found[name]):
            raise ValueError(f"its geometry has {name!r} as {str(found.get(name))[:80]}")
    sampling_rate(found)
    shortest_signal(found)
    told(found)
    inputs, results = signals_of(found)
    if not _belong(found, inputs, results):
        raise ValueError("its geometry has inputs and outputs that do not belong together")
    if (
        sum(_nbytes([each["shape"], each["dtype"]]) for each in inputs) > _MOST_BYTES
        or sum(map(_nbytes, found["states"].values())) > _MOST_BYTES
    ):
        raise ValueError("its geometry says that a chunk or the state takes more than 4 GiB")
    return found


def parse_library(text: str) -> Dict[str, Any]:
    """What is told of the net in a library.

    Raises:
        ValueError: it is told of no net that there can be; the message says what is wrong
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its geometry is no JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError("its geometry is no JSON object")
    for name, good in _LIBRARY.items():
        if name not in found or not good(found[name]):
            raise ValueError(f"its geometry has {name!r} as {str(found.get(name))[:80]}")
    sampling_rate(found)
    told(found)
    return found


def sampling_rate(about: Dict[str, Any]) -> Optional[int]:
    """Samples per second of the signals that a file is for, in Hz; ``None`` where it does not say.

    Raises:
        ValueError: it says what is none
    """
    rate = about.get("sampling_fs")
    if rate is not None and not _whole(rate, 1):
        raise ValueError(f"its geometry has 'sampling_fs' as {str(rate)[:80]}")
    return rate


def shortest_signal(about: Dict[str, Any]) -> int:
    """Samples of the shortest signal, besides the empty one, for which a program is exact.

    Raises:
        ValueError: it says what is none
    """
    least: int = about.get("min_length", 1)
    if not _whole(least, 1):
        raise ValueError(f"its geometry has 'min_length' as {str(least)[:80]}")
    return least


def told(about: Dict[str, Any]) -> Dict[str, Any]:
    """What a file tells of the stream in it: ``past``, samples or ``"unbounded"``, ``streams`` by kind, ``parameters``.

    Raises:
        ValueError: it tells something else
    """
    found = about.get("told", {})
    if not isinstance(found, dict):
        raise ValueError(f"its geometry has 'told' as {str(found)[:80]}")
    streams, past = found.get("streams", {}), found.get("past")
    counts = isinstance(streams, dict) and all(map(_whole, streams.values()))
    number = type(past) is int or past is None or past == "unbounded"
    if not counts or not number or not _whole(found.get("parameters", 0)):
        raise ValueError(f"its geometry has 'told' as {str(found)[:80]}")
    return found


def signals_of(geometry: Dict[str, Any]) -> Tuple[List[Dict[str, Any]], List[Dict[str, Any]]]:
    """The inputs and the outputs of a program, as lists.

    An input has a ``name``, the ``shape`` of a step, a ``dtype``, an axis of ``time`` (-1: static) and one of ``rows``,
    and a ``rate``, samples per sample of the first one with time. An output has ``time``, ``rows``, ``outputs`` a step,
    a ``lag`` and ``lengths``.
    """
    if geometry["version"] == 2:
        return geometry["inputs"], geometry["results"]
    shape = [geometry["batch"], geometry["channels"], geometry["chunk"]]
    x = {"name": "x", "shape": shape, "dtype": geometry["dtype"], "time": 2, "rows": 0, "rate": [1, 1]}
    y = {name: geometry[name] for name in ("outputs", "lag", "lengths")}
    return [x], [{**y, "time": len(geometry["out_shape"]) + 1, "rows": 0}]


def names_of(geometry: Dict[str, Any]) -> Tuple[List[str], List[str]]:
    """The names of a program's inputs and outputs, without those of its states."""
    if geometry["version"] == 1:
        return ["x", "lengths", "first", "last"], ["y", "start", "stop"]
    inputs, results = signals_of(geometry)
    each = range(len(results))
    given = [*(f"y.{i}" for i in each), *(f"start.{i}" for i in each), *(f"stop.{i}" for i in each)]
    return [*(f"x.{i}" for i in range(len(inputs))), "lengths", "first", "last"], given


def check_graph(geometry: Dict[str, Any], inputs: Sequence[Any], outputs: Sequence[str]) -> None:
    """Refuse a geometry that is not that of the graph.

    Args:
        geometry: of the file
        inputs: of the graph, as ONNX Runtime tells them
        outputs: the names of its outputs

    Raises:
        ValueError: an input or an output is not as the geometry says
    """
    rows = [geometry["batch"]]
    taken, given = names_of(geometry)
    signals = zip(taken, signals_of(geometry)[0], strict=False)
    expected = {
        **{name: [each["shape"], each["dtype"]] for name, each in signals},
        "lengths": [rows, "int64"],
        "first": [rows, "bool"],
        "last": [rows, "bool"],
        **geometry["states"],
    }
    for value in inputs:
        shape, dtype = expected.get(value.name, [None, "bool"])
        if value.shape != shape or value.type != f"tensor({_DTYPES[dtype][1]})":
            raise ValueError(f"its geometry does not know the input {value.name!r} {value.shape} of the graph")
    missing = {*given, *(f"next.{name}" for name in geometry["states"])} - set(outputs)
    if missing:
        raise ValueError(f"the graph does not give {', '.join(sorted(missing))}")


# ------------------------------------------------------------------ inside


def _whole(value: Any, least: int = 0, most: int = _MOST) -> bool:
    return type(value) is int and least <= value <= most


def _shape(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 16 and all(map(_whole, value))


def _state(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and _shape(value[0]) and value[1] in list(_DTYPES)


def _lengths(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 4:
        return False
    values, start, period, rise = value
    good = _whole(start) and _whole(period, 1) and _whole(rise) and isinstance(values, list)
    return good and len(values) == start + period and all(map(_whole, values))


def _input(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {"name", "shape", "dtype", "time", "rows", "rate"}:
        return False
    if not (isinstance(value["name"], str) and _shape(value["shape"]) and value["dtype"] in list(_DTYPES)):
        return False
    rank, rate = len(value["shape"]), value["rate"]
    axes = _whole(value["rows"], 0, rank - 1) and type(value["time"]) is int and -1 <= value["time"] < rank
    return (
        axes
        and value["rows"] != value["time"]
        and isinstance(rate, list)
        and [_whole(n, 1) for n in rate] == [True] * 2
    )


def _result(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {"shape", "time", "rows", "outputs", "lag", "lengths"}:
        return False
    good = (
        _shape(value["shape"]) and _whole(value["outputs"], 1) and _whole(value["lag"]) and _lengths(value["lengths"])
    )
    rank = len(value["shape"]) if good else 0
    return (
        good and all(_whole(value[axis], 0, rank - 1) for axis in ("time", "rows")) and value["time"] != value["rows"]
    )


def _belong(geometry: Dict[str, Any], inputs: List[Dict[str, Any]], results: List[Dict[str, Any]]) -> bool:
    # The sizes that say the same, of programs with several inputs or outputs.
    if geometry["version"] == 1:
        return True
    chunk, batch = geometry["chunk"], geometry["batch"]
    streamed = [each for each in inputs if each["time"] >= 0]
    whole = all(
        chunk * each["rate"][0] == each["shape"][each["time"]] * each["rate"][1] > 0
        and geometry["length_multiple"] % each["rate"][1] == 0
        for each in streamed
    )
    same = all(each["shape"][each["rows"]] == batch for each in inputs)
    return bool(streamed) and streamed[0]["rate"] == [1, 1] and whole and same and bool(results)


def _structure(value: Any, depth: int = 0) -> bool:
    # None, the number of an output, or one of these: {"tuple": […]}, {"list": […]}, {"dict": {name: …}}.
    if value is None or _whole(value, 0, 2**16):
        return True
    if not isinstance(value, dict) or len(value) != 1 or depth > 16:
        return False
    ((kind, parts),) = value.items()
    if kind == "dict":
        return isinstance(parts, dict) and all(_structure(part, depth + 1) for part in parts.values())
    return kind in ("tuple", "list") and isinstance(parts, list) and all(_structure(part, depth + 1) for part in parts)


def _nbytes(state: Any) -> int:
    size = int(_DTYPES[state[1]][0])
    for n in state[0]:
        size *= n
    return size


# What each entry of a geometry must be.
_EXPECTED: Dict[str, Any] = {
    "version": lambda value: type(value) is int and value == 1,
    "chunk": lambda value: _whole(value, 1),
    "batch": lambda value: _whole(value, 1),
    "channels": lambda value: _whole(value, 1),
    "dtype": lambda value: isinstance(value, str) and value in _DTYPES,
    "device": lambda value: isinstance(value, str),
    "outputs": _whole,
    "out_shape": _shape,
    "lag": _whole,
    "flush_steps": lambda value: _whole(value, 0, 2**24),
    "length_multiple": lambda value: _whole(value, 1),
    "hop": lambda value: _whole(value, 1),
    "ratio": lambda value: _shape(value) and len(value) == 2 and value[1] > 0,
    "lengths": _lengths,
    "states": lambda value: isinstance(value, dict) and all(map(_state, value.values())),
    "metadata": lambda value: isinstance(value, dict),
}
_ALONE = ("version", "channels", "dtype", "outputs", "out_shape", "lag", "lengths")
_SEVERAL: Dict[str, Any] = {
    "version": lambda value: type(value) is int and value == 2,
    **{name: good for name, good in _EXPECTED.items() if name not in _ALONE},
    "inputs": lambda value: isinstance(value, list) and 0 < len(value) <= 256 and all(map(_input, value)),
    "results": lambda value: isinstance(value, list) and 0 < len(value) <= 256 and all(map(_result, value)),
    "structure": _structure,
}
_LIBRARY: Dict[str, Any] = {
    **{name: _EXPECTED[name] for name in ("version", "channels", "out_shape", "outputs", "lag", "hop", "ratio")},
    **{name: _EXPECTED[name] for name in ("lengths", "length_multiple", "metadata")},
    "dtype": lambda value: value in ("float32", "float64"),
    "min_length": lambda value: _whole(value, 1),
    "longest": lambda value: type(value) is int and value >= -1,
    "most_at_end": _whole,
    "features": lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
}
