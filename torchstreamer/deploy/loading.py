"""Exported files, opened."""

import io
import json
import os
from typing import Any, Union

import torch

from ..errors import StreamFileError, require_packages
from .exported_file import KEY, refusal, sampling_rate, told
from .files import checked_suffix, read_archive
from .native_library import load_library
from .runners import OnnxTensorRunner, PackageRunner

__all__ = ["load"]


def load(path: Union[str, "os.PathLike[str]"], threads: int = 1) -> Any:
    """A runner of an exported stream.

    ``.pt``, ``.pt2`` and ``.so`` files are programs, which run code when they are loaded and called: load them only
    from those you trust, as a checksum is no signature. An ``.onnx`` file is data.

    Every file bears a checksum of all that is in it, which is compared before anything is unpacked or run.

    Args:
        path: a file that `export` wrote
        threads: threads of ONNX Runtime, for ``.onnx``

    Returns:
        of ``.pt`` the scripted stream, with everything that a stream promises, for chunks of any size; of ``.so`` a
        `NativeStream`, for chunks of any size as well; of ``.pt2`` and ``.onnx`` a runner that is called like a stream
        and gathers chunks of any size to the planned one. Its attribute ``metadata`` is what was given to `export`,
        ``sampling_fs`` the samples per second, or ``None``, and ``told`` what the stream was like: the samples of the
        past that an output sees, its handlers and its parameters.

    Raises:
        FileNotFoundError: there is no such file
        StreamFileError: the file is no exported stream, or damaged, or of another suffix than it was written with, or
            a library for another kind of machine
        ModuleNotFoundError: there is no ``onnxruntime``, for ``.onnx``

    Example:
        >>> import os, tempfile, torch, torchstreamer as pts
        >>> net = torch.nn.Conv1d(1, 2, 3)
        >>> path = pts.export(pts.create_stream(net), os.path.join(tempfile.mkdtemp(), "net.pt"))
        >>> x = torch.randn(1, 20)
        >>> torch.testing.assert_close(pts.load(path)(x, final=True), net(x))
    """
    suffix = checked_suffix(path)
    if suffix == ".pt":
        return _load_script(path)
    if suffix == ".pt2":
        return PackageRunner(path)
    if suffix == ".so":
        return load_library(path)
    if suffix == ".onnx":
        require_packages("an .onnx file runs with it", "onnxruntime")
        return OnnxTensorRunner(path, threads)
    raise StreamFileError(
        f"invalid_suffix: {path} came; '.pt', '.pt2', '.onnx' or '.so' was expected; see torchstreamer.export"
    )


def _load_script(path: Union[str, "os.PathLike[str]"]) -> Any:
    data = read_archive(path)
    extra = {KEY: ""}
    try:
        # Parameters made in inference mode have no version, so packed copies of them would be made anew at every call.
        with torch.inference_mode(False):
            script = torch.jit.load(io.BytesIO(data), _extra_files=extra)  # type: ignore[no-untyped-call]
        about = json.loads(extra[KEY])
        if about["version"] != 1 or not isinstance(about["metadata"], dict) or not hasattr(script, "flush"):
            raise ValueError("it holds no stream")
        script.sampling_fs = sampling_rate(about)
        script.told = told(about)
    except Exception as error:  # torch raises anything
        raise StreamFileError(refusal(path, str(error) or type(error).__name__)) from error
    script.metadata = about["metadata"]
    return script
