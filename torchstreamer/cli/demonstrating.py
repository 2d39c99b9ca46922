"""`torchstreamer demo`: a denoiser that can be heard."""

import json
from dataclasses import asdict
from pathlib import Path

from .failing import Code, Failure, blame

__all__ = ["demo_command"]

_GAIN_DB = 5.5


def demo_command(folder: Path, as_json: bool) -> None:
    """Run it; see `app.demo`."""
    with blame(Code.MODEL):
        from ..models.demo import demo

        try:
            report = demo(folder)
        except OSError:
            with blame(Code.OUTPUT):
                raise
    gain = report.si_sdr_after_db - report.si_sdr_before_db
    good = report.exact and gain >= _GAIN_DB
    print(json.dumps({**asdict(report), "ok": good}, default=str) if as_json else report)
    if not good:
        raise Failure(
            Code.CHECK,
            f"demo_failed: a difference of {report.difference:.0e} and a gain of {gain:.1f} dB came; at most 1e-4, and "
            f"at least {_GAIN_DB} dB, were expected; tell the makers",
        )
