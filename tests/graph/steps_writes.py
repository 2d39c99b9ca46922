"""Steps of random models: parts along time that are written in place."""

from typing import Any


def _part(g: Any) -> None:
    """A part of a value changed by what stands there, or by a constant."""
    value = g.pick("bct", "btc")
    if not value or not g.may_write(value):
        return
    v = value.name
    part = g.of(["::2", "1::2", "1::3", ":3", "2:", "0", "-3:", ":-1", "-1", "2:-1"])
    place = f"{v}[:, {part}]" if value.layout == "btc" else f"{v}[..., {part}]"
    g.run(f"{place} {g.of(['= 0', '= -1', '*= 0.5', '*= -1', '+= 1'])}", steady=True)


def _mask(g: Any) -> None:
    value = g.pick("bct")
    if not value:
        return
    v, n = value.name, value.length
    mask = g.let(g.of([f"torch.ones_like({v})", f"torch.ones({n}, dtype={v}.dtype)"]), "k")
    if mask and g.run(f"{mask}[..., {g.of(['::2', '1::2', '2::3', ':2'])}] = {g.of(['-1', '0', '0.5'])}", steady=True):
        g.emit(f"{v} * {mask}", value)


def _shift(g: Any) -> None:
    value = g.pick("bct")
    if not value:
        return
    v, d = value.name, g.int(1, 3)
    copied = g.emit(f"{v}.clone()" if g.flag() else f"torch.zeros_like({v})", value)
    if not copied:
        return
    y = copied.name
    later, earlier = (f"{d}:", f":-{d}") if g.flag() else (f":-{d}", f"{d}:")
    g.run(f"{y}[..., {later}] {g.of(['=', '+=', '-= 0.5 *'])} {v}[..., {earlier}]", steady=True)


def _interleaved(g: Any) -> None:
    value = g.pick("bct")
    if not value or not g.fits(value, 2, 1):
        return
    v, c = value.name, value.channels
    made = g.of(["torch.zeros({s}, dtype={v}.dtype)", "{v}.new_zeros({s})", "torch.empty({s}, dtype={v}.dtype)"])
    new = made.format(v=v, s=f"{v}.shape[0], {c}, 2 * {value.length}")
    whole = g.let(new, "k")
    if not whole or not g.run(f"{whole}[..., {g.of(['::2', '::2'])}] = {v}", steady=True):
        return
    if "empty" in new or g.flag():
        g.run(f"{whole}[..., 1::2] = {g.of([f'-{v}', f'{v}.abs()', '0.25'])}", steady=True)
    g.emit(f"{whole} * 1", value, 2)


WRITES = [_part, _mask, _shift, _interleaved]
