"""The model and the records of an implementation audit: a record's gradient is a vector along one coordinate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.streams import SecretStreams, Streams
from bench.core.tokens import Tokens
from bench.core.update import Layout
from bench.defense.parts import Trainer, Training, TrainJob
from bench.spec.run import LocalSpec

Floats = NDArray[np.float64]

#: most records that one step holds (``LocalSpec.batch``)
MOST = 4096
#: the length of a canary's gradient: beyond every clip, whatever it is
LENGTH = 100.0
WIDTH = 64


class CanaryModel:
    """What a trainer needs of a ``LoraModel``: a record's loss is linear in one value of a LoRA matrix, which its first
    token names; ``lengths[second token]`` is its slope, times ``sign``."""

    def __init__(self, coordinates: int, lengths: Sequence[float] = (LENGTH,)) -> None:
        import torch

        rows = -(-coordinates // WIDTH)
        self._map: Any = torch.nn.Linear(WIDTH, rows, bias=False)
        self.weight: Any = self._map.weight
        self.module = torch.nn.ModuleDict({"lora_B": self._map})
        with torch.no_grad():
            self.weight.zero_()
        self.layout = Layout(("canaries.lora_B.weight",), ((rows, WIDTH),))
        self.lengths, self.sign = np.asarray(lengths, dtype=np.float64), 1.0
        self.device = torch.device("cpu")

    def parameters(self) -> list[Any]:
        return [self.weight]

    def losses(self, tokens: Tokens) -> Any:
        """(records,) losses whose gradients are ``lengths`` along the records' own coordinates."""
        import torch

        at, n = tokens.ids[:, 0].astype(np.int64), len(tokens)
        into, out = torch.zeros(n, WIDTH), torch.zeros(n, len(self.weight))
        into[torch.arange(n), torch.from_numpy(at % WIDTH)] = 1.0
        slopes = torch.from_numpy(self.sign * self.lengths[tokens.ids[:, 1]]).float()
        out[torch.arange(n), torch.from_numpy(at // WIDTH)] = slopes
        return (self._map(into) * out).sum(1)

    def values(self) -> Floats:
        found: Floats = self.weight.detach().numpy().ravel().astype(np.float64)
        return found


def train(
    trainer: Trainer,
    model: CanaryModel,
    tokens: Tokens,
    local: LocalSpec,
    nominal: int,
    *,
    round: int = 0,
    rounds: int = 1,
    state: dict[str, Any] | None = None,
    secret: SecretStreams | None = None,
) -> tuple[Training, Floats]:
    """(log, minus the change of every coordinate) of one round by the real trainer, secrets from the system."""
    start = model.values()
    order, own = Streams(1).generator("order", round), secret or SecretStreams("silo-0")
    given: Any = model
    job = TrainJob(given, tokens, local, local.lr, round, rounds, nominal, order, own, {} if state is None else state)
    training = trainer.train(job)
    return training, start - model.values()


def one_batch(batch: int) -> LocalSpec:
    """One step of plain gradient descent, which hands on what it is given."""
    return LocalSpec(steps=1, batch=min(batch, MOST), optimizer="sgd", lr=1.0)


def records(
    coordinates: Sequence[int], kinds: Sequence[int] | None = None, predicted: Sequence[int] | None = None
) -> Tokens:
    """A record for each of ``coordinates``. ``kinds``: which of the model's lengths, by default the first.
    ``predicted``: tokens that carry loss, by default one."""
    n = len(coordinates)
    count = np.ones(n, dtype=np.int64) if predicted is None else np.asarray(predicted[:n], dtype=np.int64)
    width = int(count.max(initial=1)) + 1
    ids = np.zeros((n, width), dtype=np.int32)
    ids[:, 0] = coordinates
    ids[:, 1] = 0 if kinds is None else kinds
    where = np.arange(width)
    return Tokens(
        ids, (count + 1).astype(np.int32), (where > 0) & (where <= count[:, None]), np.full(n, -1, dtype=np.int32)
    )
