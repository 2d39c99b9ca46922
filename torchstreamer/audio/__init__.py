"""Sound: operations on samples and frames, each with an offline forward and an exact stream."""

__all__: list[str] = []
