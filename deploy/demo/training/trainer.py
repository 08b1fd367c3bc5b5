"""Trains the transformer: processes that share their gradients, a budget, a checkpoint."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn

from training.checkpoint import Average, State
from training.examples import Examples
from training.transformer import flow_loss, new_transformer

logger = logging.getLogger(__name__)

_BATCH = 32
_MATRIX_RATE, _REST_RATE = 0.02, 2e-3
_REPORT_EVERY, _SAVE_EVERY = 100, 250


@dataclass(frozen=True)
class Budget:
    """How long to train: a number of steps (repeatable), or minutes (for a shared machine)."""

    steps: int | None = None
    minutes: float | None = None

    def progress(self, step: int, elapsed: float) -> float:
        """Share of the budget that is used up, 0 to 1, `elapsed` seconds in."""
        used = [step / self.steps] if self.steps else []
        used += [elapsed / 60 / self.minutes] if self.minutes else []
        return min(1.0, max(used))


@dataclass(frozen=True)
class Run:
    """One training of the transformer."""

    examples: Path
    checkpoint: Path
    budget: Budget
    processes: int
    seed: int


def train_transformer(run: Run) -> None:
    """Trains until the budget is used up; goes on from `run.checkpoint` if that exists."""
    rendezvous = run.checkpoint.with_suffix(".rendezvous").resolve()
    rendezvous.unlink(missing_ok=True)
    spawn(_train, (run, rendezvous), nprocs=run.processes)
    rendezvous.unlink(missing_ok=True)


def _train(rank: int, run: Run, rendezvous: Path) -> None:
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.WARNING, format="%(message)s")
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // run.processes))
    distributed.init_process_group(
        "gloo", f"file://{rendezvous}", rank=rank, world_size=run.processes
    )
    torch.manual_seed(run.seed)
    model = new_transformer()
    model.train()
    state = State(model, _optimizers(model), Average(model))
    if run.checkpoint.exists():
        state.restore(run.checkpoint)
    model.compile_repeated_blocks()
    _Trainer(run, rank, state, Examples.load(run.examples)).train()
    distributed.destroy_process_group()


@dataclass
class _Trainer:
    run: Run
    rank: int
    state: State
    examples: Examples

    def train(self) -> None:
        gradient = _shared_gradient(self.state.model)
        began, recent = time.monotonic() - self.state.elapsed, 0.0
        while True:
            self.state.elapsed = _agreed(time.monotonic() - began)
            progress = self.run.budget.progress(self.state.step, self.state.elapsed)
            due = self.state.step % _SAVE_EVERY == 0 or progress >= 1
            if due and self.rank == 0:
                self.state.save(self.run.checkpoint)
            if progress >= 1:
                return
            recent += self._step(gradient, progress)
            if self.state.step % _REPORT_EVERY == 0:
                logger.info(
                    "transformer step %d loss %.4f at %.0f s (%.0f %%)",
                    *(self.state.step, recent / _REPORT_EVERY, self.state.elapsed, 100 * progress),
                )
                recent = 0.0

    def _step(self, gradient: Tensor, progress: float) -> float:
        """One step on a batch of this process's own, with everyone's gradient; gives the loss."""
        state = self.state
        seed = (self.run.seed * 1_000_003 + state.step) * 64 + self.rank
        gradient.zero_()
        generator = torch.Generator().manual_seed(seed)
        loss = flow_loss(state.model, self.examples, _BATCH, generator)
        loss.backward()
        distributed.all_reduce(gradient)
        gradient.div_(self.run.processes)
        nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
        rates = (_MATRIX_RATE, _REST_RATE)
        for optimizer, rate in zip(state.optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * _share_of_rate(state.step, progress)
            optimizer.step()
        state.step += 1
        state.average.update(state.model, state.step)
        return float(loss.detach())


def _agreed(elapsed: float) -> float:
    """The first process's clock, so that all of them follow the same schedule."""
    clock = torch.tensor(elapsed, dtype=torch.float64)
    distributed.broadcast(clock, src=0)
    return float(clock)


def _share_of_rate(step: int, progress: float) -> float:
    """A short rise, a plateau, and a fall to zero in the last third."""
    return min((step + 1) / 100, 1.0, 3 * (1 - progress))


def _optimizers(model: FluxTransformer2DModel) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for everything else."""
    inside: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        in_block = "transformer_blocks" in name and parameter.ndim == 2
        (inside if in_block else rest).append(parameter)
    return [
        torch.optim.Muon(inside, lr=_MATRIX_RATE, weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(rest, lr=_REST_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _shared_gradient(model: nn.Module) -> Tensor:
    """One flat tensor all gradients are views of, so that one all-reduce averages them."""
    parameters = list(model.parameters())
    flat = torch.zeros(sum(parameter.numel() for parameter in parameters))
    parts = flat.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)
    return flat
