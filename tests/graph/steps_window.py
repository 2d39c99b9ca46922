"""Steps of random models: convolution and pooling."""

from typing import Any, Optional

from steps_layout import as_bct, to_bcft


def divisor(g: Any, one: int, other: int) -> int:
    return g.of([d for d in range(1, one + 1) if one % d == 0 and other % d == 0])


def conv(g: Any) -> None:
    value = g.pick()
    source, channels = as_bct(g, value)
    kernel, dilation, stride = g.int(1, 5), g.int(1, 3), g.stride(value)
    out = g.of([2, 3, 4, 6])
    padding: Any = g.of([0, g.int(0, kernel), (kernel - 1) * dilation // 2])
    if stride == 1 and g.rarely():
        padding = g.of(["same", "valid"])
    groups = divisor(g, channels, out)
    arguments = f"stride={stride}, padding={padding!r}, dilation={dilation}, groups={groups}"
    kind = g.int(0, 4)
    if kind < 2:
        mode = g.of(["zeros", "zeros", "reflect", "replicate"])
        bias = g.flag()
        made = f"nn.Conv1d({channels}, {out}, {kernel}, {arguments}, bias={bias}, padding_mode={mode!r})"
        if g.rarely():
            made = f"nn.utils.parametrizations.weight_norm({made})"
        module = g.member(made)
        new = g.emit(f"{module}({source})", value, 1, stride, layout="bct", channels=out, bands=1)
        if new and out == channels and g.rarely():
            g.emit(f"{module}({new.name})", new, 1, stride)  # one module in two places
    elif kind == 2:
        made = f"nn.Conv1d({channels}, {out}, {kernel}, {arguments})"
        parts = [made, g.of(["nn.ReLU()", "nn.GELU()", f"nn.BatchNorm1d({out})", "nn.Tanh()"])]
        if g.flag():
            parts = [g.of(["nn.Identity()", "nn.SiLU()", "nn.Dropout(0.1)"]), *parts]
        module = g.member(f"nn.Sequential({', '.join(parts)})")
        g.emit(f"{module}({source})", value, 1, stride, layout="bct", channels=out, bands=1)
    else:
        weight = g.parameter(out, channels // groups, kernel)
        if g.rarely():
            weight = f"{weight} * torch.sigmoid({g.parameter(out, 1, 1)})"
        bias = g.parameter(out) if g.flag() else "None"
        call = f"F.conv1d({source}, {weight}, {bias}, {arguments})"
        g.emit(call, value, 1, stride, layout="bct", channels=out, bands=1)


def causal_conv(g: Any) -> None:
    """Padding on the left by hand, and a residual sum half of the time."""
    value = g.pick("bct")
    if not value:
        return
    c = value.channels
    kernel, dilation = g.int(2, 4), g.int(1, 3)
    left = (kernel - 1) * dilation
    module = g.member(f"nn.Conv1d({c}, {c}, {kernel}, dilation={dilation})")
    v = value.name
    forms = [
        f"{module}(F.pad({v}, ({left}, 0)))",
        f"{module}(torch.cat([{v}.new_zeros({v}.shape[0], {c}, {left}), {v}], dim=-1))",
        f"F.conv1d({v}, {module}.weight, {module}.bias, padding={left}, dilation={dilation})[..., :-{left}]",
    ]
    source = g.of(forms)
    g.emit(f"{v} + {source}" if g.flag() else source, value)


def transposed(g: Any) -> None:
    value = g.pick()
    source, channels = as_bct(g, value)
    stride, kernel, dilation = g.factor(value), g.int(1, 6), g.of([1, 1, 2])
    out = g.of([2, 3, 4])
    groups = divisor(g, channels, out)
    extra = g.int(0, max(stride, dilation) - 1) if g.rarely() else 0
    padding = g.of([0, g.int(0, 3), max(kernel - stride, 0) // 2])
    arguments = f"stride={stride}, padding={padding}, output_padding={extra}, groups={groups}, dilation={dilation}"
    if g.flag():
        module = g.member(f"nn.ConvTranspose1d({channels}, {out}, {kernel}, {arguments}, bias={g.flag()})")
        call = f"{module}({source})"
    else:
        bias = g.parameter(out) if g.flag() else "None"
        call = f"F.conv_transpose1d({source}, {g.parameter(channels, out // groups, kernel)}, {bias}, {arguments})"
    g.emit(call, value, stride, 1, layout="bct", channels=out, bands=1)


def pool(g: Any) -> None:
    value = g.pick()
    source, channels = as_bct(g, value)
    kernel, stride = g.int(1, 5), g.stride(value)
    padding, ceil = g.int(0, kernel // 2), g.flag()
    arguments = f"{kernel}, stride={stride}, padding={padding}, ceil_mode={ceil}"
    if g.flag():
        arguments += f", count_include_pad={g.flag()}"
        call = g.of([f"F.avg_pool1d({source}, {arguments})", f"{g.member(f'nn.AvgPool1d({arguments})')}({source})"])
    else:
        arguments += f", dilation={g.of([1, 1, 2])}"
        call = g.of([f"F.max_pool1d({source}, {arguments})", f"{g.member(f'nn.MaxPool1d({arguments})')}({source})"])
    g.emit(call, value, 1, stride, layout="bct", channels=channels, bands=1)


def with_bands(g: Any) -> Optional[Any]:
    if g.flag() or not g.pick("bcft"):
        to_bcft(g)
    return g.pick("bcft")


def conv2d(g: Any) -> None:
    value = with_bands(g)
    if not value:
        return
    c, out = value.channels, g.of([1, 2, 3])
    kernel = (g.int(1, 3), g.int(1, 4))
    dilation = (1, g.int(1, 2))
    padding: Any = (g.int(0, 1), g.int(0, kernel[1] - 1))
    stride = (g.int(1, 2), g.stride(value))
    if stride == (1, 1) and g.rarely():
        padding = "same"
    groups = divisor(g, c, out)
    arguments = f"stride={stride}, padding={padding!r}, dilation={dilation}, groups={groups}"
    bands = value.bands if padding == "same" else (value.bands + 2 * padding[0] - kernel[0]) // stride[0] + 1
    if bands < 1:
        return
    if g.flag():
        mode = g.of(["zeros", "zeros", "replicate", "reflect"])
        module = g.member(f"nn.Conv2d({c}, {out}, {kernel}, {arguments}, padding_mode={mode!r}, bias={g.flag()})")
        call = f"{module}({value.name})"
    else:
        call = f"F.conv2d({value.name}, {g.parameter(out, c // groups, *kernel)}, {g.parameter(out)}, {arguments})"
    g.emit(call, value, 1, stride[1], channels=out, bands=bands)


def transposed2d(g: Any) -> None:
    value = with_bands(g)
    if not value or value.bands > 4:
        return
    kernel, stride = (g.int(1, 2), g.int(1, 4)), (g.int(1, 2), g.factor(value))
    padding = (0, g.int(0, 1))
    out = g.of([1, 2])
    module = g.member(f"nn.ConvTranspose2d({value.channels}, {out}, {kernel}, stride={stride}, padding={padding})")
    g.emit(
        f"{module}({value.name})",
        value,
        stride[1],
        1,
        channels=out,
        bands=(value.bands - 1) * stride[0] + kernel[0],
    )


def pool2d(g: Any) -> None:
    value = with_bands(g)
    if not value:
        return
    kernel = (g.int(1, min(2, value.bands)), g.int(1, 4))
    stride = (g.of([1, kernel[0]]), g.stride(value))
    padding = (0, g.int(0, kernel[1] // 2))
    kind = g.of(["avg_pool2d", "max_pool2d"])
    # ceil_mode would round the bands up too.
    call = f"F.{kind}({value.name}, {kernel}, stride={stride}, padding={padding})"
    g.emit(call, value, 1, stride[1], bands=(value.bands - kernel[0]) // stride[0] + 1)
