"""Objects that hold many tensors as one string of bytes and one tensor: what passes cheaply between processes."""

import io
import pickle
import threading
from typing import Any, Callable, List, Tuple

import torch
from torch import Tensor

__all__ = ["Packed", "pack", "unpack"]

Packed = Tuple[bytes, Tensor]
_ALIGNED = 64  # bytes
_OPENED = threading.local()


class _Packer(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.taken: List[Tuple[int, Tensor]] = []
        self.size = 0

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is Tensor:
            if obj.device.type != "cpu" or obj.layout != torch.strided or obj.requires_grad:
                return NotImplemented
            tensor, restore = obj, _tensor_at
        elif type(obj).__module__ == "numpy" and type(obj).__name__ == "ndarray":
            try:
                tensor, restore = torch.from_numpy(obj.copy()), _array_at
            except (TypeError, ValueError):  # of a type that torch does not know
                return NotImplemented
        else:
            return NotImplemented
        at = self.size
        nbytes = tensor.numel() * tensor.element_size()
        self.taken.append((at, tensor))
        self.size += -(-nbytes // _ALIGNED) * _ALIGNED
        return restore, (at, nbytes, tensor.dtype, tuple(tensor.shape))


def pack(obj: Any) -> Packed:
    """The object without its tensors and arrays, and these side by side in one tensor of bytes.

    Args:
        obj: anything that pickles
    """
    file = io.BytesIO()
    packer = _Packer(file)
    packer.dump(obj)
    memory = torch.empty(packer.size, dtype=torch.uint8)
    for at, tensor in packer.taken:
        nbytes = tensor.numel() * tensor.element_size()
        if nbytes:
            memory[at : at + nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)
    return file.getvalue(), memory


def unpack(packed: Packed) -> Any:
    """The object again; its tensors and arrays are views of the one tensor."""
    text, _OPENED.memory = packed
    try:
        return pickle.loads(text)
    finally:
        del _OPENED.memory


def _tensor_at(at: int, nbytes: int, dtype: torch.dtype, shape: Tuple[int, ...]) -> Tensor:
    memory: Tensor = _OPENED.memory
    if not nbytes:
        return torch.empty(shape, dtype=dtype)
    return memory[at : at + nbytes].view(dtype).view(shape)


def _array_at(at: int, nbytes: int, dtype: torch.dtype, shape: Tuple[int, ...]) -> Any:
    array: Callable[[], Any] = _tensor_at(at, nbytes, dtype, shape).numpy
    return array()
