"""The one decoding loop: a grid with masked cells is filled in steps, and every step is yielded.

Parallel decoding of MaskGIT (Chang et al. 2022, arXiv:2202.04200), section 3.2, with further
reveal orders. The loop knows no network: it calls `logits_fn(tokens, labels)`. It runs over
positions: the cells of the grid, or, where a cell holds several tokens that are masked on their
own, all of those, cell by cell. What is random comes from `chance`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maskgit_core.config import SamplingConfig
from maskgit_core.decoding.chance import Chance
from maskgit_core.decoding.draw import NUM_ALTERNATIVES, Draw
from maskgit_core.decoding.networks import CellNetwork, LogitsFn, WholeGrid
from maskgit_core.orders import ORDERS
from maskgit_core.schedules import guidance_at, noise_at, reveal_counts, temperature_at


@dataclass(frozen=True)
class StepState:
    """The grids after one decoding step; its tensors are never changed later.

    Args:
        index: 0-based number of the step.
        num_steps: steps in all, those of the image that needs most.
        tokens: int64 (B, h, w), in [0, K]; the mask id K where still masked.
        newly_revealed: bool (B, h, w), True where a token was decided in this step.
        confidence: float32 (B, h, w), natural log of the probability of the revealed token when it
            was drawn (guided and tempered, before top-k and top-p, without Gumbel noise); 0 at
            known tokens, nan where still masked.
        alternative_ids: int64 (B, h, w, A), A = min(5, K): the likeliest codes of the cell when it
            was revealed, best first; K where masked or known.
        alternative_probs: float32 (B, h, w, A): their probabilities; 0 where masked or known.
        partly_known: bool (B, h, w), True where some tokens of a cell are known and others are
            not, which `tokens` shows as masked; None where a cell is one token.
    """

    index: int
    num_steps: int
    tokens: Tensor
    newly_revealed: Tensor
    confidence: Tensor
    alternative_ids: Tensor
    alternative_probs: Tensor
    partly_known: Tensor | None = None


def decode_steps(
    logits_fn: LogitsFn | CellNetwork,
    tokens: Tensor,
    labels: Tensor,
    config: SamplingConfig,
    *,
    codebook_size: int,
    null_label: int | None,
    seeds: Sequence[int],
    wanted: Callable[[int], bool] | None = None,
    chance: Chance | None = None,
) -> Iterator[StepState]:
    """Yield the grids after each decoding step, until no cell is masked.

    An image with fewer unknown cells than `config.num_steps` takes as many steps as it has cells
    and then rests. Where no image has any, one state with the tokens as they are is yielded.

    Args:
        logits_fn: called with tokens int64 (R, N) and labels int64 (R,); returns (R, N, K or more).
            Columns from K on (a mask token's, say) are cut off. With guidance the rows of both
            passes go into one call. A network that is also a `CellNetwork` is not called itself,
            but computes the wanted cells only.
        tokens: int64 (B, h, w), in [0, K]; the mask id K marks unknown cells. Never changed.
            With G tokens a cell (B, h, w, G), and N is h w G here; so it is in the states.
        labels: int64 (B,).
        config: how to decode.
        codebook_size: K, the number of codes, and the id of the mask token.
        null_label: the label of the unconditional pass, or None where the network has none:
            guidance is then off.
        seeds: one whole number an image, in [0, 2**64).
        wanted: asked before each step whether image i is still wanted; one that is not rests from
            then on, half done. Decoding ends when none is wanted.
        chance: another source of random numbers than generators with these seeds.

    Yields:
        One StepState a step.

    Raises:
        ValueError: an argument of the wrong kind, shape or range, when the function is called;
            logits of the wrong shape or not finite, when the step is asked for.

    Reference:
        MaskGIT (Chang et al. 2022), section 3.2, with the noise of its published decoder: the
        confidence gets `schedules.noise_at` * Gumbel. Differs: known tokens never compete, the
        counts of a step are exact even where confidences are equal, and T is each image's own.
    """
    _check_arguments(tokens, labels, codebook_size, null_label, seeds)
    chance = chance or Chance(seeds, tokens[0].numel())
    loop = _DecodeLoop(logits_fn, tokens, labels, config, codebook_size, null_label, chance)
    return loop.run(wanted or (lambda image: True))


class _DecodeLoop:
    """The state of one decoding: grids flattened to (B, N), and what every image still does."""

    def __init__(
        self,
        logits_fn: LogitsFn | CellNetwork,
        tokens: Tensor,
        labels: Tensor,
        config: SamplingConfig,
        codebook_size: int,
        null_label: int | None,
        chance: Chance,
    ) -> None:
        self.network: CellNetwork
        if isinstance(logits_fn, CellNetwork):
            self.network = logits_fn
        else:
            self.network = WholeGrid(logits_fn, codebook_size)
        self.labels, self.config, self.chance = labels, config, chance
        self.order = ORDERS[config.order]
        self.num_codes, self.null_label = codebook_size, null_label
        self.grid = tokens.shape
        self.tokens = tokens.flatten(1).clone()
        unknown = self.tokens == codebook_size
        num_images, num_cells = unknown.shape
        self.confidence = torch.zeros_like(self.tokens, dtype=torch.float32)
        self.confidence.masked_fill_(unknown, torch.nan)
        alternatives = (num_images, num_cells, min(NUM_ALTERNATIVES, codebook_size))
        self.alternative_ids = self.tokens.new_full(alternatives, codebook_size)
        self.alternative_probs = self.confidence.new_zeros(alternatives)
        self.counts = [
            reveal_counts(config.schedule, int(number), config.num_steps)
            for number in unknown.sum(1)
        ]
        self.num_steps = max(1, *map(len, self.counts))
        self.ranks = self._order_ranks()

    def run(self, wanted: Callable[[int], bool]) -> Iterator[StepState]:
        self.condition = self.network.condition(self.labels)
        if self.null_label is not None:
            null = self.labels.new_full((1,), self.null_label)
            self.null_condition = self.network.condition(null)
        for step in range(self.num_steps):
            before = self.tokens
            live = [row for row in range(len(self.counts)) if wanted(row)]
            if not live:
                return
            rows = [row for row in live if step < len(self.counts[row])]
            for temperature, group in self._by_temperature(step, rows).items():
                self._reveal(step, group, temperature)
            yield self._state(step, before)

    def _by_temperature(self, step: int, rows: list[int]) -> dict[float, list[int]]:
        """Return the rows by the temperature of their step; one unless steps differ in number."""
        groups: dict[float, list[int]] = {}
        config = self.config
        for row in rows:
            temperature = temperature_at(
                config.temperature,
                step,
                len(self.counts[row]),
                first=config.first_step_temperature,
                last=config.last_step_temperature,
            )
            groups.setdefault(temperature, []).append(row)
        return groups

    def _reveal(self, step: int, rows: list[int], temperature: float) -> None:
        config, device = self.config, self.tokens.device
        index = torch.tensor(rows, device=device)
        counts = torch.tensor([self.counts[row][step] for row in rows], device=device)
        unknown = self.tokens[index] == self.num_codes
        by_confidence = self.order.cells is None
        candidates = unknown
        if not by_confidence:
            candidates = _first_cells(-self.ranks[index], unknown, counts)
        logits = self._logits(index, candidates, self._scales(step, rows))
        top_k, top_p = config.top_k, config.top_p
        draw = self.chance.draw(
            step, rows, logits, candidates, temperature=temperature, top_k=top_k, top_p=top_p
        )
        if by_confidence:
            noise = (self.chance.gumbel(step, rows) * self._noise_scales(step, rows)).to(device)
            score = torch.zeros_like(noise)
            score[candidates] = draw.log_probs
            chosen = _first_cells(score + noise, unknown, counts)
            self._write(index, chosen, draw.select(chosen[candidates]))
        else:
            self._write(index, candidates, draw)

    def _write(self, index: Tensor, chosen: Tensor, draw: Draw) -> None:
        """Put the drawn codes into the grids, which are replaced: states hold the old ones."""
        cell_row, cell = chosen.nonzero(as_tuple=True)
        where = (index[cell_row], cell)
        ids, probs = draw.alternatives()
        self.tokens = self.tokens.index_put(where, draw.codes)
        self.confidence = self.confidence.index_put(where, draw.log_probs)
        self.alternative_ids = self.alternative_ids.index_put(where, ids)
        self.alternative_probs = self.alternative_probs.index_put(where, probs)

    def _logits(self, index: Tensor, candidates: Tensor, scales: Tensor) -> Tensor:
        """Return the guided float32 logits over real codes at the candidate cells: (M, K)."""
        tokens, condition = self.tokens[index], self.condition[index]
        cell_row, cell = candidates.nonzero(as_tuple=True)
        guided = scales != 1
        if not bool(guided.any()):
            hidden = self.network.hidden_at(tokens, condition, candidates).float()
        else:
            null = self.null_condition.expand(int(guided.sum()), *condition.shape[1:])
            both = self.network.hidden_at(
                torch.cat([tokens, tokens[guided]]),
                torch.cat([condition, null]),
                torch.cat([candidates, candidates[guided]]),
            ).float()
            hidden, unconditional = both[: len(cell)], both[len(cell) :]
            # Logits are an affine map of these vectors, so guiding the vectors guides the logits.
            # Rows at scale 1 keep the conditional ones themselves, to the bit.
            is_guided = guided[cell_row]
            scale = scales[cell_row][is_guided, None]
            hidden[is_guided] = unconditional + scale * (hidden[is_guided] - unconditional)
        return self.network.logits_of(hidden, cell)[:, : self.num_codes].float()

    def _scales(self, step: int, rows: list[int]) -> Tensor:
        scales = []
        for row in rows:
            counts = self.counts[row]
            share = sum(counts[: step + 1]) / sum(counts)
            guidance = (self.config.guidance_schedule, self.config.guidance_scale)
            scales.append(
                guidance_at(*guidance, step, len(counts), share, self.config.guidance_power)
            )
        if self.null_label is None:
            scales = [1.0] * len(rows)
        return torch.tensor(scales, dtype=torch.float32, device=self.tokens.device)

    def _noise_scales(self, step: int, rows: list[int]) -> Tensor:
        noise = (self.config.noise_schedule, self.config.choice_temperature)
        return torch.tensor([[noise_at(*noise, step, len(self.counts[row]))] for row in rows])

    def _order_ranks(self) -> Tensor:
        """Return float32 (B, N), each position's place in the order; 0 where none is set."""
        rows, columns = self.grid[1:3]
        ranks = torch.zeros(self.tokens.shape)
        cells_of = self.order.cells
        for row in range(len(ranks)):
            if cells_of is None:
                break
            cells = cells_of((rows, columns), self.chance.generator(row))
            # The tokens of a cell follow each other.
            order = torch.arange(ranks.shape[1]).view(len(cells), -1)[cells].flatten()
            ranks[row, order] = torch.arange(len(order), dtype=torch.float32)
        return ranks.to(self.tokens.device)

    def _state(self, step: int, before: Tensor) -> StepState:
        # A copy each: who receives a state may write into it without changing the decoding.
        return StepState(
            index=step,
            num_steps=self.num_steps,
            tokens=self.tokens.clone().view(self.grid),
            newly_revealed=(self.tokens != before).view(self.grid),
            confidence=self.confidence.clone().view(self.grid),
            alternative_ids=self.alternative_ids.clone().view(*self.grid, -1),
            alternative_probs=self.alternative_probs.clone().view(*self.grid, -1),
        )


def _first_cells(score: Tensor, allowed: Tensor, counts: Tensor) -> Tensor:
    """Return bool (B, N), True at the `counts` allowed cells with the highest score of each row."""
    # Ties and cells that may not be chosen are settled by position, the same on every run.
    score = score.masked_fill(~allowed, -torch.inf)
    order = score.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(score.shape[1], device=score.device)
    chosen = torch.zeros_like(allowed)
    return chosen.scatter(1, order, places < counts[:, None])


def _check_arguments(
    tokens: Tensor,
    labels: Tensor,
    codebook_size: int,
    null_label: int | None,
    seeds: Sequence[int],
) -> None:
    if codebook_size < 2:
        raise ValueError(f"codebook_size must be at least 2; got {codebook_size}")
    if tokens.dtype != torch.int64 or tokens.ndim not in (3, 4) or 0 in tokens.shape:
        raise ValueError(
            "tokens must be int64 (B, h, w) and not empty; "
            f"got {tokens.dtype} {tuple(tokens.shape)}"
        )
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high > codebook_size:
        raise ValueError(
            f"tokens must lie in [0, {codebook_size}]; got values from {low} to {high}"
        )
    if labels.dtype != torch.int64 or labels.shape != tokens.shape[:1]:
        raise ValueError(
            f"labels must be int64 ({len(tokens)},); got {labels.dtype} {tuple(labels.shape)}"
        )
    if labels.device != tokens.device:
        raise ValueError(f"labels must be on {tokens.device}, as tokens are; got {labels.device}")
    if null_label is not None and null_label < 0:
        raise ValueError(f"null_label must be None or at least 0; got {null_label}")
    if len(seeds) != len(tokens):
        raise ValueError(f"seeds must hold one seed for each of {len(tokens)} images; got {seeds}")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
            raise ValueError(f"seeds must be whole numbers in [0, 2**64); got {seed!r}")
