"""A copy of a model in which modules are replaced by others."""

from typing import Any, Callable, Dict, List, Mapping, Tuple, Type, Union

from torch import nn

from .weights import copy_network

__all__ = ["ReplaceKey", "replace_modules"]

ReplaceKey = Union[Type[nn.Module], str, Callable[[str, nn.Module], bool]]
Maker = Union[nn.Module, Callable[[Any], nn.Module]]

_NORMS = ("WeightNorm", "SpectralNorm")  # hooks that compute a weight of their own module


def replace_modules(model: nn.Module, replacements: Mapping[ReplaceKey, Maker]) -> nn.Module:
    """A copy of a model with modules swapped, to repair what cannot be streamed in a package without forking it.

    Nothing of the model is changed. The copy has weights of its own, the values of which are the model's; so have the
    modules that stand in both. A module that stands in several places is replaced by one module in all of them. A hook
    of a module that is replaced stays with its place: the new module gets it, after its own.

    Args:
        model: the model
        replacements: for what is to be replaced, by what. A key is a type, which means its subclasses too; a path, as
            in ``named_modules()``; or a function ``(path, module) -> bool``. Of several keys that fit the first counts.
            A value is a module, or a function that takes the copied module and gives the new one, which may hold it or
            its weights. What stands inside of a module that is replaced is left as it is

    Returns:
        the copy

    Raises:
        TypeError: a key or a value is none of these, or a function gives no module
        ValueError: a path or a type of which the model has no module, so that nothing would change

    Example:
        >>> import torch, torchstreamer as pts
        >>> class Clip(torch.nn.Module):
        ...     def forward(self, x):
        ...         return x.clamp(-1, 1) if x.abs().max() > 1 else x
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), Clip())
        >>> pts.replace_modules(net, {Clip: lambda clip: torch.nn.Hardtanh(-1, 1)})
        Sequential(
          (0): Conv1d(1, 4, kernel_size=(3,), stride=(1,))
          (1): Hardtanh(min_val=-1, max_val=1)
        )
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"replace_modules got a {type(model).__name__}; a torch.nn.Module was expected; pass a model")
    for key, maker in replacements.items():
        _check(key, maker)
    twin = copy_network(model)
    found, used = _found(twin, list(replacements))
    for key in replacements:
        if key not in used and not (callable(key) and not isinstance(key, type)):
            name = key if isinstance(key, str) else key.__name__
            raise ValueError(
                f"nothing_to_replace: the model has no module {name!r} outside of what is replaced; a path of "
                "named_modules(), or the type of a module in it, was expected; print(model) shows them"
            )
    made = {module: _made(module, path, replacements[key]) for module, (path, key) in found.items()}
    for module in _outside(twin, made):
        for name, child in module._modules.items():
            if child in made:
                module._modules[name] = made[child]
    return made.get(twin, twin)


def _check(key: Any, maker: Any) -> None:
    if isinstance(key, type):
        good = issubclass(key, nn.Module)
    else:
        good = isinstance(key, str) or callable(key)
    if not good or isinstance(key, nn.Module):
        raise TypeError(
            f"replace_modules got {key!r} as a key; a module type, a path, or a function (path, module) -> bool was "
            "expected; pass one"
        )
    of_torch = isinstance(maker, type) and maker.__module__.startswith("torch.nn.")  # takes other arguments
    if of_torch or not (isinstance(maker, nn.Module) or callable(maker)):
        came = f"the type {maker.__name__}" if of_torch else f"a {type(maker).__name__}"
        raise TypeError(
            f"replace_modules got {came} for {key!r}; a module, or a function that takes the old "
            "module and gives the new one, was expected; pass one"
        )


def _found(net: nn.Module, keys: List[Any]) -> Tuple[Dict[nn.Module, Tuple[str, Any]], List[Any]]:
    """The modules that are replaced, by which key, and the keys that fit somewhere."""
    found: Dict[nn.Module, Tuple[str, Any]] = {}
    used: List[Any] = []
    seen: Dict[nn.Module, bool] = {}
    waiting = [("", net)]
    while waiting:
        path, module = waiting.pop()
        key = next((key for key in keys if _fits(key, path, module)), None)
        if key is not None:
            used.append(key)
            found.setdefault(module, (path, key))
        elif module not in seen:
            seen[module] = True
            children = [(f"{path}.{name}" if path else name, c) for name, c in module._modules.items() if c is not None]
            waiting += reversed(children)
        elif any(isinstance(key, str) and key.startswith(f"{path}.") for key in keys):
            # A path through another place of a shared module.
            waiting += [(f"{path}.{name}", child) for name, child in module._modules.items() if child is not None]
    return found, used


def _fits(key: Any, path: str, module: nn.Module) -> bool:
    if isinstance(key, type):
        return isinstance(module, key)
    return key == path if isinstance(key, str) else bool(key(path, module))


def _made(module: nn.Module, path: str, maker: Maker) -> nn.Module:
    new = maker if isinstance(maker, nn.Module) else maker(module)
    if not isinstance(new, nn.Module):
        raise TypeError(
            f"replace_modules got a {type(new).__name__} for '{path}'; a module was expected; let the function return "
            "one"
        )
    if module not in set(new.modules()):  # one that holds the old module runs its hooks
        for hooks in ("_forward_pre_hooks", "_forward_hooks"):
            _move_hooks(module, new, hooks)
    return new if new.training == module.training else new.train(module.training)


def _move_hooks(module: nn.Module, new: nn.Module, name: str) -> None:
    kept = {at: hook for at, hook in getattr(module, name).items() if type(hook).__name__ not in _NORMS}
    getattr(new, name).update(kept)
    for kind in ("with_kwargs", "always_called"):
        flags = getattr(module, f"{name}_{kind}", {})
        getattr(new, f"{name}_{kind}", {}).update({at: flag for at, flag in flags.items() if at in kept})


def _outside(net: nn.Module, made: Mapping[nn.Module, nn.Module]) -> List[nn.Module]:
    """All modules of a network that stand in none that is replaced."""
    found: Dict[nn.Module, None] = {}
    waiting = [net]
    while waiting:
        module = waiting.pop()
        if module not in made and module not in found:
            found[module] = None
            waiting += [child for child in module._modules.values() if child is not None]
    return list(found)
