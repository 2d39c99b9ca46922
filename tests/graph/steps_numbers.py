"""Steps of random models: lengths computed with floats and tensors, checks of values, detours for short signals."""

from typing import Any

from steps_length import _lcm_hop


def rounded_crop(g: Any) -> None:
    """A signal of so many samples as a rounded number says."""
    value = g.pick("bct")
    if not value or not g.fits(value, 3, 2):
        return
    n = value.length
    forms = [
        f"int(math.ceil(3 * {n} / 2))",
        f"torch.ceil(torch.as_tensor(3 * {n} / 2)).long()",
        f"torch.ceil(torch.tensor({value.name}.shape)[-1] * 3 / 2).long().item()",
        f"int({n} * 1.5)",
        f"math.floor({n} / 2 * 3)",
        f"round({n} * 1.5)",
        f"sum(divmod(3 * {n}, 2)) - 3 * {n} % 2",
        f"math.ceil({n} / 2) + {n}",
        f"int(torch.div(torch.tensor(3 * {n}), 2, rounding_mode='floor'))",
    ]
    g.emit(f"F.interpolate({value.name}, scale_factor=2)[..., : {g.of(forms)}]", value, 3, 2)


def valid_padding(g: Any) -> None:
    """Zeros up to a length that layers down and up again leave."""
    value = g.pick("bct")
    depth, stride = g.int(1, 2), g.int(2, 3)
    if not value or _lcm_hop(value, stride**depth) > 48:
        return
    kernel = stride + g.int(0, 3)
    length = f"user_code.valid_length({value.length}, {depth}, {kernel}, {stride}, {g.flag()})"
    new = g.emit(f"F.pad({value.name}, (0, {length} - {value.length}))", value)
    if new:
        new.hop = _lcm_hop(value, stride**depth)


def frame_padding(g: Any) -> None:
    """As codecs pad before a convolution with a stride, of signals that may be shorter than that."""
    value = g.pick("bct")
    stride = g.int(1, 4)
    if not value or _lcm_hop(value, stride) > 48:
        return
    kernel = stride + g.int(0, 4)
    total = kernel - stride
    right = 0 if g.flag() else total // 2
    extra = f"user_code.extra_padding({value.name}, {kernel}, {stride}, {total})"
    if g.flag():
        numbers = ", ".join(g.member(f"nn.Buffer(torch.tensor({number}))") for number in (kernel, stride, total))
        extra = f"user_code.extra_padding_of_tensors({value.name}, {numbers})"
    mode = g.of(["reflect", "reflect", "constant", "replicate"])
    new = g.emit(f"user_code.pad1d({value.name}, ({total - right}, {right} + {extra}), '{mode}')", value)
    if new:
        new.hop = _lcm_hop(value, stride)


def check(g: Any) -> None:
    value = g.pick()
    g.emit(f"user_code.checked({value.name})", value)


def apart(g: Any) -> None:
    value = g.pick()
    g.emit(g.of([f"{value.name}.detach()", f"{value.name}.data * 1.5", f"user_code.quiet({value.name})"]), value)


NUMBERS = [rounded_crop, rounded_crop, valid_padding, frame_padding]
CHECKS = [frame_padding, check, check, apart]
