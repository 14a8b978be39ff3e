"""Matrix products by the faster one of torch's two libraries.

torch multiplies float32 matrices by MKL, which uses AVX-512 on Intel's processors and no more than
AVX2 on those of others. oneDNN, which torch brings too, uses AVX-512 wherever there is any: on such
a processor large products take it half the time. Which library computes depends on the machine,
the sizes and the number of threads, never on a measurement, so that the same seed gives the same
run.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# oneDNN is called for no fewer multiplications a thread than this: a call takes some 10
# microseconds, one with gradients some 50 more, for these are computed from Python, and it shares
# small products among threads that have to be woken.
_LEAST = 2**21


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear(x, weight, bias)`, as often differentiable as that.

    Args:
        x: `[..., m]`.
        weight: `[n, m]`, also transposed without a copy.
        bias: `[n]`.

    Returns:
        `[..., n]`, the same but for rounding.
    """
    if not _pays(x, weight):
        return F.linear(x, weight, bias)
    inputs = (x, weight, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
        return _Linear.apply(x, weight, bias)
    return _product(x, weight, bias)


def linear_for(multiplications: int) -> Callable[..., Tensor]:
    """`linear`; `F.linear`, which asks no questions, where no product is larger than this."""
    return linear if _large(multiplications) and library_is_slow() else F.linear


def fast_linear(tokens: Tensor, width: int) -> AbstractContextManager[Any]:
    """Within it, `nn.Linear` and transformers' `Conv1D` of any module compute as `linear` does.

    Args:
        tokens: what goes through the module; elsewhere than on a CPU, nothing is changed.
        width: of the module's vectors. Where products of this size, or twice it, are too small to
            gain, nothing is changed: the mode itself costs a microsecond an operation.
    """
    large = tokens.device.type == "cpu" and _large(tokens.numel() * 2 * width * width)
    return _FastLinear() if large and library_is_slow() else nullcontext()


@functools.cache
def library_is_slow() -> bool:
    """Whether float32 products of torch leave half of this processor unused."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and "GenuineIntel" not in _processor()
    )


def _processor() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")[:4096]
    except OSError:
        return platform.processor()  # on Windows "AMD64 Family 25 ..., AuthenticAMD"


def _large(multiplications: int) -> bool:
    return multiplications >= _LEAST * torch.get_num_threads()


def _pays(x: Tensor, weight: Tensor) -> bool:
    """Whether `linear` does better than `F.linear` here."""
    return (
        _large(x.numel() * weight.shape[0])
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and weight.layout == torch.strided
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and library_is_slow()
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(
        _dense(x), _dense(weight), bias, "none", [], ""
    )


def _dense(x: Tensor) -> Tensor:
    """Without gaps or repetition in memory, as oneDNN takes it; transposed is fine."""
    return x if x.is_contiguous() or (x.dim() == 2 and x.t().is_contiguous()) else x.contiguous()


class _Linear(torch.autograd.Function):
    """`_product` with gradients, which are products of the same kind."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = linear(flat, weight.t()).view(x.shape)
        if ctx.needs_input_grad[1]:
            grad_weight = linear(flat.t(), x.reshape(-1, x.shape[-1]).t())
        if ctx.needs_input_grad[2]:
            grad_bias = flat.sum(dim=0)
        return grad_x, grad_weight, grad_bias


class _FastLinear(TorchFunctionMode):
    """Sends linear maps to `linear`; the modules that compute them stay as they are."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if not types and not kwargs:  # no tensors of a type of their own
            if func is F.linear:
                return linear(*args)
            if func is torch.addmm and args[0].dim() == 1:  # Conv1D: bias, x, weight
                bias, x, weight = args
                return linear(x, weight.t(), bias)
        return func(*args, **(kwargs or {}))
