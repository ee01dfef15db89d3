"""A mode of torch that meets every attention of a network that runs inside it.

Torch tells the mode each of its functions that the network calls, so nothing is cut out of the network and nothing is
left behind. Three ways of writing attention are known: ``scaled_dot_product_attention``, which exported graphs
(``.pt2``) call as well; ``multi_head_attention_forward`` (``nn.MultiheadAttention``, ``nn.TransformerEncoderLayer``);
and a softmax over the last axis that is multiplied with values. Kernels of other packages, and TorchScript, cannot be
seen.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

SOFTMAX = {"softmax", "_softmax"}
PRODUCTS = {"matmul", "__matmul__", "bmm", "einsum", "baddbmm"}
# what may stand between the softmax and the product without making other weights of it
CARRIED = {
    "dropout", "feature_dropout", "to", "type", "type_as", "float", "half", "bfloat16", "double", "contiguous", "clone",
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "transpose", "permute", "mul",
    "__mul__", "__rmul__", "__get__", "nan_to_num", "masked_fill",
}  # fmt: skip
_MULTIHEAD = inspect.signature(F.multi_head_attention_forward)


class Attended(TorchFunctionMode):
    """Meets every attention of a network that runs inside, one after the other."""

    def __init__(self) -> None:
        """Nothing met yet."""
        super().__init__()
        self._count = 0
        self._soft: Any = WeakIdKeyDictionary()

    def coming(self, number: int, lost: Callable[[], Tensor]) -> bool:
        """Whether the weights of what comes now are wanted; if not, they are not made where that can be helped.

        Args:
            number: how many softmaxes there were before.
            lost: tells which tokens are not numbers (queries,).
        """
        return True

    def weighed(self, number: int, weights: Tensor) -> Tensor:
        """What the network goes on with, instead of a softmax's weights (…, queries, keys); by default with these."""
        return weights

    def read(self, number: int, weights: Tensor) -> None:
        """Weights that are multiplied with values: this was an attention."""

    def afford(self, size: int) -> None:
        """Weights of so many bytes will be made."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function of torch, and look at it if it may be part of an attention."""
        kwargs = kwargs or {}
        name = getattr(getattr(func, "overloadpacket", func), "__name__", "")
        if name == "scaled_dot_product_attention":
            return self._scaled(func, *args, **kwargs)
        if name == "multi_head_attention_forward":
            return self._multihead(func, args, kwargs)
        if name in PRODUCTS:
            self._multiplied((*args, *kwargs.values()))
        out = func(*args, **kwargs)
        if name in SOFTMAX:
            return self._softened(out, args, kwargs)
        if name in CARRIED:
            self._carry(out, args)
        return out

    def _next(self, lost: Callable[[], Tensor]) -> int | None:
        """The number of what comes now, ``None`` if its weights are not wanted."""
        number = self._count
        self._count += 1
        return number if self.coming(number, lost) else None

    def _scaled(
        self,
        func: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """The formula that the function stands for, so that its weights exist."""
        number = self._next(lambda: _lost(*(_rows(t.isnan().any(-1)) for t in (query, key, value))))
        if number is None:
            options = {"attn_mask": attn_mask, "dropout_p": dropout_p, "is_causal": is_causal}
            plain: Tensor = func(query, key, value, **options, scale=scale, enable_gqa=enable_gqa)
            return plain
        if enable_gqa:
            key, value = (t.repeat_interleave(query.size(-3) // t.size(-3), -3) for t in (key, value))
        queries, keys = query.size(-2), key.size(-2)
        self.afford(query.shape[:-1].numel() * keys * query.element_size())
        logits = query * (1 / math.sqrt(query.size(-1)) if scale is None else scale) @ key.transpose(-2, -1)
        if is_causal:
            attn_mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            logits = logits.masked_fill(~attn_mask, -math.inf)
        elif attn_mask is not None:
            logits = logits + attn_mask
        weights = logits.softmax(-1)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            # who may read nobody reads nothing
            weights = weights.masked_fill(~attn_mask.any(-1, keepdim=True), 0.0)
        weights = self.weighed(number, weights)
        self.read(number, weights)
        return (F.dropout(weights, dropout_p) if dropout_p else weights) @ value

    def _multihead(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Its own weights, and its answer made of them, so that the answer hangs on what was recorded."""
        bound = _MULTIHEAD.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        query, heads = given["query"], given["num_heads"]
        batch = query.shape[1] if query.ndim == 3 else 1
        number = self._next(lambda: _lost(*(given[t].isnan().flatten(1).any(1) for t in ("query", "key", "value"))))
        if number is None:
            return func(*args, **kwargs)
        self.afford(heads * batch * query.shape[0] * given["key"].shape[0] * query.element_size())
        out, weights = func(**{**given, "need_weights": True, "average_attn_weights": False})
        weights = self.weighed(number, weights)
        self.read(number, weights)
        read = weights.reshape(batch, heads, *weights.shape[-2:]) @ _values(given, batch)
        merged = read.permute(2, 0, 1, 3).reshape(query.shape[0], batch, -1)
        answer = F.linear(merged, given["out_proj_weight"], given["out_proj_bias"]).reshape(out.shape)
        if not given["need_weights"]:
            return answer, None
        return answer, weights.mean(-3) if given["average_attn_weights"] else weights

    def _softened(self, out: Tensor, args: Any, kwargs: Any) -> Tensor:
        given = args[0] if args else kwargs["input"]
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if out.ndim < 2 or dim not in (-1, out.ndim - 1):
            return out
        number = self._next(lambda: _rows(given.diagonal(dim1=-2, dim2=-1).isnan()))
        if number is None:
            return out
        weights = self.weighed(number, out)
        self._soft[weights] = (number, None)
        return weights

    def _multiplied(self, args: Any) -> None:
        for arg in _flat(args):
            if arg in self._soft:
                number, origin = self._soft[arg]
                self.read(number, arg if origin is None else origin)

    def _carry(self, out: Any, args: Any) -> None:
        known = next((arg for arg in _flat(args) if arg in self._soft), None)
        if known is not None and isinstance(out, Tensor) and out is not known and out.numel() == known.numel():
            number, origin = self._soft[known]
            self._soft[out] = (number, known if origin is None else origin)


def _values(given: Any, batch: int) -> Tensor:
    """The values (batch, heads, keys, width) of ``multi_head_attention_forward``, from what it was given."""
    if given["static_v"] is not None:
        made = given["static_v"]
    else:
        embedding, bias = given["query"].shape[-1], given["in_proj_bias"]
        separate = given["use_separate_proj_weight"]
        weight = given["v_proj_weight"] if separate else given["in_proj_weight"][2 * embedding :]
        value = given["value"] if given["value"].ndim == 3 else given["value"][:, None]
        made = F.linear(value, weight, None if bias is None else bias[2 * embedding :])
        if given["bias_v"] is not None:
            made = torch.cat([made, given["bias_v"].expand(1, batch, -1)])
        made = made.reshape(len(made), batch * given["num_heads"], -1).transpose(0, 1)
    if given["add_zero_attn"]:
        made = torch.cat([made, made.new_zeros(len(made), 1, made.shape[2])], 1)
    values: Tensor = made.reshape(batch, given["num_heads"], *made.shape[1:])
    return values


def _rows(lost: Tensor) -> Tensor:
    """From (…, tokens) to (tokens,)."""
    return lost.reshape(-1, lost.shape[-1]).any(0)


def _lost(query: Tensor, *others: Tensor) -> Tensor:
    """Tokens that are lost as query, key or value, where they read each other, (tokens,)."""
    for other in others:
        query = query | other if len(other) == len(query) else query
    return query


def _flat(args: Any) -> list[Tensor]:
    """The tensors among positional arguments, one level of lists deep."""
    flat = [inner for arg in args for inner in (arg if isinstance(arg, list | tuple) else (arg,))]
    return [arg for arg in flat if isinstance(arg, Tensor)]
