"""Published models as they are: installed, built with random weights, streamed unmodified, compared with themselves.

python benchmarks/published.py                      # all of them, about an hour; goes on where it was stopped
python benchmarks/published.py --only encodec moshi # packages or models whose names hold one of these
python benchmarks/published.py --again              # anew, all that ran on another commit of the library
python benchmarks/published.py --page               # writes the page of the docs from the results alone

Each package is installed from PyPI into a folder of its own under ``.benchmarks/published/``, with nothing that it
depends on but what the list in ``published/`` names. Each model runs in a process of its own, which is ended when it
takes too long or too much memory. Times are of the processor. Several runs may go on at once, and each result names the
commit of the library that it is of.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOLDERS = HERE.parent / ".benchmarks" / "published"
RESULTS = HERE / "results" / "published.json"
# Seconds of processor time and bytes that one model may take. A codec takes 20 s for one `torch.export` alone, twice
# that beside other work on one core, and as much again for its comparisons, script and static rows; the table tells how
# long its stream's making took.
LIMIT_S, LIMIT_BYTES = 180, 6 * 2**30

sys.path[:] = [str(HERE), *(path for path in sys.path if Path(path or ".").resolve() != HERE.resolve())]
import published  # noqa: E402
from published import Model, Package, trial  # noqa: E402
from published.page import PAGE, page  # noqa: E402


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Alone among all runs of this benchmark."""
    with open(FOLDERS / name, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def install(package: Package) -> str:
    """Put a package into its folder, once; what went wrong, or nothing."""
    folder = FOLDERS / package.name
    marker, wanted = folder / "requirements.txt", "\n".join(package.requirements)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--upgrade"]
    with locked(f"{package.name}.lock"):
        if marker.is_file() and marker.read_text() == wanted:
            return ""
        command += ["--target", str(folder), *package.requirements]
        told = subprocess.run(command, capture_output=True, text=True)
        if told.returncode:
            return told.stderr.strip()[-300:]
        marker.write_text(wanted)
    return ""


def fingerprint(package: Package, model: Model) -> str:
    """What a result depends on in the list."""
    text = repr((package.requirements, package.setup, package.bare, package.stand_ins, model.build, model.call()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def commit() -> str:
    """The last commit of the library, with a mark where it was changed since."""
    library = str(HERE.parent / "torchstreamer")
    told = [
        subprocess.run(["git", "-C", str(HERE), *words, "--", library], capture_output=True, text=True).stdout.strip()
        for words in (["log", "-1", "--format=%h"], ["status", "--porcelain"])
    ]
    return told[0] + ("+" if told[1] else "")


def _used(pid: int) -> tuple[float, int]:
    # Seconds of processor time, and bytes.
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
        return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0.0, 0


def run(package: Package, model: Model, quick: bool) -> dict[str, Any]:
    """Try a model in a process of its own, a copy of this one that has loaded torch already, under a watchdog."""
    folder = FOLDERS / f".{os.getpid()}"
    folder.mkdir(exist_ok=True)
    told, log = folder / "told.json", folder / "log.txt"
    told.unlink(missing_ok=True)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _work(package, model, folder, quick)
    begin, over = time.monotonic(), ""
    while not over:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.1)
        seconds, resident = _used(child)
        if seconds > LIMIT_S or time.monotonic() - begin > 10 * LIMIT_S:
            over = f"more than {LIMIT_S} s"
        elif resident > LIMIT_BYTES:
            over = f"more than {LIMIT_BYTES // 2**30} GiB"
    if over:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return {"result": "timeout", "code": over, "reason": over}
    if status or not told.is_file():
        lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
        return {"result": "not built", "code": "not built", "reason": (lines or [f"status {status}"])[-1][:300]}
    return json.loads(told.read_text())


def try_package(package: Package, models: list[Model], mark: dict[str, Any], count: int) -> None:
    """Load a package, try its models one after the other; the process ends here."""
    os.chdir(FOLDERS)
    sys.path.remove(str(HERE))
    trial.load(package, models, FOLDERS / package.name)
    for model in models:
        result = run(package, model, "quick" in mark)
        name = f"{package.name}: {model.name}"
        entry = {"mark": fingerprint(package, model), "forbidden": model.forbidden, **result, **mark}
        results = save({name: entry})
        seconds, told = result.get("creation_s", 0), result.get("reason", "")
        print(f"{len(results)}/{count} {name}: {result['result']} {seconds:.1f} s {told[:150]}", flush=True)
    shutil.rmtree(FOLDERS / f".{os.getpid()}", ignore_errors=True)
    os._exit(0)


def _work(package: Package, model: Model, folder: Path, quick: bool) -> None:
    # What the process of one model does; it never comes back.
    code = 1
    try:
        log = os.open(folder / "log.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        (folder / "told.json").write_text(json.dumps(trial.try_model(package, model, quick)))
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def save(new: dict[str, dict[str, Any]], listed: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Add to the results, one model to a line, and keep those that are listed; all of them come back."""
    with locked("results.lock"):
        results: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        results = {name: result for name, result in (results | new).items() if not listed or name in listed}
        body = ",\n".join(f"{json.dumps(name)}: {json.dumps(result)}" for name, result in sorted(results.items()))
        written = FOLDERS / f"results.{os.getpid()}.json"
        written.write_text("{\n" + body + "\n}\n")
        shutil.move(written, RESULTS)
    return results


def walls(results: dict[str, dict[str, Any]]) -> str:
    """Results and reasons of those that should stream, with counts."""
    due = {name: result for name, result in results.items() if not result["forbidden"]}
    lines = [f"{count:4}  {kind}" for kind, count in Counter(r["result"] for r in due.values()).most_common()]
    codes = Counter(f"{r['result']}: {r['code']}" for r in due.values() if r["result"] != "exact")
    return "\n".join([*lines, "", *(f"{count:4}  {code}" for code, count in codes.most_common())])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="names of packages or models, or parts of them")
    parser.add_argument("--again", action="store_true", help="also those whose result is known")
    parser.add_argument("--failed", action="store_true", help="also those that are not exact and should be")
    parser.add_argument("--quick", action="store_true", help="two lengths, one chunking, no exports")
    parser.add_argument("--page", action="store_true", help="write the page alone")
    args = parser.parse_args()
    FOLDERS.mkdir(parents=True, exist_ok=True)
    listed = [(package, model) for package in published.PACKAGES for model in package.models]
    results = save({}, {f"{package.name}: {model.name}" for package, model in listed})
    mark = {"commit": commit()} | ({"quick": True} if args.quick else {})
    due: dict[str, tuple[Package, list[Model]]] = {}
    for package, model in [] if args.page else listed:
        name = f"{package.name}: {model.name}"
        if args.only and not any(part in name for part in args.only):
            continue
        known = results.get(name)
        fine = known is not None and known["mark"] == fingerprint(package, model) and known["result"] != "not built"
        fine = fine and (args.quick or not known.get("quick"))
        if known is not None and (known.get("commit") != mark["commit"] or known.get("quick")):
            missed = args.failed and known["result"] != "exact" and not model.forbidden
            fine = fine and not args.again and not missed
        if not fine:
            # Two of each package come first, those that cannot be streamed last.
            count = len(due.get(f"0 {id(package)}", (package, []))[1])
            turn = 2 if model.forbidden else int(count >= 2)
            due.setdefault(f"{turn} {id(package)}", (package, []))[1].append(model)
    if due:
        trial.warm_up()
    for _, (package, models) in sorted(due.items(), key=lambda entry: entry[0][0]):
        wrong = install(package)
        if wrong:
            print(f"{package.name} could not be installed: {wrong}", flush=True)
            continue
        # The package is loaded once, in a process of its own, of which that of each model is a copy.
        child = os.fork()
        if child == 0:
            try_package(package, models, mark, len(listed))
        os.waitpid(child, 0)
    results = save({})
    print(walls(results))
    PAGE.write_text(page(published.PACKAGES, results))


if __name__ == "__main__":
    main()
