"""`torchstreamer verify`: every rule of the contract."""

import json

from ..testing import VerificationError, verify_stream
from .failing import Code, Failure, blame
from .model import open_factory
from .quantities import shape_of

__all__ = ["verify_command"]


def verify_command(name: str, example: str, capture: bool, script: bool, gradients: bool, as_json: bool) -> None:
    """Verify it; see `app.verify`."""
    shape = shape_of(example)
    if len(shape) != 3:
        raise Failure(Code.USAGE, f"--example {example} came; rows, channels and samples were expected, as 1,1,4000")
    net = open_factory(name)
    with blame(Code.MODEL):
        try:
            report = verify_stream(net, shape, graph=capture, script=script, gradients=gradients)
        except VerificationError as error:
            if as_json:
                told = {"ok": False, "rule": error.rule, "detail": error.detail, "chunking": error.chunking}
                print(json.dumps(told))
            raise Failure(Code.CHECK, str(error)) from error
    if as_json:
        checks = [
            {"rule": check.rule, "name": check.name, "cases": check.cases, "skipped": check.skipped} for check in report
        ]
        print(json.dumps({"ok": True, "checks": checks}))
        return
    print(report)
    print(f"{sum(check.cases for check in report)} cases: every rule holds")
