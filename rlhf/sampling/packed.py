"""Decoding on a CPU with weights packed for its matrix products, for models built like Llama."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as sdpa
from transformers.activations import ACT2FN

from rlhf.batches import PromptBatch
from rlhf.functional.attention import LONGEST, grouped_attention
from rlhf.kernels.decoding import Kernels, LayerCache, split_rotated
from rlhf.kernels.library import SUFFIXES
from rlhf.sampling.decoder import distinct_prompts, left_padded

FAMILIES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")
"""Classes of transformers whose blocks are computed here: RMS norm, rotary positions, grouped keys, gated SiLU."""
ROTARY_KINDS = ("default", "linear", "llama3")
"""Rotary positions that do not change with the length of a sequence."""
PLAIN_MODULES = (nn.Linear, nn.Embedding, nn.ModuleList, type(ACT2FN["silu"]))
"""What such a model is made of, besides the classes of its own file."""

Attention = Callable[[int, Tensor], Tensor]
"""From the number of a layer and its [N, (heads + 2 key heads) * D] to [N, heads * D]."""


def is_packable(model: Any) -> bool:
    """Say whether `PackedModel` computes what the model's own forward does: a known class, unmodified."""
    home = type(model).__module__
    if type(model).__name__ not in FAMILIES or not home.startswith("transformers.models."):
        return False
    slides = getattr(model.config, "sliding_window", None) is not None
    rotary = (getattr(model.config, "rope_parameters", None) or {}).get("rope_type", "default")
    if slides or rotary not in ROTARY_KINDS or not _has_plain_weights(model):
        return False
    return all(
        (type(module) in PLAIN_MODULES or type(module).__module__ == home)
        and not (module._forward_hooks or module._forward_pre_hooks or _is_changed(vars(module).get("forward")))
        for module in model.modules()
    )


def _is_changed(forward: Any) -> bool:
    """Say whether a forward of a module's own may compute something else than its class does."""
    return forward is not None and not getattr(forward, "same_output", False)


def _has_plain_weights(model: Any) -> bool:
    """Say whether all weights are ordinary tensors of one type that this CPU packs."""
    kinds = {(type(weight.data), weight.dtype, weight.device.type) for weight in model.parameters()}
    if kinds != {(Tensor, model.dtype, "cpu")} or model.dtype not in SUFFIXES:
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    return model.dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PackedLinear:
    """A linear map whose weights are stored in the order in which the matrix product reads them."""

    def __init__(self, *linears: nn.Linear, num_rows: int) -> None:
        """Stack linear maps of the same input into one, for products of about `num_rows` rows."""
        weights = [linear.weight.detach() for linear in linears]
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        has_bias = any(linear.bias is not None for linear in linears)
        self._bias = torch.cat([_bias(linear) for linear in linears]) if has_bias else None
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, num_rows)
        self._product = torch.ops.mkldnn._linear_pointwise

    def __call__(self, x: Tensor) -> Tensor:
        """Return W x + b of rows [N, in]."""
        return self._product(x, self._weight, self._bias, "none", [], "")  # type: ignore[no-any-return]

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """Return residual + W x + b, in one pass over the result."""
        return self._product.binary(x, residual, self._weight, self._bias, "add")  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class PackedBlock:
    """One transformer block."""

    attention_norm: Tensor
    qkv: PackedLinear
    output: PackedLinear
    mlp_norm: Tensor
    gate_up: PackedLinear
    down: PackedLinear


class PackedModel:
    """The weights of a model, copied into the packed order, and the forward pass over single tokens."""

    def __init__(self, model: Any, num_rows: int, *, compiled_kernels: bool = True) -> None:
        """Pack a model for which `is_packable` holds, for batches of about `num_rows` rows."""
        config, trunk = model.config, model.model
        self.kernels = Kernels(model.dtype, compiled=compiled_kernels)
        self.blocks = [_packed(block, num_rows) for block in trunk.layers]
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.width, self.scale = trunk.layers[0].self_attn.head_dim, trunk.layers[0].self_attn.scaling
        self.dtype: torch.dtype = model.dtype
        self._rotary, self._embedding = trunk.rotary_emb, trunk.embed_tokens.weight.detach()
        self._norm, self._eps = trunk.norm.weight.detach(), config.rms_norm_eps
        self._head = PackedLinear(model.lm_head, num_rows=num_rows)

    def rotation(self, num_positions: int) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines [C, D] float32 of positions 0 to C - 1."""
        cos, sin = self._rotary(torch.empty(0, dtype=self.dtype), torch.arange(num_positions)[None])
        return cos[0].float().contiguous(), sin[0].float().contiguous()

    def hidden_states(self, ids: Tensor, attention: Attention) -> Tensor:
        """Pass tokens [N] through all blocks, [N, H]; only `attention` sees more than one token at once."""
        x = nn.functional.embedding(ids, self._embedding)
        for layer, block in enumerate(self.blocks):
            normed = self.kernels.rms_norm(x, block.attention_norm, self._eps)
            x = block.output.added_to(x, attention(layer, block.qkv(normed)))
            normed = self.kernels.rms_norm(x, block.mlp_norm, self._eps)
            x = block.down.added_to(x, self.kernels.silu_mul(block.gate_up(normed)))
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits [N, V] of hidden states [N, H]."""
        return self._head(self.kernels.rms_norm(hidden, self._norm, self._eps))


class PackedDecoder:
    """Reads prompts once and then one token per row at a time; `Decoder` is its plain twin.

    Prompts are read without their padding, and equal prompts once. If one is longer than `LONGEST`, torch's attention,
    which stores no scores, reads them one by one. Finished rows leave without a copy.
    """

    def __init__(self, model: PackedModel, prompts: PromptBatch, max_new_tokens: int) -> None:
        """Reserve the cache of `prompts` for at most `max_new_tokens` further tokens."""
        distinct, self._sources = distinct_prompts(prompts)
        self._model = model
        self._ids, self._mask = left_padded(distinct)
        self._column = self._mask.shape[1]
        self._padding = self._column - self._mask.sum(1)
        self._rotation = model.rotation(self._column + max_new_tokens)
        num_rows = len(self._sources)
        self._first, self._slots = self._padding[self._sources], torch.arange(num_rows)
        memory = (2, len(model.blocks), num_rows, model.key_heads, self._column + max_new_tokens, model.width)
        self._keys, self._values = torch.empty(memory, dtype=model.dtype)

    def read_prompts(self) -> Tensor:
        """Run the model over the prompts and return the logits [B, V] of the first response token."""
        rows, columns = self._mask.nonzero(as_tuple=True)
        positions = columns - self._padding[rows]
        rotation = (self._rotation[0][positions], self._rotation[1][positions])
        invisible = None if self._column > LONGEST else self._invisible()

        def attention(layer: int, qkv: Tensor) -> Tensor:
            rotated, values = split_rotated(qkv, self._model.heads, self._model.key_heads, rotation)
            queries, keys = rotated.split((self._model.heads, self._model.key_heads), dim=1)
            padded_keys, padded_values = (self._padded(states, rows, columns) for states in (keys, values))
            self._keys[layer, :, :, : self._column] = padded_keys[self._sources]
            self._values[layer, :, :, : self._column] = padded_values[self._sources]
            if invisible is None:
                return self._each_alone(queries, keys, values).reshape(len(rows), -1)
            queries = self._padded(queries, rows, columns)
            mixed = grouped_attention(queries, padded_keys, padded_values, invisible, self._model.scale)
            return mixed[rows, :, columns].reshape(len(rows), -1)

        hidden = self._model.hidden_states(self._ids[rows, columns], attention)
        return self._model.logits(hidden[columns == self._column - 1])[self._sources]

    def read_tokens(self, ids: Tensor) -> Tensor:
        """Append the tokens `ids` [B] and return the logits [B, V] of the ones that follow.

        Raises:
            ValueError: no memory was reserved for a further token, or the number of rows is wrong.
        """
        column, self._column = self._column, self._column + 1

        def attention(layer: int, qkv: Tensor) -> Tensor:
            cache = LayerCache(self._keys[layer], self._values[layer], self._slots, self._first, column)
            return self._model.kernels.attend(qkv, self._rotation, cache, self._model.scale)

        return self._model.logits(self._model.hidden_states(ids, attention))

    def keep_rows(self, index: Tensor) -> None:
        """Keep only the rows `index` [N] in the batch.

        Raises:
            ValueError: a row is named twice; both would write to the same memory.
        """
        if len(index.unique()) < len(index):
            raise ValueError(f"a row can be kept once, found {index.tolist()}")
        self._slots, self._first = self._slots[index], self._first[index]

    def _invisible(self) -> Tensor:
        """Return [B, 1, 1, P, P], True where a token of a prompt does not attend to another."""
        return ~self._mask[:, None, None, None] | torch.ones(self._column, self._column).triu(1).bool()

    def _each_alone(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return the attention [N, heads, D] of prompts, computed one by one, from the states [N, heads, D] of all."""
        lengths = self._mask.sum(1).tolist()
        prompts = zip(*(each.transpose(0, 1).split(lengths, dim=1) for each in (queries, keys, values)), strict=True)
        # torch uses its fused kernel for four dimensions.
        mixed = [
            sdpa(query[None], key[None], value[None], is_causal=True, scale=self._model.scale, enable_gqa=True)[0]
            for query, key, value in prompts
        ]
        return torch.cat(mixed, dim=1).transpose(0, 1)

    def _padded(self, states: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return [B, heads, P, D] of tokens [N, heads, D], 0 where padded."""
        shape = (*self._mask.shape, *states.shape[1:])
        return states.new_zeros(shape).index_put((rows, columns), states).transpose(1, 2)


def _linears(block: Any) -> list[nn.Linear]:
    attention, mlp = block.self_attn, block.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
    return [*projections, mlp.gate_proj, mlp.up_proj, mlp.down_proj]


def _bias(linear: nn.Linear) -> Tensor:
    return linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias.detach()


def _packed(block: Any, num_rows: int) -> PackedBlock:
    query, key, value, output, gate, up, down = _linears(block)
    return PackedBlock(
        attention_norm=block.input_layernorm.weight.detach(),
        qkv=PackedLinear(query, key, value, num_rows=num_rows),
        output=PackedLinear(output, num_rows=num_rows),
        mlp_norm=block.post_attention_layernorm.weight.detach(),
        gate_up=PackedLinear(gate, up, num_rows=num_rows),
        down=PackedLinear(down, num_rows=num_rows),
    )
