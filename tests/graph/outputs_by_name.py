"""Outputs by name, in the style of transformers: ordered dicts that are dataclasses, known to pytrees by themselves."""

import dataclasses
from collections import OrderedDict
from typing import Any, Optional, Tuple

from torch import Tensor, nn
from torch.utils import _pytree as pytree


class ModelOutput(OrderedDict):
    def __init_subclass__(cls) -> None:
        pytree.register_pytree_node(
            cls,
            lambda output: (list(output.values()), list(output.keys())),
            lambda values, names: cls(**dict(zip(names, values, strict=True))),
            serialized_type_name=f"{cls.__module__}.{cls.__name__}",
        )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is not None:
                self[field.name] = getattr(self, field.name)

    def __getitem__(self, key: Any) -> Any:
        return dict(self.items())[key] if isinstance(key, str) else tuple(self.values())[key]

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)


@dataclasses.dataclass
class EncoderOutput(ModelOutput):
    last_hidden_state: Optional[Tensor] = None
    loss: Optional[Tensor] = None
    hidden_states: Optional[Tuple[Tensor, ...]] = None


class EncoderLayer(nn.Module):
    def __init__(self, size: int, stride: int = 1) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(size)
        self.conv = nn.Conv1d(size, size, 3, stride, padding=1)

    def forward(self, hidden_states: Tensor) -> Tensor:
        normed = self.layer_norm(hidden_states)
        return nn.functional.gelu(self.conv(normed.transpose(1, 2)).transpose(1, 2))


class Encoder(nn.Module):
    """``[B, T]`` to ``[B, T / 2, C]``."""

    def __init__(self, with_loss: bool = True) -> None:
        super().__init__()
        self.with_loss = with_loss
        self.embed = nn.Linear(1, 6)
        self.layers = nn.ModuleList([EncoderLayer(6), EncoderLayer(6, 2), EncoderLayer(6)])

    def forward(self, input_values: Tensor, output_hidden_states: bool = True, return_dict: bool = True) -> Any:
        hidden_states = self.embed(input_values.unsqueeze(-1))
        every = (hidden_states,)
        for layer in self.layers:
            hidden_states = layer(hidden_states)
            every = (*every, hidden_states)
        loss = hidden_states.pow(2).mean() if self.with_loss else None
        if not return_dict:
            return hidden_states, loss, every
        return EncoderOutput(hidden_states, loss, every if output_hidden_states else None)
