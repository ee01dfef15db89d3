"""Backward rules: what the record of a run follows, what it leaves untouched, and what it refuses."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.networks.nets import AttentionUnet, BasicUNet, SegResNet
from torch import nn
from torch.nn import functional as F

from hand import Deep, small_image, wrap
from rule_nets import Functional, Modular, back, case_of, gradient
from seglens.core.errors import Cancelled, MissingNeed, NoRule
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine.reach import find_reach
from seglens.engine.resolve import resolve
from seglens.engine.rules import COMPOSITES, Backprop, Rescale, Trace, rectifiers
from seglens.models.tiled import TiledModel

PLAIN = Backprop("gradient")
GUIDED = Backprop("guided")


def noise(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_slices(x):
    """Parts of a tensor are written one after the other, in place and out of views."""
    out = torch.zeros_like(x)
    out[:, :, 1:4] = x[:, :, :3] * 2
    out[:, :, 2].add_(x[:, :, 0])
    out[..., 0] = 7
    part = out.view(-1)
    part[5:9] *= part[0:4].sigmoid()
    return out.permute(0, 1, 3, 2) ** 2


def unfolded(x):
    """Windows that overlap, and a tensor that is stretched."""
    windows = x.unfold(2, 3, 1)
    return (windows * windows.sum(-1, keepdim=True).expand_as(windows)).sum(-1)


def scattered(x):
    out = x.clone()
    out[x > 0.5] = 0
    out.masked_fill_(out < -1, 0.5)
    gathered = torch.gather(out, 2, torch.argsort(x, 2))
    return torch.where(x > 0, gathered, out * 3) + out.flip(2).roll(1, 3).repeat(1, 1, 1, 1)


def chunks(x):
    one, two = torch.chunk(x, 2, 1)
    one = one + two
    return torch.stack([one, two, torch.relu_(two * 1)], 2).amax(2) - F.pad(one, (1, 0))[..., :-1]


def norms(x):
    y = F.layer_norm(x, x.shape[-2:])
    y = F.group_norm(y, 2)
    y = F.instance_norm(y)
    return F.batch_norm(y, torch.zeros(4).double(), torch.ones(4).double() * 2, training=False)


def attends(x):
    q = x.flatten(2).mT
    out = F.scaled_dot_product_attention(q, q * 2, q + 1, scale=0.3)
    return F.gelu(out.mT.reshape(x.shape)) + F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")


def nets():
    torch.manual_seed(0)
    deep = Deep(4, 2).double().eval()
    yield from ((f, f.__name__) for f in (in_slices, unfolded, scattered, chunks, norms, attends))
    yield deep, "deep"


@pytest.mark.parametrize("network", [pytest.param(f, id=name) for f, name in nets()])
def test_without_special_rules_what_comes_back_is_the_gradient(network):
    x = noise(1, 4, 6, 6)
    with torch.no_grad():
        out = network(x.clone())
    start = noise(*out.shape, seed=1)
    torch.testing.assert_close(back(network, x, PLAIN, start)[0], gradient(network, x, start))


@pytest.mark.parametrize(
    "net",
    [
        pytest.param(lambda: BasicUNet(2, 1, 2, (4,) * 6, norm="batch", act=("relu", {"inplace": True})), id="batch"),
        pytest.param(lambda: BasicUNet(3, 1, 2, (4,) * 6), id="instance-3d"),
        pytest.param(lambda: SegResNet(spatial_dims=2, in_channels=1, out_channels=2, init_filters=8), id="segresnet"),
        pytest.param(lambda: AttentionUnet(2, 1, 2, (4, 8, 8), (2, 2)), id="attention-unet"),
    ],
)  # fmt: skip
def test_the_gradient_of_medical_networks_comes_back_exactly(net):
    torch.manual_seed(0)
    network = net().double().eval()
    x = noise(
        1, 1, *(32,) * (3 if isinstance(network, BasicUNet) and network.conv_0.conv_0.conv.weight.ndim == 5 else 2)
    )
    found, wanted = back(network, x, PLAIN)[0], gradient(network, x)
    assert float((found - wanted).abs().max()) <= 1e-10 * float(wanted.abs().max())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", ["guided", "deconvolution"])
def test_a_functional_relu_is_a_module_relu_is_an_in_place_relu(dims, kind):
    functional = Functional(dims).double()
    x = noise(1, 1, *(8,) * dims)
    one, two, three = (back(n, x, Backprop(kind))[0] for n in
                       (functional, Modular(functional, False), Modular(functional, True)))  # fmt: skip
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(one, three)
    plain = gradient(functional, x)
    assert float((one - plain).norm()) > 0.3 * float(plain.norm())


def test_relu_under_other_names_is_still_relu():
    x, weight = noise(1, 2, 5, 5), noise(3, 2, 3, 3, seed=2)
    start = noise(1, 3, 5, 5, seed=3)
    forms = (F.relu, torch.relu_, nn.ReLU(True), lambda z: z.clamp(min=0), lambda z: z.clamp_min(0),
             lambda z: F.threshold(z, 0, 0), lambda z: z.clamp_(min=0))  # fmt: skip
    found = [back(lambda z, f=f: f(F.conv2d(z, weight, padding=1)), x, GUIDED, start)[0] for f in forms]
    for other in found[1:]:
        torch.testing.assert_close(found[0], other)


def put(z, where):
    z = z * 1
    z[where] = 0
    return z


WRITTEN_OUT = {
    "maximum": lambda z: torch.maximum(z, torch.zeros_like(z)), "one zero": lambda z: torch.max(z.new_zeros(()), z),
    "clamp by a tensor": lambda z: z.clamp(min=torch.zeros(1, dtype=z.dtype)),
    "where": lambda z: torch.where(z > 0, z, 0), "where, turned": lambda z: torch.where(z <= 0, torch.zeros_like(z), z),
    "mask": lambda z: z * (z > 0), "mask of floats": lambda z: (z >= 0).to(z) * z, "in place": lambda z: z.mul_(z > 0),
    "filled": lambda z: z.masked_fill(z < 0, 0), "put": lambda z: put(z, z < 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["guided", "deconvolution"])
@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_relu_that_is_written_out_is_still_relu(name, kind):
    net, other = Functional().double(), Functional(act=WRITTEN_OUT[name]).double()
    x = noise(1, 1, 8, 8)
    found, tape = back(other, x, Backprop(kind))
    torch.testing.assert_close(found, back(net, x, Backprop(kind))[0])
    assert not tape.declared


ACTIVATIONS = {
    "silu": (F.silu, lambda z: z * z.sigmoid()), "silu, turned": (F.silu, lambda z: torch.sigmoid(z) * z),
    "gelu": (F.gelu, lambda z: z * (0.5 * (1 + torch.erf(z / 2**0.5)))),
    "leaky": (F.leaky_relu, lambda z: torch.where(z > 0, z, 0.01 * z)),
    "leaky, larger": (F.leaky_relu, lambda z: torch.maximum(0.01 * z, z)),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["guided", "deconvolution"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_other_activations_that_are_written_out_are_declared_and_treated_alike(name, kind):
    theirs, ours = (Functional(act=act).double() for act in ACTIVATIONS[name])
    x = noise(1, 1, 8, 8)
    found, tape = back(ours, x, Backprop(kind))
    torch.testing.assert_close(found, back(theirs, x, Backprop(kind))[0])
    assert "written out" in next(iter(tape.declared))


def test_gates_masks_and_squares_are_no_rectifiers():
    mask = (noise(1, 4, 6, 6, seed=3) > 0).double()
    forms = (lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)), lambda x: x * mask, lambda x: x * x,
             lambda x: x[:, :2] * torch.sigmoid(x[:, 2:]), lambda x: x.exp() * torch.ones_like(x),
             lambda x: x.masked_fill(mask > 0, 0), lambda x: torch.where(mask > 0, x, 0),
             lambda x: torch.maximum(x, x.flip(1)))  # fmt: skip
    for form in forms:
        x = noise(1, 4, 6, 6)
        start = noise(*form(x).shape, seed=2)
        found, tape = back(form, x, GUIDED, start)
        torch.testing.assert_close(found, gradient(form, x, start))
        assert not tape.declared


def test_looking_for_what_is_written_out_takes_each_step_once(monkeypatch):
    asked, root = [], rectifiers._root

    def counted(*given):
        asked.append(given)
        return root(*given)

    def doubled(x):
        for _ in range(12):
            x = x + x
        return x * torch.sigmoid(x)

    monkeypatch.setattr(rectifiers, "_root", counted)
    _, tape = back(doubled, noise(1, 1, 4, 4), GUIDED)
    assert tape.declared
    assert len(asked) < 100


@pytest.mark.parametrize("how", ["script", "trace", "export"])
def test_a_finished_graph_is_followed_like_its_source(how):
    network = Functional().eval()
    x = noise(1, 1, 8, 8).float()
    wanted = {name: back(network, x, rules)[0] for name, rules in _some_rules()}
    if how == "export":
        graph = torch.export.export(network, (x,)).module()
    else:
        graph = torch.jit.trace(network, x)
        buffer = io.BytesIO()
        torch.jit.save(graph if how == "trace" else torch.jit.freeze(graph.eval()), buffer)
        buffer.seek(0)
        graph = torch.jit.load(buffer)
    for _ in range(3):  # TorchScript may fuse what it has seen
        graph(x)
    for name, rules in _some_rules():
        torch.testing.assert_close(back(graph, x, rules)[0], wanted[name])


def _some_rules():
    return [("guided", GUIDED), ("lrp", COMPOSITES["epsilon-plus-flat"]), ("zero", COMPOSITES["lrp-0"])]


def test_an_operation_without_a_rule_is_refused_by_name_and_layer():
    class Prod(nn.Module):
        def forward(self, x):
            return torch.cumprod(x, 2)

    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), Prod(), nn.Conv2d(2, 2, 1))
    case = case_of(net, small_image(), target())
    for rules in (COMPOSITES["epsilon-plus-flat"], Rescale()):
        trace = Trace(case, rules)
        if isinstance(rules, Rescale):
            trace.compare(torch.zeros_like(case.x))
        with pytest.raises(NoRule, match="cumprod") as caught:
            trace.back()
        assert "1" in caught.value.what
        assert "vanilla-gradient" in caught.value.fix
    assert Trace(case, GUIDED).back().values.abs().max() > 0


def by_fourier(x):
    return torch.fft.irfft2(torch.fft.rfft2(x) * 2, s=x.shape[-2:])


def by_pairs(x):
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * 2j).flatten(-2)


@pytest.mark.parametrize(("network", "name"), [(by_fourier, "_fft_c2r|mul"), (by_pairs, "view_as_complex")])
@pytest.mark.parametrize("rules", [PLAIN, GUIDED, COMPOSITES["lrp-0"]], ids=["gradient", "guided", "lrp"])
def test_complex_numbers_are_refused_and_not_taken_for_constants(network, name, rules):
    with pytest.raises(NoRule, match=name):
        back(lambda x: network(x) + x, noise(1, 1, 4, 4), rules)


def test_an_operation_without_a_rule_does_no_harm_where_nothing_comes_back():
    net = Functional()
    x = noise(1, 1, 8, 8).float()
    wanted, _ = back(net, x, COMPOSITES["lrp-0"])

    def also(x):
        torch.cumprod(x, 2)
        return net(x)

    torch.testing.assert_close(back(also, x, COMPOSITES["lrp-0"])[0], wanted)


def test_what_is_computed_out_of_sight_is_refused():
    def network(x):
        out = torch.empty_like(x)
        out.numpy()[...] = x.numpy() * 2
        return out + x

    for rules in (GUIDED, COMPOSITES["lrp-0"]):
        with pytest.raises(NoRule, match="does not tell"):
            back(network, noise(1, 1, 4, 4), rules)


def target(side=24):
    mask = np.zeros((side, side + 3), bool)
    mask[8:12, 9:14] = True
    return Target(1, Painted(mask))


class Noted(nn.Module):
    """A network with hooks of its user, which fails or is cancelled in the first run after it was armed."""

    def __init__(self, then=None):
        super().__init__()
        self.body = Modular(Functional(), inplace=True)
        self.heard = []
        self.handle = self.body.relus[1].register_forward_hook(lambda *_: self.heard.append("forward"))
        self.then, self.armed = then, False

    def forward(self, x):
        x = self.body(x[..., :24])
        if self.armed and self.then is not None:
            self.then()
        return F.pad(x, (0, 3))


def untouched(module):
    kept = {
        name: m for name, m in module.named_modules() if m._forward_hooks or m._forward_pre_hooks or m._backward_hooks
    }
    return (
        list(kept) == ["body.relus.1"]
        and len(kept["body.relus.1"]._forward_hooks) == 1
        and all(r.inplace for r in module.body.relus)
        and not any(p.grad is not None or not p.requires_grad for p in module.parameters())
        and torch.is_grad_enabled()
        and torch.utils._python_dispatch._get_current_dispatch_mode() is None
    )


@pytest.mark.parametrize("how", ["well", "fails", "cancelled"])
@pytest.mark.parametrize("rules", [GUIDED, COMPOSITES["epsilon-plus"], Rescale()], ids=["guided", "lrp", "deeplift"])
def test_hooks_flags_and_modes_are_as_they_were_also_after_errors(how, rules):
    run = Run()

    def fail():
        raise ValueError("a fault in the network")

    module = Noted({"well": None, "fails": fail, "cancelled": run.cancel}[how])
    case = case_of(module, small_image(), target(), run)
    before = [p.clone() for p in module.parameters()]
    module.armed = True

    def ask():
        trace = Trace(case, rules)
        if isinstance(rules, Rescale):
            trace.compare(torch.zeros_like(case.x))
        return trace.back(rows=True)

    if how == "well":
        assert ask().values.abs().max() > 0
    else:
        with pytest.raises(ValueError if how == "fails" else Cancelled):
            ask()
    assert untouched(module)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert module.heard


def test_the_users_image_is_not_overwritten_by_a_network_that_starts_in_place():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(1, 2, 3, padding=1))
    case = case_of(net, small_image(), target())
    before = case.x.clone()
    Trace(case, GUIDED).back()
    assert torch.equal(before, case.x)


@pytest.mark.parametrize("name", [*COMPOSITES, "guided", "deconvolution", "deeplift"])
def test_the_crop_to_the_reach_changes_nothing(name):
    torch.manual_seed(1)
    net = BasicUNet(2, 1, 2, (4, 4, 4, 4, 4, 4), norm="batch").eval()
    image = small_image(side=320)
    mask = np.zeros((320, 323), bool)
    mask[5:11, 40:46] = True

    def asked(run):
        case = case_of(net, image, Target(1, Painted(mask)), run, divisor=16)
        rules = COMPOSITES.get(name)
        if rules is not None and rules.first == "box":
            rules = replace(rules, low=case.x.amin((2, 3), keepdim=True), high=case.x.amax((2, 3), keepdim=True))
        if rules is None:
            rules = Rescale() if name == "deeplift" else Backprop(name)
        if not run.plain:
            assert find_reach(case.model) is not None
        trace = Trace(case, rules)
        if name == "deeplift":
            trace.compare(torch.zeros_like(case.x))
        return trace.back().values

    run = Run()
    fast, plain = asked(run), asked(Run(plain=True))
    assert run.engine["crop"][1][1] < 320
    assert float(plain.abs().max()) > 0
    assert float((fast - plain).abs().max()) <= 2e-5 * float(plain.abs().max())


def test_only_what_passes_a_layer_reaches_the_input_when_asked():
    net = Functional(bias=False)
    case = case_of(net, small_image(), Target(1, Painted(np.ones((24, 27), bool))), divisor=2)
    trace = Trace(case, COMPOSITES["lrp-0"])
    whole = trace.back().values
    # "three" is a cut: everything passes it. "up" is not: the skip goes round it
    came = trace.at("three")
    torch.testing.assert_close(trace.below("three", came).values, whole)
    each = [came * (torch.arange(4) == k).reshape(1, 4, 1, 1) for k in range(4)]
    torch.testing.assert_close(sum(trace.below("three", one).values for one in each), whole)
    came = trace.at("up")
    assert came.shape[1] == 4
    by_up = trace.below("up", came)
    assert float((by_up.values - whole).abs().max()) > 0.1 * float(whole.abs().max())
    assert by_up.start == pytest.approx(by_up.total, rel=1e-4, abs=1e-6)
    with pytest.raises(MissingNeed, match="nowhere"):
        trace.at("nowhere")


def test_rows_follow_the_network_and_layers_that_run_twice_are_told_apart():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.late = nn.Conv2d(3, 2, 1)
            self.mix = nn.Conv2d(3, 3, 3, padding=1)
            self.early = nn.Conv2d(1, 3, 3, padding=1)

        def forward(self, x):
            x = F.relu(self.early(x))
            x = x + F.relu(self.mix(x))
            return self.late(F.relu(self.mix(x)))

    case = case_of(Twice(), small_image(), target())
    flow = Trace(case, COMPOSITES["epsilon-plus"]).back(rows=True)
    names = [row.layer for row in flow.rows]
    assert [n for n in names if ":" not in n] == ["early", "mix (1)", "mix (2)", "late"]
    assert "network: add" in names
    table = flow.table().columns
    assert table["under way"][-1] == pytest.approx(flow.start - flow.rows[-1].leak)
    assert table["under way"][0] == pytest.approx(flow.total, rel=1e-4)
    assert flow.start == pytest.approx(case.clean_score, rel=1e-5)
    assert flow.total + sum(row.leak for row in flow.rows) == pytest.approx(flow.start, rel=1e-4)


def test_a_model_in_tiles_and_one_with_one_logit_are_followed_too():
    net = Functional(classes=1)
    spec = {"divisor": 2, "head": "logits", "classes": ("background", "cell"), "multilabel": True}
    image, goal = small_image(side=64), Target(1, Painted(np.eye(64, 67, dtype=bool)))
    case = case_of(net, image, goal, **spec)
    flow = Trace(case, COMPOSITES["epsilon-plus"]).back(rows=True)
    assert flow.start == pytest.approx(case.clean_score, rel=1e-4)
    tiled = resolve(image, TiledModel(wrap(net, **spec), 32, 8), goal, Run())
    for rules in (GUIDED, COMPOSITES["epsilon-plus"], PLAIN):
        assert Trace(tiled, rules).back().values.abs().max() > 0
    torch.testing.assert_close(Trace(tiled, PLAIN).back().values, tiled.gradient(), rtol=1e-4, atol=1e-8)


def test_no_question_imports_the_compiler():
    """Torch's compiler takes half a second to import, and some operations ask for it by the way."""
    code = (
        "import sys, warnings; warnings.simplefilter('ignore'); sys.path.insert(0, 'tests')\n"
        "from hand import Deep, small_image, wrap\n"
        "import seglens\n"
        "image, model = small_image(side=24), wrap(Deep())\n"
        "for name in ('guided-backprop', 'deep-lift', 'lrp', 'vanilla-gradient', 'seg-grad-cam', 'occlusion'):\n"
        "    seglens.explain(name, image, model, seglens.Target('cell', seglens.Point((9, 9))))\n"
        "heavy = {'sympy', 'torch._dynamo', 'torch._inductor'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
