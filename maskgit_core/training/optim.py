"""Optimizer, rates and EMA: AdamW for vectors and tables, orthogonalised momentum for matrices."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from maskgit_core.distributed.group import is_sharded, local, slice_like, whole
from maskgit_core.training.settings import TrainConfig

# Quintic Newton-Schulz coefficients that push singular values towards 1 (Jordan et al. 2024).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
EPSILON = 1e-10  # of AdamW: the gradients of a large batch's mean are small


def orthogonalize(matrix: Tensor) -> Tensor:
    """Return the nearest semi-orthogonal matrix, roughly: singular values in about [0.7, 1.2].

    Args:
        matrix: float32 (rows, columns).

    Reference: Muon (Jordan et al. 2024); differs: float32 on a CPU, since bfloat16 is emulated
    on many, and long matrices are multiplied once: all polynomials of the same gram matrix
    commute, so they are gathered in a product of the short side.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    rows, columns = x.shape
    if columns < 2 * rows:
        for _ in range(NEWTON_SCHULZ_STEPS):
            gram = x @ x.T
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x.T if tall else x
    product, gram = None, x @ x.T
    for step in range(NEWTON_SCHULZ_STEPS):
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal().add_(a)
        product = polynomial if product is None else polynomial @ product
        if step < NEWTON_SCHULZ_STEPS - 1:
            gram = polynomial @ gram @ polynomial
    x = product @ x
    return x.T if tall else x


def orthogonalize_stack(matrices: Tensor) -> Tensor:
    """Return what `orthogonalize` does of each matrix, float32 (B, rows, columns), in bfloat16.

    For a GPU: there many small products cost their launches, and few large ones hardly anything.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).bfloat16()
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the groups marked `orthogonal`, AdamW for the others, in one optimizer state.

    Parameters may be sharded (`fsdp`): what is done number by number is done to the own slice; a
    matrix is put together to be orthogonalised, by all ranks.

    Args:
        groups: parameter groups with `lr` and `orthogonal`.
        weight_decay: decoupled, applied to matrices only.
        momentum: of Muon (Nesterov).
        betas: of AdamW.
    """

    orthogonalize = staticmethod(orthogonalize)
    stacks_on_gpu = True  # matrices of one shape, whole ones only, by `orthogonalize_stack`

    def __init__(
        self,
        groups: Iterable[dict],
        *,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
    ) -> None:
        super().__init__(
            groups,
            # "fused" tells PyTorch where AdamW's count of steps belongs when a state is loaded.
            {"weight_decay": weight_decay, "momentum": momentum, "betas": betas, "fused": True},
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["orthogonal"]:
                self._muon(parameters, group)
                continue
            matrices = [p for p in parameters if p.ndim > 1]
            self._adamw(matrices, group, group["weight_decay"])
            self._adamw([p for p in parameters if p.ndim <= 1], group, 0.0)

    def _muon(self, parameters: Sequence[Tensor], group: dict) -> None:
        alike: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            if group["weight_decay"]:
                local(parameter).mul_(1 - group["lr"] * group["weight_decay"])
            if self.stacks_on_gpu and parameter.is_cuda and not is_sharded(parameter):
                alike[tuple(parameter.flatten(1).shape)].append(parameter)
            else:
                update = self.orthogonalize(self._direction(parameter, group))
                self._move(parameter, update, group)
        for some in alike.values():
            self._muon_together(some, group)

    def _muon_together(self, parameters: Sequence[Tensor], group: dict) -> None:
        """Update matrices of one shape."""
        stack = torch.stack([self._direction(parameter, group) for parameter in parameters])
        for parameter, update in zip(parameters, orthogonalize_stack(stack), strict=True):
            self._move(parameter, update, group)

    def _direction(self, parameter: Tensor, group: dict) -> Tensor:
        """Return float32 (rows, columns), the Nesterov momentum of a whole matrix."""
        state, grad = self.state[parameter], gradient(parameter)
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"]
        local(momentum).lerp_(local(grad), 1 - group["momentum"])
        return whole(grad.lerp(momentum, group["momentum"])).flatten(1)

    @staticmethod
    def _move(parameter: Tensor, update: Tensor, group: dict) -> None:
        rows, columns = update.shape
        scale = math.sqrt(max(1.0, rows / columns))
        update = slice_like(update.view(parameter.shape), parameter)
        local(parameter).add_(update, alpha=-group["lr"] * scale)

    def _adamw(self, parameters: Sequence[Tensor], group: dict, weight_decay: float) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros((), device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            [local(parameter) for parameter in parameters],
            [local(gradient(parameter)) for parameter in parameters],
            [local(state["exp_avg"]) for state in states],
            [local(state["exp_avg_sq"]) for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=weight_decay,
            eps=EPSILON,
            maximize=False,
        )


def gradient(parameter: Tensor) -> Tensor:
    """Return the gradient of a parameter that has one."""
    assert parameter.grad is not None
    return parameter.grad


def clip_gradients_(model: nn.Module, largest: float) -> Tensor:
    """Scale the gradients down to a norm; returns the norm that they had, of all ranks' slices."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = whole(nn.utils.get_total_norm([gradient(p) for p in parameters]))
    nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return norm


def build_optimizer(
    module: nn.Module,
    *,
    learning_rate: float,
    matrix_learning_rate: float,
    weight_decay: float,
    kind: type[MuonAdamW] = MuonAdamW,
) -> MuonAdamW:
    """Sort the parameters: hidden weight matrices to Muon, all the rest to AdamW.

    Embedding tables, codebooks and 1-pixel output layers are no hidden matrices: their rows stand
    alone. With `matrix_learning_rate` 0 everything goes to AdamW.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    candidates = [m.weight for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    attentions = [m for m in module.modules() if isinstance(m, nn.MultiheadAttention)]
    candidates += [m.in_proj_weight for m in attentions if m.in_proj_weight is not None]
    hidden = {id(weight) for weight in candidates if min(weight.flatten(1).shape) > 16}
    for parameter in module.parameters():
        use_muon = matrix_learning_rate > 0 and id(parameter) in hidden - tables
        (matrices if use_muon else others).append(parameter)
    groups = [
        {"params": others, "lr": learning_rate, "peak": learning_rate, "orthogonal": False},
        {
            "params": matrices,
            "lr": matrix_learning_rate,
            "peak": matrix_learning_rate,
            "orthogonal": True,
        },
    ]
    return kind([g for g in groups if g["params"]], weight_decay=weight_decay)


def rate_factor(step: int, config: TrainConfig) -> float:
    """Return the share of the peak rate at a step: linear warm-up, then a cosine to min_rate."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    span = max(1, config.max_steps - config.warmup_steps)
    progress = min(1.0, (step - config.warmup_steps) / span)
    return config.min_rate + (1 - config.min_rate) * (1 + math.cos(math.pi * progress)) / 2


@torch.no_grad()
def update_ema_(ema: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the EMA towards the model; early steps move it faster."""
    decay = min(decay, (1 + step) / (10 + step))
    means, values = ([local(p) for p in m.parameters()] for m in (ema, model))
    torch._foreach_lerp_(means, values, 1 - decay)
    for mean, value in zip(ema.buffers(), model.buffers(), strict=True):
        mean.copy_(value)
