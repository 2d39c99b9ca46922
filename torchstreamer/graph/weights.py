"""Tensors without a time axis: the model's weights and constants, and what is computed from them."""

from typing import Any, Callable, Dict, List, Tuple, Type

import torch
from torch import Tensor, nn

from ..layers.weights import PlainWeight
from .capture import Capture
from .computed import ComputedWeight, KeptValue
from .segment import Body
from .values import Group, Replay, Rows, Span, Static, Value, things_in

__all__ = ["Weights"]


class Weights:
    """Gives static values as tensors and as modules, and computes recipes with them.

    Args:
        capture: the graph
    """

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self._tensors: Dict[Static, Tensor] = {}

    def tensor(self, thing: Static) -> Tensor:
        """The tensor of a static value now, for two rows and the example's static inputs."""
        if thing not in self._tensors:
            if thing.recipe is not None:
                with torch.no_grad():
                    found = self.run(thing.recipe, {})
            elif thing.given:
                found = next(port.example for port in self.capture.inputs if port.name == thing.node.name)
            else:
                found = self.capture.tensors[thing.node.name]
            self._tensors[thing] = found
        return self._tensors[thing]

    def run(self, recipe: Replay, tensors: Dict[Any, Tensor], rows: int = 2) -> Any:
        """Compute a recipe on given tensors of values."""

        def fill(argument: Any) -> Any:
            if isinstance(argument, (Value, Group)):
                if argument not in tensors:
                    assert argument.recipe is not None
                    tensors[argument] = self.run(argument.recipe, tensors, rows)
                return tensors[argument]
            if isinstance(argument, Static):
                return self.tensor(argument)
            if isinstance(argument, Rows):
                return rows * argument.factor
            if isinstance(argument, Span):
                return fill(argument.value).shape[argument.value.time + argument.value.lifted]
            if isinstance(argument, (list, tuple)):
                return [fill(item) for item in argument]
            return argument

        args = [fill(argument) for argument in recipe.args]
        kwargs = {name: fill(argument) for name, argument in recipe.kwargs.items()}
        return (torch.reshape if recipe.target == "reshape" else recipe.target)(*args, **kwargs)

    # ------------------------------------------------------------------ modules

    def body(self, inside: Callable[[Any], bool] = lambda thing: False, kind: Type[Body] = Body) -> Body:
        """An empty body; see `Body`."""
        return kind(self._stored, lambda thing: KeptValue(self.computed(thing)), inside)

    def _stored(self, thing: Static) -> Tuple[Tensor, bool]:
        # With whether it belongs into `state_dict()`.
        persistent = thing.recipe is None and self.capture.paths.get(thing.node.name) in self.capture.net.state_dict()
        return self.tensor(thing), persistent

    def source(self, thing: Static) -> nn.Module:
        """The module that gives a layer's weight: a parameter, a constant, or what is computed from parameters."""
        if thing.recipe is None or not thing.weights:
            return PlainWeight(self.tensor(thing))
        return self.computed(thing)

    def computed(self, thing: Static) -> ComputedWeight:
        """The module that computes a tensor from the model's weights."""
        body = self.body()
        sources: List[Tensor] = []
        self._compute(thing, sources, body)
        return ComputedWeight(body.finish([thing], single=True), sources)

    def _compute(self, thing: Static, sources: List[Tensor], body: Body) -> None:
        # Everything inside is computed in place, weights of weights too.
        if not thing.weights:
            return
        if thing.recipe is None:
            sources.append(self.tensor(thing))
            return
        for inner in things_in([thing.recipe.args, thing.recipe.kwargs]):
            if isinstance(inner, Static):
                self._compute(inner, sources, body)
        body.compute(thing)
