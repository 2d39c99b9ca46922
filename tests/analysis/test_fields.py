"""Receptive fields: closed forms, and geometry against experiment."""

import importlib
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from own_handlers import Differences
from torch import nn

import torchstreamer as pts
from torchstreamer import containers
from torchstreamer.analysis import ReceptiveField, field_rule, geometry, infer_dependency_matrix, receptive_field
from torchstreamer.analysis.symbolic import needed_inputs
from torchstreamer.layers.kept_length import KeptLength1d

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


def conv(channels, kernel, **options):
    return nn.Conv1d(channels, channels, kernel, **options)


@pytest.mark.parametrize(
    ("net", "period", "phases"),
    [
        (conv(1, 3), (1, 1), [(0, 2)]),
        (conv(1, 4, padding=1), (1, 1), [(1, 2)]),
        (conv(1, 3, dilation=5, padding=5), (1, 1), [(5, 5)]),
        (conv(1, 4, stride=2, padding=1), (2, 1), [(1, 2)]),
        (conv(1, 2, stride=5), (5, 1), [(0, 1)]),
        (conv(1, 3, padding=1, padding_mode="reflect"), (1, 1), [(1, 1)]),
        (nn.ConvTranspose1d(1, 1, 4, 2, padding=1), (1, 2), [(1, 0), (0, 1)]),
        (nn.ConvTranspose1d(1, 1, 2, 4), (1, 4), [(0, 0), (0, 0), None, None]),
        (nn.ConvTranspose1d(1, 1, 3, 2, dilation=2), (1, 2), [(2, 0), None]),
        (nn.MaxPool1d(3, 2, padding=1), (2, 1), [(1, 1)]),
        (nn.AvgPool1d(4), (4, 1), [(0, 3)]),
        (nn.Upsample(scale_factor=3), (1, 3), [(0, 0)] * 3),
        (nn.Upsample(scale_factor=2, mode="linear"), (1, 2), [(1, 0), (0, 1)]),
        (nn.Upsample(scale_factor=1.5), (2, 3), [(0, 0), (0, 0), (0, 0)]),
        (nn.ZeroPad1d((3, 0)), (1, 1), [(3, -3)]),
        (nn.ReLU(), (1, 1), [(0, 0)]),
        (nn.Sequential(*[conv(1, 3, dilation=2**i) for i in range(5)]), (1, 1), [(0, 62)]),
        (nn.Sequential(conv(1, 4, stride=4), nn.ConvTranspose1d(1, 1, 4, 4)), (4, 4), [(i, 3 - i) for i in range(4)]),
        (pts.Residual1d(conv(1, 5, padding=2)), (1, 1), [(2, 2)]),
        (pts.Parallel1d(conv(1, 3), conv(1, 8)), (1, 1), [(0, 7)]),
    ],
)
def test_closed_forms(net, period, phases):
    field = receptive_field(net)
    assert (field.period, list(field.phases)) == (period, phases)
    assert field.certain
    seen = [phase for phase in phases if phase is not None]
    assert field.left == max(left for left, _ in seen)
    assert field.right == max(right for _, right in seen)
    assert field.size == max(left + right + 1 for left, right in seen)
    measured = receptive_field(net, torch.randn(1, 1, 80), method="measured")
    assert (measured.period, measured.phases) == (field.period, field.phases)


def test_outputs_that_depend_on_nothing():
    # Every third sample of the transposed convolution holds an input, and the pool takes two others.
    net = nn.Sequential(nn.ConvTranspose1d(1, 1, 1, 3, padding=0), nn.ZeroPad1d((1, 0)), nn.AvgPool1d(1, 3)).double()
    assert receptive_field(net).phases == (None,)
    measured = receptive_field(net, torch.randn(1, 1, 40).double(), method="measured")
    assert (measured.period, measured.phases, measured.size) == ((1, 1), (None,), 0)


def random_net(seed):
    """A random stack of all layers with geometry, and what may mix its rates."""
    torch.manual_seed(seed)
    pick = lambda low, high: int(torch.randint(low, high, ()))  # noqa: E731
    layers = []
    for _ in range(pick(1, 5)):
        kind, kernel, stride = pick(0, 8), pick(1, 6), pick(1, 4)
        dilation = pick(1, 4)
        field = (kernel - 1) * dilation + 1
        if kind <= 1:
            layers.append(conv(2, kernel, stride=stride, dilation=dilation, padding=pick(0, field)))
        elif kind == 2:
            padding = pick(0, kernel)
            layers.append(nn.ConvTranspose1d(2, 2, kernel, stride, padding=padding, dilation=dilation))
        elif kind == 3:
            layers.append(nn.MaxPool1d(kernel, stride, padding=pick(0, kernel // 2 + 1), dilation=dilation))
        elif kind == 4:
            layers.append(nn.AvgPool1d(kernel, stride, padding=pick(0, kernel // 2 + 1)))
        elif kind == 5:
            mode = ("nearest", "linear", "nearest-exact")[pick(0, 3)]
            layers.append(nn.Upsample(scale_factor=(2.0, 3.0, 1.5)[pick(0, 3)], mode=mode))
        elif kind == 6:
            layers.append(pts.Residual1d(nn.Sequential(conv(2, kernel, dilation=dilation), nn.Tanh())))
        else:
            layers.append(nn.ReflectionPad1d((pick(0, 4), pick(0, 4))))
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("seed", range(400 if THOROUGH else 60))
def test_geometry_gives_the_matrix_of_random_networks(seed):
    net = random_net(seed)
    stream = pts.create_stream(net)
    n = 60 + seed % 7
    outs = stream.output_length(n, True)
    if outs == 0:
        return
    found = needed_inputs(stream, torch.arange(outs), n)
    lower, upper = infer_dependency_matrix(net, (1, 2, n), time_dim=2, bounds=True)
    # A linear interpolation multiplies the sample behind by 0 where it hits one.
    assert bool((upper >= found).all())
    interpolates = any(isinstance(layer, nn.Upsample) and layer.mode == "linear" for layer in net)
    assert interpolates or torch.equal(upper, found)
    assert bool((found >= lower).all())


@pytest.mark.parametrize("seed", range(200 if THOROUGH else 25))
def test_fields_of_random_networks_are_those_measured(seed):
    net = random_net(1000 + seed)
    stream = pts.create_stream(net)
    if stream.ratio[0] * stream.hop // stream.ratio[1] > 100:
        return
    field = receptive_field(stream)
    measured = receptive_field(net, torch.randn(1, 2, 60).double(), method="measured", longest=480)
    assert measured.period == field.period
    assert measured.phases == field.phases


# ---------------------------------------------------------------------- without bounds, without streams


class Causal(nn.Module):
    """A mean of all that came."""

    def forward(self, x):
        return x.cumsum(-1) / torch.arange(1, x.shape[-1] + 1, device=x.device)


def test_recurrences_are_unbounded():
    net = nn.Sequential(conv(2, 3, padding=1))
    net.append(Causal())
    example = torch.randn(1, 2, 40)
    field = receptive_field(Causal(), example)
    assert field.phases == ((math.inf, 0),) and math.isinf(field.size)
    assert "unbounded back" in str(field)
    measured = receptive_field(net, example, method="measured", longest=80)
    assert measured.phases == ((math.inf, 1),)


class RunningSum(pts.BaseStream):
    """A recurrence of one's own, with a rule that says of all inputs before that they are read."""

    def output_length(self, n: int, final: bool = True) -> int:
        return n


@field_rule(RunningSum)
def _all_before(stream, n, m):
    for k in range(n):
        yield torch.arange(m) - k


class LongFilter(RunningSum):
    """As many taps as a long filter has; none more however long the signal."""


@field_rule(LongFilter)
def _many_before(stream, n, m):
    for k in range(3000):
        yield torch.arange(m) - k


class SparseSum(RunningSum):
    """A recurrence that reads every seventh input."""


@field_rule(SparseSum)
def _some_before(stream, n, m):
    for k in range(0, n, 7):
        yield torch.arange(m) - k


class Echo(RunningSum):
    """Two taps that lie far apart."""


@field_rule(Echo)
def _now_and_then(stream, n, m):
    yield torch.arange(m)
    yield torch.arange(m) - 5000


def test_recurrences_of_ones_own_are_unbounded_at_once():
    assert receptive_field(RunningSum()).phases == ((math.inf, 0),)
    assert receptive_field(SparseSum()).phases == ((math.inf, 0),)
    assert receptive_field(Echo()).phases == ((5000, 0),)


def test_fields_of_several_threads_do_not_disturb_each_other():
    streams = [pts.create_stream(nn.Sequential(conv(1, 3, dilation=1 + i))) for i in range(2)] + [RunningSum()] * 2
    expected = [((0, 2),), ((0, 4),), ((math.inf, 0),), ((math.inf, 0),)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert [field.phases for field in pool.map(receptive_field, streams)] == expected


def test_long_fields_of_ones_own_are_bounded():
    assert receptive_field(LongFilter()).phases == ((2999, 0),)


@pytest.mark.parametrize(
    ("net", "phases"),
    [
        (conv(1, 3, dilation=1500, padding=1500), (1500, 1500)),
        (nn.Sequential(conv(1, 3, dilation=100, padding=100), conv(1, 3, dilation=300, padding=300)), (400, 400)),
        (nn.Sequential(conv(1, 2, dilation=700, padding=700, padding_mode="reflect"), conv(1, 3)), (700, 2)),
        (nn.Sequential(nn.ConstantPad1d((900, 0), 0.0), conv(1, 2, dilation=900)), (900, 0)),
    ],
)
def test_taps_far_apart_do_not_step_over_the_ends(net, phases):
    assert receptive_field(net).phases == (phases,)


class Apart(nn.Module):
    """Two outputs: one of a recurrence, and one that looks far but not for ever; and the positions of samples."""

    def __init__(self):
        super().__init__()
        self.far = conv(1, 2, dilation=1500)

    def forward(self, x):
        return x.cumsum(-1), self.far(x + torch.arange(x.shape[-1]))


def test_what_no_recurrence_is_asked_for_is_bounded():
    stream = pts.create_stream(Apart(), example=torch.randn(1, 1, 4000))
    assert receptive_field(stream, output=0).phases == ((math.inf, 0),)
    assert receptive_field(stream, output=1).phases == ((0, 1500),)


def test_networks_that_cannot_be_streamed_are_measured():
    with pytest.raises(pts.UnsupportedModuleError):
        receptive_field(nn.GroupNorm(1, 2), method="symbolic")
    field = receptive_field(nn.GroupNorm(1, 2), torch.randn(1, 2, 20), longest=40)
    assert field.phases == ((math.inf, math.inf),)
    with pytest.raises(ValueError, match="^no_example"):
        receptive_field(nn.GroupNorm(1, 2))


def test_functions_layouts_and_tokens_are_measured():
    field = receptive_field(lambda x: x[:, 1::2] + x[:, :-1:2], torch.randn(2, 40, 3), time_dim=1)
    assert (field.period, field.phases) == ((2, 1), ((0, 1),))
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(2))
    field = receptive_field(lambda x: net(x).roll(2, 1), torch.randint(0, 9, (1, 30)), output_time_dim=1)
    assert field.phases == ((2, -2),)


class Later(nn.Module):
    def forward(self, x):
        return x.roll(3, -1)


def test_what_streams_take_as_pointwise_is_tried_first():
    for net in (Later(), nn.Sequential(conv(4, 3), Later())):
        with pytest.raises(pts.UnsupportedModuleError, match="^not_pointwise: "):
            receptive_field(net, method="symbolic")
        stream = pts.create_stream(nn.Sequential(nn.Identity(), nn.Identity()))
        stream.streams[1] = pts.Elementwise1dStream(net)  # made by hand
        with pytest.raises(pts.PointwiseError):
            receptive_field(stream)
        with pytest.raises(ValueError, match="^no_example"):
            receptive_field(net)
    assert receptive_field(Later(), torch.randn(1, 1, 40)).phases == ((3, -3),)

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(6, 1))

        def forward(self, x):
            return x * self.scale

    stream = pts.create_stream(nn.Sequential(nn.Conv1d(2, 6, 3), Scaled()))
    state = torch.get_rng_state()
    assert receptive_field(stream).phases == ((0, 2),)
    assert not stream.streams[1].checked and torch.equal(torch.get_rng_state(), state)


def test_scripts_are_measured():
    x = torch.randn(1, 2, 40)
    for net in (conv(2, 5), pts.create_stream(conv(2, 5))):
        script = torch.jit.script(net)
        with pytest.raises(ValueError, match="^no_example"):
            receptive_field(script)
        with pytest.raises(ValueError, match="^method_not_possible"):
            receptive_field(script, x, method="symbolic")
        assert receptive_field(script, x).phases == ((0, 4),)
    assert script(x).shape[-1] == 36  # nothing was left in it


def test_masked_attention_is_not_certain():
    def masked(x):
        n = x.shape[1]
        i = torch.arange(n)
        far = (i[:, None] < i) | (i[:, None] > i + 4)
        return torch.softmax((x @ x.transpose(1, 2)).masked_fill(far, -torch.inf), -1) @ x

    field = receptive_field(masked, torch.randn(1, 40, 6).double(), time_dim=1)
    assert field.phases == ((4, 0),)
    assert not field.certain and "not certain" in str(field)


def test_streams_are_measured_too():
    stream = pts.create_stream(nn.Sequential(conv(2, 3, stride=2), nn.ConvTranspose1d(2, 2, 4, 2)))
    field = receptive_field(stream)
    measured = receptive_field(stream, torch.randn(1, 2, 40), method="measured")
    assert (measured.period, measured.phases) == (field.period, field.phases)


# ---------------------------------------------------------------------- handlers of one's own


def test_a_handler_without_a_rule_is_probed():
    assert receptive_field(Differences()).phases == ((0, 3),)


def test_a_handler_that_raises_without_words_is_refused():
    class Wordless(Differences):
        def differences(self, x):
            raise RuntimeError

    with pytest.raises(ValueError, match=r"no_field_rule: .*cannot be probed \(RuntimeError\)"):
        receptive_field(Wordless())


def test_a_handler_with_a_rule():
    class Ruled(Differences):
        pass

    calls = []

    @field_rule(Ruled)
    def taps(stream, n, m):
        calls.append((n, m))
        yield torch.arange(m)
        yield torch.arange(m) + 3

    assert receptive_field(Ruled()).phases == ((0, 3),)
    assert calls and all(m == n - 3 for n, m in calls)


@pytest.mark.parametrize(
    ("arguments", "error", "code"),
    [
        ((3,), TypeError, "invalid_model"),
        ((nn.ReLU(), None, "guess"), ValueError, "invalid_method"),
        ((lambda x: x, None, "auto"), ValueError, "no_example"),
        ((lambda x: x, torch.zeros(1, 1, 9), "symbolic"), ValueError, "method_not_possible"),
    ],
)
def test_refusals(arguments, error, code):
    net, *more = arguments
    with pytest.raises(error, match=f"^{code}"):
        receptive_field(net, *more[:1], **({"method": more[1]} if len(more) > 1 else {}))


def test_it_prints():
    assert str(ReceptiveField((1, 2), ((1, 0), None))).splitlines() == [
        "receptive field of 2 samples: 1 back, 0 ahead; 2 out for 1 in",
        "  phase 0: 1 back, 0 ahead",
        "  phase 1: no input",
    ]


def test_a_kept_length_has_the_field_of_what_is_inside():
    inside = nn.Sequential(
        nn.Conv1d(1, 4, 8, stride=4, padding=2),
        nn.Conv1d(4, 4, 3, padding=20, dilation=20),
        nn.ConvTranspose1d(4, 1, 8, stride=4, padding=2),
    )
    kept = receptive_field(pts.create_stream(KeptLength1d(inside)))
    alone = receptive_field(pts.create_stream(inside))
    assert (kept.left, kept.right) == (alone.left, alone.right)
    assert kept.left > 80  # further than a short signal would show


def test_every_container_says_what_its_outputs_need():
    # A field that is measured on a short signal instead may miss taps that lie far apart.
    names = ["composite", "contextual", "kept_length", "parallel", "residual", "sequential"]
    assert sorted(path.stem for path in Path(containers.__file__).parent.glob("[!_]*.py")) == names
    modules = [importlib.import_module(f"torchstreamer.containers.{name}") for name in names[2:]]
    kinds = [kind for module in modules for kind in vars(module).values() if isinstance(kind, type)]
    kinds = [k for k in kinds if issubclass(k, pts.BaseStream) and k.__module__.startswith("torchstreamer.containers")]
    found = [kind for kind in kinds if kind.__name__ not in ("CompositeStream", "BoundedStream")]
    assert len(found) >= 4
    assert not [kind for kind in found if not any(base in geometry._needs for base in kind.__mro__)]
