"""Which files are done: a list on the disk that holds whatever ends the program."""

import json
import os
from pathlib import Path
from typing import Any, Dict, Tuple, Union

from ..errors import StreamFileError, StreamStateError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["DoneList"]

_BEGINS = b'{"path": "'


class DoneList:
    """A file with a line of JSON for every file that is done, written when it is and not before.

    A line that the end of the program cut short does not count. Where several machines share the work each writes a
    list of its own, ``PATH.RANK``, and reads all of them; so the number of machines may change.

    Args:
        path: of the list
        shard: rank and number of machines

    Raises:
        StreamFileError: ``invalid_done_list``: a file stands there that is no such list
        StreamStateError: ``in_use``: another process writes to it
    """

    def __init__(self, path: Union[str, Path], shard: Tuple[int, int]) -> None:
        self.path = Path(path) if shard[1] == 1 else Path(f"{path}.{shard[0]}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._lock()
            self.done: Dict[str, Dict[str, Any]] = {}
            for each in [Path(path), *sorted(Path(path).parent.glob(f"{Path(path).name}.*"))]:
                if each == Path(path) or each.suffix[1:].isdigit():
                    self._read(each)
            self._mend()
        except BaseException:
            self.close()
            raise

    def holds(self, path: str) -> bool:
        """Whether a file is done, and has the size that it had."""
        entry = self.done.get(path)
        if entry is None:
            return False
        try:
            return os.path.getsize(path) == entry["bytes"]
        except OSError:
            return True  # gone since

    def add(self, path: str, **about: Any) -> None:
        """Write that a file is done."""
        entry = {"path": path, "bytes": os.path.getsize(path), **about}
        os.write(self._file, (json.dumps(entry) + "\n").encode())
        os.fsync(self._file)
        self.done[path] = entry

    def close(self) -> None:
        """Let others write to it."""
        os.close(self._file)

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StreamStateError(
                f"in_use: another process writes to {self.path}; one at a time was expected; wait for it, or share the "
                "work by shard=(rank, world)"
            ) from error
        except OSError:  # a disk that knows no locks
            pass

    def _mend(self) -> None:
        # What follows the last whole line was being written when the program ended. If not, this is no such list.
        found = self.path.read_bytes()
        whole = found.rfind(b"\n") + 1
        if not _BEGINS.startswith(found[whole:][: len(_BEGINS)]):
            raise _invalid(self.path, found.count(b"\n") + 1, "it has no end")
        os.ftruncate(self._file, whole)

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
            try:
                entry = json.loads(line)
                self.done[entry["path"]] = {"bytes": int(entry["bytes"]), **entry}
            except (ValueError, KeyError, TypeError) as error:
                raise _invalid(path, number, repr(error)) from error


def _invalid(path: Path, number: int, why: str) -> StreamFileError:
    return StreamFileError(
        f"invalid_done_list: line {number} of {path} is none of such a list ({why}); the list of an earlier run, or no "
        "file, was expected; give another path"
    )
