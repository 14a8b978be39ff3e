"""How much memory a rollout takes, as formulae: to choose numbers of rows and steps by.

The weights come on top (with a reference model twice), and in an update gradients, the optimizer's
state and the activations of one minibatch, or of 2,048 of its tokens where it has more than 8,192.
"""

from __future__ import annotations

# Slots grow by so many positions.
_BLOCK = 64
_ID_BYTES = 8
# Of a transition in the buffer: action, two lengths (8 each), reward, value, log-prob, advantage,
# return, whether an episode started (4 each).
_TRANSITION_BYTES = 48


def slot_cache_bytes(
    rows: int,
    longest: int,
    context_size: int,
    *,
    layers: int,
    kv_heads: int,
    head_size: int,
    width: int,
    number_bytes: int = 4,
) -> int:
    """Bytes of a `SlotCache`: keys and values, and the contexts they are of.

    Keys and values of prompts that come again are kept too, in at most 16,384 positions more.

    Args:
        rows: B, of the vector env.
        longest: tokens of the longest context so far.
        context_size: C, of the longest there can be.
        layers, kv_heads, head_size, width: of the model; `width` is that of its hidden states.
        number_bytes: of a key's number, 4 for float32.

    Example, the cache of GPT-2 for 64 rows of 256 tokens, in MB:
        >>> size = {"layers": 12, "kv_heads": 12, "head_size": 64, "width": 768}
        >>> slot_cache_bytes(64, 256, 256, **size) // 10**6
        1213
    """
    positions = min(-(-longest // _BLOCK) * _BLOCK, context_size) + 1
    keys_and_values = 2 * layers * rows * kv_heads * head_size * positions * number_bytes
    states = rows * width * number_bytes
    # The ids and the length of each row, its index, and the numbers of the columns.
    contexts = _ID_BYTES * (rows * context_size + 2 * rows + context_size)
    return keys_and_values + states + contexts


def rollout_buffer_bytes(
    rows: int, steps: int, context_size: int, segment_tokens: int, *, masked_tokens: int = 0
) -> int:
    """Bytes of a full `TokenRolloutBuffer`.

    SB3's own keeps the whole observation a transition: ``rows * steps * (9 * context_size + 8)``
    bytes of contexts instead of ``8 * segment_tokens``.

    Args:
        rows: B, of the vector env.
        steps: of a rollout.
        context_size: C, of the longest context there can be.
        segment_tokens: of the contexts at the end of each segment, together.
        masked_tokens: V, where masks, `top_k` or `top_p` say what each token was chosen among.

    Example, 64 rows of 256 steps and episodes of 128 tokens each, in MB:
        >>> rollout_buffer_bytes(64, 256, 128, 64 * 2 * 128) / 1e6
        0.98...
    """
    transitions = rows * steps * (_TRANSITION_BYTES + -(-masked_tokens // 8))
    contexts = _ID_BYTES * (rows * context_size + rows + context_size)
    return transitions + contexts + _ID_BYTES * segment_tokens
