"""MaskBit's sampler: the original's whole runs with its own random numbers, and its tables."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from maskgit_core import MaskGIT, SamplingConfig
from maskgit_core.converters import convert_checkpoint
from maskgit_core.decoding.chance import Chance
from maskgit_core.decoding.draw import Draw
from maskgit_core.decoding.groups import TokenGroups
from maskgit_core.decoding.loop import decode_steps
from maskgit_core.schedules import guidance_at, noise_at, reveal_counts, temperature_at
from maskgit_core.weights.families.sampling import maskbit_sampling
from parity_files import PARITY, TOLERANCE, tensors

GENERATOR = PARITY / "maskbit-generator" / "maskbit_generator_6bit.bin"
TOKENIZER = PARITY / "maskbit-tokenizer" / "maskbit_tokenizer_6bit.bin"
FACTS = json.loads((PARITY / "maskbit-sampler" / "fixture.json").read_text())
TABLES = json.loads((PARITY / "maskbit-sampler" / "tables.json").read_text())
RUNS = FACTS["machine_readable"]["runs"]
# Their words for ours.
SCHEDULES = {"arccos": "arccos_floor"}
GUIDANCE = {"none": "constant", "linear": "elapsed", "cosine": "power_cosine"}


def config_of(run: dict) -> SamplingConfig:
    """The settings of one of the original's runs."""
    mask = run.get("mask_schedule_strategy") or run["gen_mask_schedule_strategy"]
    annealed = run["use_sampling_annealing"]
    return SamplingConfig(
        num_steps=run["num_steps"],
        schedule=SCHEDULES.get(mask, mask),
        guidance_scale=1 + run["guidance_scale"],
        guidance_schedule=GUIDANCE[run["guidance_annealing"]],
        guidance_power=run["scale_pow"],
        choice_temperature=run["randomize_temperature"],
        temperature=1.3 if annealed else run["softmax_temperature"],
        last_step_temperature=0.5 / 1.3 if annealed else 1.0,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> MaskGIT:
    folder = tmp_path_factory.mktemp("maskbit")
    convert_checkpoint(TOKENIZER, GENERATOR, folder, num_heads=4)
    return MaskGIT.from_pretrained(folder)


class Recorded(Chance):
    """The random numbers that the original drew; notes what it is asked."""

    def __init__(self, run: str) -> None:
        noise = tensors("maskbit-sampler", "inputs")
        self.tokens, self.confidence = (
            noise[f"{run}.token_gumbel"],
            noise[f"{run}.confidence_gumbel"],
        )
        self.logits: list[torch.Tensor] = []
        self.positions: list[torch.Tensor] = []
        self.log_probs: list[torch.Tensor] = []

    def draw(self, step, images, logits, positions, *, temperature, top_k, top_p):
        assert (top_k, top_p) == (None, None)
        log_probs = (logits / temperature).log_softmax(-1)
        noise = self.tokens[step].flatten(1, 2)[list(images)][positions]
        codes = (log_probs + noise).argmax(-1)
        drawn = log_probs.gather(1, codes[:, None])[:, 0]
        self.logits.append(logits / temperature)
        self.positions.append(positions)
        self.log_probs.append(drawn)
        return Draw(codes, drawn, logits, temperature)

    def gumbel(self, step, images):
        return self.confidence[step].flatten(1)[list(images)]


@pytest.mark.parametrize("run", RUNS)
@torch.no_grad()
def test_whole_runs_are_the_originals(model, run):
    config, wanted = config_of(RUNS[run]), tensors("maskbit-sampler", "expected")
    wanted = {name[2:]: tensor for name, tensor in wanted.items() if name.startswith(f"{run}.")}
    chance, labels = Recorded(run), tensors("maskbit-sampler", "inputs")[f"{run}.labels"]
    masked = torch.full((2, 8, 8, 2), 8)
    steps = decode_steps(
        model.transformer,
        masked,
        labels,
        config,
        codebook_size=8,
        null_label=model.null_label,
        seeds=[0, 0],
        chance=chance,
    )
    before = masked
    for step, state in enumerate(steps):
        assert torch.equal(before.view(2, 64, 2), wanted["tokens_in"][step].long())
        new, predicted = state.newly_revealed, wanted["predicted"][step].view(2, 8, 8, 2).long()
        assert torch.equal(state.tokens[new], predicted[new])
        open_ = chance.positions[step]
        theirs = wanted["scaled_logits"][step].flatten(1, 2)[open_]
        torch.testing.assert_close(chance.logits[step], theirs, atol=5e-4, rtol=1e-4)
        scale = noise_at("remaining", config.choice_temperature, step, config.num_steps)
        noisy = chance.log_probs[step] + chance.gumbel(step, [0, 1])[open_] * scale
        theirs = wanted["confidence"][step].flatten(1)[open_]
        torch.testing.assert_close(noisy, theirs, atol=1e-3, rtol=1e-4)
        before = state.tokens
    assert step == config.num_steps - 1
    ids = TokenGroups(2, 8).join(before)
    assert torch.equal(ids.flatten(1), wanted["ids"])
    images = (model.tokenizer.decode_tokens(ids) + 1) / 2
    torch.testing.assert_close(images, wanted["image"], **TOLERANCE)


def counted() -> list[tuple[str, int, int, list[int]]]:
    """(mask schedule, positions, steps, masked after each step) of the original's tables."""
    found = []
    for schedule, sizes in TABLES["masked_groups"]["tables"].items():
        for size, entries in sizes.items():
            cells, groups = int(size.split()[1]), int(size.split()[3])
            for steps, entry in entries.items():
                found.append((schedule, cells * groups, int(steps.split()[1]), entry))
    return found


def test_counts_are_the_originals():
    cases = counted()
    assert len(cases) > 50
    for schedule, positions, steps, entry in cases:
        counts = reveal_counts(SCHEDULES.get(schedule, schedule), positions, steps)
        masked = [positions - sum(counts[: step + 1]) for step in range(steps)]
        # One group is masked again on paper after the last step, whose draw is what is decoded.
        assert masked[:-1] == entry["masked_after_step"][:-1], (schedule, positions, steps)
        assert masked[-1] == 0


@pytest.mark.parametrize("name", TABLES["published_settings"]["tables"])
def test_published_settings_give_the_originals_schedules(name):
    entry = TABLES["published_settings"]["tables"][name]
    config, steps = config_of(entry["settings"]), entry["settings"]["num_steps"]
    published = maskbit_sampling(int(name.split("_")[2].removesuffix("bit")))
    assert config in (published.usual, *published.presets.values())
    scales = [
        guidance_at(
            config.guidance_schedule, config.guidance_scale, s, steps, 0.5, config.guidance_power
        )
        for s in range(steps)
    ]
    assert np.allclose(np.array(scales) - 1, entry["guidance_weight_per_step"], 1e-5, 2e-5)
    noise = [
        noise_at(config.noise_schedule, config.choice_temperature, s, steps) for s in range(steps)
    ]
    assert np.allclose(noise, entry["noise_temperature_per_step"], 1e-5, 2e-5)
    counts = reveal_counts(config.schedule, 512, steps)
    masked = [512 - sum(counts[: step + 1]) for step in range(steps)]
    assert masked[:-1] == entry["masked_after_step"][:-1]


def test_guidance_and_annealed_temperatures_are_the_originals():
    for name, weights in TABLES["guidance_weight_per_step"]["tables"].items():
        words = name.replace(",", "").split()
        steps, weight, schedule, power = int(words[1]), float(words[3]), words[4], float(words[6])
        scales = [
            guidance_at(GUIDANCE[schedule], 1 + weight, step, steps, 0.5, power)
            for step in range(steps)
        ]
        assert np.allclose(np.array(scales) - 1, weights, 1e-5, 2e-5)
    for name, wanted in TABLES["softmax_temperature_with_sampling_annealing"]["tables"].items():
        steps = int(name.split()[1])
        found = [temperature_at(1.3, step, steps, last=0.5 / 1.3) for step in range(steps)]
        assert np.allclose(found, wanted)
