"""How the list of published models is written down: a package, and the models that it holds."""

from dataclasses import dataclass

__all__ = ["Model", "Package"]


@dataclass(frozen=True)
class Model:
    """A published model in one configuration, with random weights.

    Args:
        name: as the page calls it
        build: statements that leave ``model``, in its eval form
        example: an expression, the input of the model or a tuple of all its inputs, ``[B, …]``. Its length is the
            typical one; other lengths are tried around it
        time_dim: the axis of time, or one for each input; ``None`` for a static input
        options: further arguments of `create_stream`, as they are written
        forbidden: what of the whole signal it needs, by name, as read in its source; empty for a streamable one
        read: where that was read
        step: whole signals that are tried have lengths that differ by multiples of it
        single: whether it computes in float32 whatever comes, so that no more than that can be exact
        minimum: the shortest whole signal that is tried; by default half of the example
        select: which of its outputs, by number; by default all
    """

    name: str
    build: str
    example: str
    time_dim: int | tuple[int | None, ...] = -1
    options: str = ""
    forbidden: str = ""
    read: str = ""
    step: int = 1
    single: bool = False
    minimum: int = 0
    select: int | tuple[int, ...] | None = None

    def call(self) -> str:
        """The call of `create_stream`, to copy."""
        time_dim = "" if self.time_dim == -1 else f", time_dim={self.time_dim}"
        options = f", {self.options}" if self.options else ""
        options += "" if self.select is None else f", select={self.select}"
        return f"stream = pts.create_stream(model, example={self.example}{time_dim}{options})"


@dataclass(frozen=True)
class Package:
    """A published package, and how its models are reached without all that it depends on.

    Args:
        name: of the folder that it is installed into
        requirements: what is installed there, with nothing that it depends on; never torch
        models: what it holds
        setup: statements that come before those of every model
        bare: packages whose ``__init__`` is not run, since it imports what its models do not need
        stand_ins: modules that are imported and not used, for which empty ones stand
    """

    name: str
    requirements: tuple[str, ...]
    models: tuple[Model, ...]
    setup: str = ""
    bare: tuple[str, ...] = ()
    stand_ins: tuple[str, ...] = ()
