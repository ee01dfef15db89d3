"""Recording attention: the weights and gradients of the formula, from any way of writing it, and no trace left."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

import seglens
from attending import PATCH, Given, random_matrices
from hand import Attending, Context, wrap
from seglens.core.errors import Cancelled, MissingNeed, OutOfMemory
from seglens.core.run import Run
from seglens.engine import tokens as tokens_module
from seglens.engine.attention import attentions
from seglens.engine.tokens import Tokens, find_tokens, grids
from seglens.models.nets.segmenter import Segmenter
from seglens.models.tiled import TiledModel
from seglens.models.trust import Trust

X = torch.rand(1, 1, 16, 24, generator=torch.Generator().manual_seed(5))  # 4 × 6 patches


@pytest.fixture(autouse=True)
def nothing_is_remembered(monkeypatch):
    monkeypatch.setattr(tokens_module, "_KNOWN", {})


def keep(weights, gradient=None):
    """Everything: the weights, and behind them their gradient."""
    return weights if gradient is None else torch.stack([weights, gradient])


class Around(nn.Module):
    """Patches as tokens, something that mixes them, and a linear head; the mixing is given tokens (N, T, 8)."""

    def __init__(self, mix, *, before=0, behind=0, order=None, patch=(PATCH, PATCH)):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.head = nn.Conv2d(1, 8, patch, patch), nn.Conv2d(8, 2, 1)
        self.mix = mix
        self.extra = nn.Parameter(torch.randn(before + behind, 8))
        self.before, self.order = before, order

    def forward(self, x):
        grid = self.patches(x)
        tokens = grid.flatten(2).transpose(1, 2)
        if self.order is not None:
            tokens = tokens[:, self.order]
        extra = self.extra.expand(len(x), -1, -1)
        tokens = self.mix(torch.cat([extra[:, : self.before], tokens, extra[:, self.before :]], 1))
        tokens = tokens[:, self.before : self.before + grid[0, 0].numel()]
        if self.order is not None:
            tokens = tokens[:, self.order.argsort()]
        return F.interpolate(self.head(tokens.transpose(1, 2).reshape(grid.shape)), x.shape[2:])


class Explicit(nn.Module):
    """Attention by hand, with whatever stands between softmax and product."""

    def __init__(self, heads=2, between=lambda w: w, product=torch.matmul, softmax=lambda z: z.softmax(-1)):
        super().__init__()
        torch.manual_seed(1)
        self.qkv, self.heads, self.between, self.product = nn.Linear(8, 24), heads, between, product
        self.softmax = softmax

    def parts(self, tokens):
        return self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def weights(self, tokens):
        query, key, _ = self.parts(tokens)
        return self.softmax(query @ key.transpose(2, 3) / math.sqrt(query.shape[-1]))

    def forward(self, tokens):
        read = self.product(self.between(self.weights(tokens)), self.parts(tokens)[2])
        return tokens + read.transpose(1, 2).flatten(2)


class Scaled(Explicit):
    """The same by torch's function, with its options."""

    def __init__(self, **options):
        super().__init__()
        self.options = options

    def weights(self, tokens):
        query, key, _ = self.parts(tokens)
        count = tokens.shape[1]
        logits = query @ key.transpose(2, 3) * self.options.get("scale", 1 / math.sqrt(query.shape[-1]))
        mask = self.options.get("attn_mask")
        if self.options.get("is_causal"):
            mask = torch.ones(count, count, dtype=torch.bool).tril()
        if mask is not None:
            logits = logits.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else logits + mask
        return logits.softmax(-1)

    def forward(self, tokens):
        read = F.scaled_dot_product_attention(*self.parts(tokens), **self.options)
        return tokens + read.transpose(1, 2).flatten(2)


class Multi(nn.Module):
    """``nn.MultiheadAttention`` on the tokens."""

    def __init__(self, given=None, **options):
        super().__init__()
        torch.manual_seed(1)
        self.attention = nn.MultiheadAttention(8, 2, **options)
        self.given = given or {}

    def forward(self, tokens):
        first = self.attention.batch_first
        turned = tokens if first else tokens.transpose(0, 1)
        read, self.told = self.attention(turned, turned, turned, **self.given)
        return tokens + (read if first else read.transpose(0, 1))


def tokens_of(net):
    with torch.no_grad():
        return net.patches(X).flatten(2).transpose(1, 2)


@pytest.mark.parametrize(
    "mix",
    [
        Scaled(),
        Scaled(scale=0.7),
        Scaled(is_causal=True),
        Scaled(attn_mask=torch.eye(24, dtype=torch.bool).roll(1, 0) | torch.eye(24, dtype=torch.bool)),
        Scaled(attn_mask=torch.linspace(-2, 2, 576).reshape(24, 24)),
        Explicit(),
        Explicit(between=nn.Dropout(0.5)),
        Explicit(between=lambda w: w.to(torch.float64).to(torch.float32).contiguous()),
        Explicit(product=lambda w, v: w @ v, softmax=nn.Softmax(dim=3)),
        Explicit(softmax=lambda z: torch.softmax(input=z, dim=-1)),
        Explicit(softmax=lambda z: F.softmax(z, 3, dtype=torch.float32)),
        Explicit(product=lambda w, v: torch.einsum("bhxy,bhyd->bhxd", w, v)),
        Explicit(product=lambda w, v: torch.bmm(w.flatten(0, 1), v.flatten(0, 1)).unflatten(0, (1, 2))),
        Explicit(product=lambda w, v: (v.transpose(2, 3) @ w.permute(0, 1, 3, 2)).transpose(2, 3)),
    ],
)
def test_weights_are_those_of_the_formula_and_the_network_answers_as_before(mix):
    net = Around(mix).eval()
    with torch.no_grad():
        wanted = mix.weights(tokens_of(net))[0]
        clean = net(X)
    heard = []
    model = wrap(net)
    net.register_forward_hook(lambda _, __, out: heard.append(out))
    (one,) = attentions(model, X, Run(), keep)
    torch.testing.assert_close(one.matrix, wanted)
    torch.testing.assert_close(one.matrix.sum(-1), torch.ones(2, 24))
    assert (one.heads, one.tokens) == (2, 24)
    torch.testing.assert_close(heard[0], clean)


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"batch_first": True}, {}),
        ({"batch_first": False}, {"need_weights": False}),
        ({"batch_first": True, "bias": False}, {"average_attn_weights": False}),
        ({"batch_first": True, "kdim": 8, "vdim": 8}, {"need_weights": False}),
        ({"batch_first": True, "dropout": 0.3}, {}),
        ({"batch_first": True}, {"attn_mask": torch.linspace(-2, 2, 576).reshape(24, 24)}),
        ({"batch_first": True}, {"key_padding_mask": torch.arange(24)[None] > 20, "need_weights": False}),
    ],
)
def test_multihead_attention_tells_its_own_weights_and_answers_as_before(options, given):
    mix = Multi(given, **options)
    if options.get("kdim"):
        # equal sizes are packed anyway; the separate matrices are asked for by force
        mix.attention = nn.MultiheadAttention(8, 2, kdim=8, vdim=8, batch_first=True)
        mix.attention._qkv_same_embed_dim = False
        for part in "qkv":
            setattr(mix.attention, f"{part}_proj_weight", nn.Parameter(torch.randn(8, 8)))
    net = Around(mix).eval()
    with torch.no_grad():
        clean, told = net(X), mix.told
        every = tokens_of(net) if options.get("batch_first") else tokens_of(net).transpose(0, 1)
        full = {**given, "need_weights": True, "average_attn_weights": False}
        wanted = mix.attention(every, every, every, **full)[1][0]
    heard = []
    net.register_forward_hook(lambda _, __, out: heard.append(out))
    (one,) = attentions(wrap(net), X, Run(), keep)
    torch.testing.assert_close(one.matrix, wanted)
    torch.testing.assert_close(heard[0], clean)
    if told is None:
        assert mix.told is None
    else:
        torch.testing.assert_close(mix.told, told)


def test_encoder_layers_of_torch_are_read_with_gradients_and_without():
    """They would take a fused way in which no weights exist."""
    torch.manual_seed(2)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = Around(nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)).eval()
    plain = attentions(wrap(net), X, Run(), keep)
    asked = attentions(wrap(net), X, Run(), keep, lambda z: z[:, 1].sum((1, 2)))
    assert len(plain) == len(asked) == 3
    for one, two in zip(plain, asked, strict=True):
        torch.testing.assert_close(one.matrix, two.matrix[0])
        assert bool((two.matrix[1] != 0).any())


def test_grouped_queries_read_the_keys_of_their_group():
    class Grouped(nn.Module):
        def forward(self, tokens):
            query = tokens.reshape(len(tokens), -1, 4, 2).transpose(1, 2)
            key = query[:, ::2]
            read = F.scaled_dot_product_attention(query, key, key, enable_gqa=True)
            return tokens + read.transpose(1, 2).flatten(2)

    net = Around(Grouped()).eval()
    query = tokens_of(net).reshape(24, 4, 2).transpose(0, 1)
    (one,) = attentions(wrap(net), X, Run(), keep)
    key = query[[0, 0, 2, 2]]
    torch.testing.assert_close(one.matrix, (query @ key.transpose(1, 2) / math.sqrt(2)).softmax(-1))


def test_who_may_read_nobody_reads_nothing():
    mask = torch.ones(24, 24, dtype=torch.bool)
    mask[3] = False
    net = Around(Scaled(attn_mask=mask)).eval()
    with torch.no_grad():
        clean = net(X)
    heard = []
    net.register_forward_hook(lambda _, __, out: heard.append(out))
    (one,) = attentions(wrap(net), X, Run(), keep)
    assert bool((one.matrix[:, 3] == 0).all())
    torch.testing.assert_close(heard[0], clean)


def target(z):
    return z[:, 1, 4:12, :8].sum((1, 2))


@pytest.mark.parametrize("mix", [Scaled(), Explicit(between=nn.Dropout(0.2)), Multi(batch_first=True)])
def test_gradients_are_those_of_the_graph(mix):
    """Three attentions one behind the other: each against a network in which its weights are given numbers."""
    net = Around(nn.Sequential(mix, Explicit(heads=4), Scaled())).eval()
    seen = attentions(wrap(net), X, Run(), keep, target)
    assert len(seen) == 3
    given = [one.matrix[0].double() for one in seen]

    class Fixed(nn.Module):
        def __init__(self, module, weights):
            super().__init__()
            self.module, self.fixed = module, weights

        def forward(self, tokens):
            if isinstance(self.module, Multi):
                packed = self.module.attention
                value = F.linear(tokens, packed.in_proj_weight[16:], packed.in_proj_bias[16:])
                value = value.unflatten(2, (2, 4)).transpose(1, 2)
                return tokens + packed.out_proj((self.fixed @ value).transpose(1, 2).flatten(2))
            return tokens + (self.fixed @ self.module.parts(tokens)[2]).transpose(1, 2).flatten(2)

    for number in range(3):
        leaf = given[number].clone().requires_grad_()
        chain = list(net.mix)
        replaced = [Fixed(m, leaf) if n == number else m for n, m in enumerate(chain)]
        rest = net.double()
        rest.mix = nn.Sequential(*replaced)
        (wanted,) = torch.autograd.grad(target(rest(X.double())), leaf)
        rest.mix = nn.Sequential(*chain)
        net.float()
        torch.testing.assert_close(seen[number].matrix[1], wanted.float(), rtol=1e-4, atol=1e-6)


def test_gradients_of_disjoint_regions_add_up():
    torch.manual_seed(0)
    model = wrap(Segmenter(1, 3, 4, 16, 2, 2), classes=("background", "a", "b"), divisor=4)
    mask = torch.rand(16, 24) > 0.6
    parts = [mask & (torch.arange(24) < 9), mask & (torch.arange(24) >= 9)]
    whole, left, right = (
        attentions(model, X, Run(), keep, lambda z, m=m: (z[:, 1] * m).sum((1, 2))) for m in (mask, *parts)
    )
    for a, b, c in zip(whole, left, right, strict=True):
        scale = float(a.matrix[1].abs().max())
        torch.testing.assert_close(a.matrix[1] / scale, (b.matrix[1] + c.matrix[1]) / scale, rtol=0, atol=1e-5)


def test_what_the_target_does_not_hear_has_gradient_zero():
    class Deaf(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Explicit(), Scaled()

        def forward(self, tokens):
            heard = self.first(tokens)
            self.second(heard)
            return heard

    one, two = attentions(wrap(Around(Deaf())), X, Run(), keep, target)
    assert bool((one.matrix[1] != 0).any())
    assert not bool(two.matrix[1].any())
    assert bool(two.matrix[0].any())


class Fails(Exception):
    pass


class Failing(nn.Module):
    def __init__(self, when):
        super().__init__()
        self.first, self.when = Explicit(), when

    def forward(self, tokens):
        tokens = self.first(tokens)
        if self.when == "forward":
            raise Fails
        if self.when == "backward":
            tokens = tokens.clone()
            tokens.register_hook(self.fail)
        return Scaled()(tokens)

    def fail(self, _):
        raise Fails


@pytest.mark.parametrize("when", ["never", "forward", "backward", "fold", "score"])
def test_nothing_is_left_behind_whatever_happens(when):
    net = Around(Failing(when))
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)

    def fold(weights, gradient):
        if when == "fold":
            raise Fails
        return weights.mean(0)

    def score(z):
        if when == "score":
            raise Fails
        return target(z)

    model = wrap(net)
    net.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    if when == "never":
        assert len(attentions(model, X, Run(), fold, score)) == 2
    else:
        with pytest.raises(Fails):
            attentions(model, X, Run(), fold, score)
    assert not _get_current_function_mode_stack()
    assert all(m.training for m in net.modules())
    assert all(p.requires_grad and bool((p.grad == 1).all()) for p in net.parameters())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in net.modules())
    assert torch.is_grad_enabled()


def test_softmax_that_weighs_no_values_is_no_attention():
    class Gate(nn.Module):
        def forward(self, tokens):
            return tokens * tokens.softmax(-1) + tokens.mean(1, keepdim=True).softmax(1)

    with pytest.raises(MissingNeed, match="no attention that can be read") as caught:
        attentions(wrap(Around(Gate())), X, Run(), keep)
    assert caught.value.fix
    with pytest.raises(MissingNeed, match="no attention that can be read"):
        attentions(wrap(Context(), classes=("background", "a", "b")), X, Run(), keep, target)


class Windows(nn.Module):
    """Attention within strips of six tokens, as window transformers have it."""

    def __init__(self, mix):
        super().__init__()
        self.mix = mix

    def forward(self, tokens):
        return self.mix(tokens.reshape(-1, 6, 8)).reshape(tokens.shape)


class Pooled(nn.Module):
    """Fewer keys than queries."""

    def forward(self, tokens):
        fewer = tokens[:, ::4]
        return tokens + F.scaled_dot_product_attention(tokens[:, None], fewer[:, None], fewer[:, None])[:, 0]


@pytest.mark.parametrize(
    ("mix", "words"),
    [
        (Windows(Explicit()), "within windows of 6 tokens"),
        (Windows(Scaled()), "within windows of 6 tokens"),
        (Windows(Multi(batch_first=True)), "within windows of 6 tokens"),
        (Pooled(), "24 tokens read 6 others"),
        (Multi(batch_first=True, add_bias_kv=True), "24 tokens read 25 others"),
        (Multi(batch_first=True, add_zero_attn=True), "24 tokens read 25 others"),
    ],
)
@pytest.mark.parametrize("score", [None, target])
def test_attention_that_does_not_span_the_image_is_refused_in_one_sentence(mix, words, score):
    with pytest.raises(MissingNeed, match=re.escape(words)) as caught:
        attentions(wrap(Around(mix)), X, Run(), keep, score)
    assert caught.value.what.count(". ") == 0
    assert caught.value.fix


def test_bias_keys_and_zero_keys_change_no_answer(monkeypatch):
    """They are refused for what they are; before that the answer is made of all values."""
    monkeypatch.setattr("seglens.engine.attention._Recorder.read", lambda *_: None)
    for options in ({"add_bias_kv": True}, {"add_zero_attn": True}, {"add_bias_kv": True, "add_zero_attn": True}):
        net = Around(Multi(batch_first=True, **options)).eval()
        with torch.no_grad():
            clean = net(X)
        heard = []
        net.register_forward_hook(lambda _, __, out, heard=heard: heard.append(out))
        with pytest.raises(MissingNeed):
            attentions(wrap(net), X, Run(), keep)
        torch.testing.assert_close(heard[0], clean)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_checkpointed_attention_has_no_gradient_and_says_so():
    class Saving(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Explicit()

        def forward(self, tokens):
            return checkpoint(self.inner, tokens, use_reentrant=True)

    model = wrap(Around(Saving()))
    with pytest.raises(MissingNeed, match="without gradients"):
        attentions(model, X, Run(), keep, target)
    assert len(attentions(model, X, Run(), keep)) == 1


def test_tiles_are_refused():
    model = TiledModel(wrap(Attending(), classes=("background", "a", "b"), divisor=4), tile=8)
    with pytest.raises(MissingNeed, match="tiles") as caught:
        attentions(model, X, Run(), keep)
    assert "--tile" in caught.value.fix


@pytest.mark.parametrize("mix", [Scaled(), Multi(batch_first=True), Explicit()])
def test_memory_is_bounded_and_what_it_would_take_is_told(mix):
    size = 2 * 24 * 24 * 4
    model = wrap(Around(nn.Sequential(mix, Scaled(), Scaled())))

    def mean(weights, gradient=None):
        return weights.mean(0)

    assert attentions(model, X, Run(memory=3 * size), mean, target)
    with pytest.raises(OutOfMemory, match="square of the number of tokens") as caught:
        attentions(model, X, Run(memory=3 * size - 1), mean, target)
    assert "--crop" in caught.value.fix
    # without gradients only what is folded stays, half a matrix each, and one matrix while it is folded
    assert attentions(model, X, Run(memory=2 * size), mean)
    with pytest.raises(OutOfMemory):
        attentions(model, X, Run(memory=2 * size - 1), mean)


def test_an_exported_graph_is_read_like_the_network(tmp_path):
    torch.manual_seed(0)
    net = Segmenter(1, 2, 4, 16, 2, 2).eval()
    torch.export.save(torch.export.export(net, (X,)), tmp_path / "net.pt2")
    model = seglens.load_model(
        tmp_path / "net.pt2", trust=Trust.always(), spec={"normalisation": {"kind": "none"}}, device="cpu"
    )
    ours, theirs = (attentions(m, X, Run(), keep, target) for m in (wrap(net, divisor=4), model))
    assert len(ours) == len(theirs) == 3
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.matrix, two.matrix, rtol=1e-4, atol=1e-6)
    found = find_tokens(model, X, theirs, Run())
    assert found.grid == (4, 6)


def measured(net, x=X, order="measured", **about):
    model = wrap(net, **about)
    run = Run()
    return find_tokens(model, x, attentions(model, x, Run(), keep), run, order), run


SHUFFLED = torch.randperm(24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, torch.arange(24)),
        ({"before": 1}, torch.cat([torch.tensor([-1]), torch.arange(24)])),
        ({"before": 1, "behind": 4}, torch.cat([torch.tensor([-1]), torch.arange(24), torch.tensor([-1] * 4)])),
        ({"order": torch.arange(24).reshape(4, 6).T.flatten()}, torch.arange(24).reshape(4, 6).T.flatten()),
        ({"order": SHUFFLED}, SHUFFLED),
    ],
)
@pytest.mark.parametrize("mix", [Explicit, Scaled, lambda: Multi(batch_first=True)])
def test_the_patch_of_each_token_is_measured_in_any_order(options, wanted, mix):
    found, run = measured(Around(nn.Sequential(mix(), mix()), **options))
    assert found.grid == (4, 6)
    assert torch.equal(found.joins[0], wanted)
    assert torch.equal(found.joins[1], torch.arange(len(wanted)))
    assert torch.equal(found.places[1], wanted)
    assert run.cost.forwards == 1 + 5 + 1  # who sees anything, five bits of 24 numbers, and the join


def test_the_tokens_of_a_network_and_a_size_are_measured_once():
    model, run = wrap(Around(Explicit())), Run()
    seen = attentions(model, X, Run(), keep)
    one = find_tokens(model, X, seen, run)
    spent = run.cost.forwards
    assert find_tokens(model, X, seen, run) is one
    assert run.cost.forwards == spent > 0


def test_patches_need_not_be_square_and_images_need_not_fit():
    found, _ = measured(Around(Explicit(), patch=(2, 4)), X)
    assert found.grid == (8, 6)
    torch.manual_seed(0)
    found, _ = measured(Segmenter(1, 2, 8, 16, 1, 2), X[..., :13, :21], divisor=8)
    assert found.grid == (2, 3)
    volume, _ = measured(Segmenter(1, 2, 4, 16, 1, 2, dims=3), torch.rand(1, 1, 4, 8, 12), divisor=4, dims=3)
    assert volume.grid == (1, 2, 3)


def test_class_tokens_that_join_later_and_class_tokens_that_leave_are_told_apart():
    class Leaving(nn.Module):
        """A token in front, which leaves; then three behind, as in Segmenter with an encoder of its own."""

        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = Explicit(), Scaled(), Explicit()
            self.classes = nn.Parameter(torch.randn(1, 3, 8))

        def forward(self, tokens):
            tokens = self.second(self.first(tokens))[:, 1:]
            tokens = self.third(torch.cat([tokens, self.classes], 1))
            return torch.cat([tokens[:, :1], tokens[:, :-3]], 1)

    found, _ = measured(Around(Leaving(), before=1))
    patches, new = torch.arange(24), torch.tensor([-1] * 3)
    assert torch.equal(found.joins[0], torch.arange(-1, 24))
    assert torch.equal(found.joins[2], torch.cat([patches + 1, new]))
    assert torch.equal(found.places[2], torch.cat([patches, new]))


class Stem(nn.Module):
    """A convolution that looks beyond the patch, before the patches are cut."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner = nn.Conv2d(1, 1, 3, padding=1), Around(Explicit(), before=1)

    def forward(self, x):
        return self.inner(self.stem(x))


class Merging(nn.Module):
    """Neighbours become one token between two attentions."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Explicit(), Explicit()

    def forward(self, tokens):
        merged = self.second(self.first(tokens).unflatten(1, (12, 2)).mean(2))
        return merged.repeat_interleave(2, 1)


class Rolling(Merging):
    """As many tokens, at other places."""

    def forward(self, tokens):
        return self.second(self.first(tokens).roll(3, 1)).roll(-3, 1)


class Beside(Merging):
    """Two attentions that do not hear each other."""

    def forward(self, tokens):
        return self.first(tokens) + self.second(tokens)


def test_tokens_that_cannot_be_told_apart_are_refused_and_may_be_named():
    with pytest.raises(MissingNeed, match="cannot be told") as caught:
        measured(Stem())
    assert "set order to rows" in caught.value.fix
    found, _ = measured(Stem(), order="rows")
    assert found.grid == (4, 6)
    assert torch.equal(found.joins[0], torch.arange(-1, 24))


@pytest.mark.parametrize("mix", [Merging, Rolling, Beside])
def test_tokens_that_are_not_handed_on_are_refused(mix):
    with pytest.raises(MissingNeed, match="hand its tokens on"):
        measured(Around(mix()))


def test_rows_are_refused_where_no_grid_or_several_fit():
    with pytest.raises(MissingNeed, match="fit no grids"):
        measured(Around(Explicit(), patch=(2, 4)), order="rows")
    with pytest.raises(MissingNeed, match="fit 2 grids"):
        # 5 tokens: one in front of 2 × 2 patches, or four in front of a single one
        measured(Around(Explicit(), patch=(4, 4), before=1), X[..., :8, :8], order="rows")


def test_all_grids_of_equal_patches():
    assert grids(24, (16, 24))[0] == (4, 6)
    assert set(grids(6, (4, 6))) == {(1, 6), (2, 3)}
    assert grids(7, (4, 6)) == []
    assert grids(0, (4, 6)) == []


def test_shares_are_kept_on_the_way_back():
    """Rows that add up to 1 end on the patches, or on tokens that see none."""
    matrices = [m.mean(0) for m in random_matrices(3, 2, 9)]
    none, patches = torch.tensor([-1] * 3), torch.arange(6)
    tokens = Tokens((2, 3), (torch.cat([none, patches]), torch.arange(9), torch.arange(9)))
    row = torch.rand(9).softmax(0)
    shares, aside = tokens.back(row, matrices)
    wanted = row @ matrices[2] @ matrices[1] @ matrices[0]
    torch.testing.assert_close(shares.flatten(), wanted[3:])
    assert aside == pytest.approx(float(wanted[:3].sum()), rel=1e-5)
    assert float(shares.sum()) + aside == pytest.approx(1, rel=1e-5)


def test_a_stop_is_heard_before_every_pass():
    model = wrap(Given(random_matrices(2, 1, 24)), divisor=PATCH)
    seen = attentions(model, X, Run(), keep)
    for run in (Run(), Run()):
        run.cancel()
        with pytest.raises(Cancelled):
            attentions(model, X, run, keep)
        with pytest.raises(Cancelled):
            find_tokens(model, X, seen, run)
        assert run.cost.forwards == 0
