"""A file that has its name only when it is whole."""

import os
import stat
from pathlib import Path
from typing import Union

__all__ = ["PartFile"]


class PartFile:
    """A place beside a file, its name with ``.part``, to write to until all is there.

    What is no file, as a device or a pipe, is written to itself, and stays.

    Args:
        target: the file, which is replaced when the new one is whole

    Attributes:
        target: the file
        part: where to write
    """

    def __init__(self, target: Union[str, "os.PathLike[str]"]) -> None:
        self.target = Path(os.path.realpath(target))
        try:
            self._plain = stat.S_ISREG(os.stat(self.target).st_mode)
        except OSError:  # there is none yet
            self._plain = True
        self.part = self.target.with_name(self.target.name + ".part") if self._plain else self.target

    def keep(self) -> None:
        """Give the whole file its name; what was written to it is on the disk before, whatever happens then."""
        if self._plain:
            file = os.open(self.part, os.O_RDONLY)
            try:
                os.fsync(file)
            finally:
                os.close(file)
            os.replace(self.part, self.target)

    def drop(self) -> None:
        """Take away what was written."""
        if self._plain:
            self.part.unlink(missing_ok=True)
