"""A frozen base model with one LoRA adapter that is swapped in place: losses, gradients, per-token statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.tokens import Tokens, TokenStats
from bench.core.update import Array, Layout
from bench.corpus.encoding import Fitting, encode_fitting, encode_records, label_rows
from bench.corpus.task import Record
from bench.model import loading, probe
from bench.model.merged import Merged
from bench.model.products import initial_factors, with_products
from bench.model.text import start_of, tokenise
from bench.spec.run import LoraSpec, ModelSpec

#: logits held at once by ``stats``, in values (16 MiB as float32), so that memory does not grow with the records;
#: and those whose moments are taken at once: few enough to stay in a processor's cache
_CHUNK = 2**22
_CACHED = 2**20


class LoraModel:
    """One base model in memory for all parties; an adapter is a flat array that is copied in.

    An adapter may be *wide* (``bench.model.products``): followed by dense changes of the targets' frozen weights.

    layout: the adapter's tensors in the order of the model's own parameters, lora_A before lora_B, named as PEFT names
    them in a saved adapter (``base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight``). module: the PeftModel.
    start: the tokens in front of every record (``ModelSpec.bos``). The base is frozen and in evaluation mode; the
    adapter's parameters are float32 whatever the base's type.
    """

    def __init__(self, module: Any, tokenizer: Any, device: torch.device, start: Sequence[int] = ()) -> None:
        self.module = module
        self.tokenizer = tokenizer
        self.start = tuple(start)
        self.device = device
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        names = tuple(name.replace(".default.", ".") for name, _ in named)
        self.layout = Layout(names, tuple(tuple(p.shape) for _, p in named))
        self._parameters: list[torch.nn.Parameter] = [p for _, p in named]
        base = module.get_base_model()
        self.vocab_size = int(base.get_output_embeddings().weight.shape[0])
        self.limits = probe.limits(base)
        self._features, self._head = _split(base, device)
        self._merged = Merged(module, self.layout, device)

    @classmethod
    def load(cls, path: Path, model: ModelSpec, lora: LoraSpec, device: str = "auto") -> LoraModel:
        """The base model in the directory ``path`` with an adapter that contributes nothing yet.

        device: ``auto`` (CUDA where there is a GPU), ``cpu``, ``cuda`` or ``cuda:N``. Raises UsageError for a directory
        without a loadable model or tokenizer, a BOS that is asked for and not there, an absent device, a LoRA target
        that matches nothing, 4- or 8-bit loading without bitsandbytes, and a model that is not causal or not finite
        (``bench.model.probe``). Bounds PyTorch's threads to the cores that this process may use.
        """
        loading.bound_threads()
        where = loading.choose_device(device)
        tokenizer = loading.load_tokenizer(path)
        start = start_of(tokenizer, model.bos, path)
        base = loading.load_base(path, model, where)
        probe.check_weights(base, path, model)
        module = loading.add_lora(base, lora, where)
        with probe.running(path, "a few tokens"):
            loaded = cls(module, tokenizer, where, start)
            loaded.set_adapter(None)
            probe.check(loaded._logits, path, model, loaded.limits, tokenizer.all_special_ids)
        return loaded

    def initial_adapter(self, rng: np.random.Generator) -> Array:
        """(layout.size,) ``bench.model.products.initial_factors``; with it the model's outputs are the base's."""
        return initial_factors(self.layout, rng)

    def set_adapter(self, values: NDArray[np.floating] | None) -> None:
        """Copy a flat adapter into the model, in place; None makes it exactly the base model (all zero).

        values: (layout.size,), or a wide adapter (``wide.size``,), whose dense changes are put on the frozen weights
        until the next call. Raises SiloBenchError where the shape is another or a value is not finite in float32.
        """
        if values is None:
            values = np.zeros(self.layout.size, dtype=np.float32)
        wide = values.shape != (self.layout.size,)
        if wide and values.shape != (self.wide.size,):
            raise SiloBenchError(f"an adapter of shape {values.shape} was given, expected ({self.layout.size},)")
        with np.errstate(over="ignore"):
            flat = np.array(values, dtype=np.float32)
        if not np.isfinite(flat).all():
            raise SiloBenchError(
                f"an adapter with {int((~np.isfinite(flat)).sum())} values that are not finite was given"
            )
        with torch.no_grad():
            for parameter, (_, tensor) in zip(
                self._parameters, self.layout.tensors(flat[: self.layout.size]), strict=True
            ):
                parameter.copy_(torch.from_numpy(tensor))
        self._merged.set(flat if wide else None)

    def get_adapter(self) -> Array:
        """A copy of the adapter as it stands, which ``set_adapter`` puts back: (layout.size,), or (wide.size,) while
        there are changes of the frozen weights."""
        own = [p.detach().cpu().numpy().ravel() for p in self._parameters]
        merged = self._merged.values
        return np.concatenate(own if merged is None else [*own, merged])

    @cached_property
    def wide(self) -> Layout:
        """The layout of a wide adapter."""
        return with_products(self.layout)

    def parameters(self) -> list[torch.nn.Parameter]:
        """The adapter's parameters, in canonical order; the only ones that are trained."""
        return list(self._parameters)

    def encode(self, records: Sequence[Record], max_tokens: int, answer_prefix: str = "") -> Tokens:
        """Tokens of prompt + text + answer behind ``start``, at most ``max_tokens`` of its own a record
        (``bench.corpus.encoding.encode_records``). Raises UsageError for one that the model has no row for too."""
        tokens = encode_records(self._tokenise, records, max_tokens, answer_prefix, self.start)
        probe.check_vocabulary(tokens.ids, records, self.limits, self.tokenizer)
        return tokens

    def encode_fitting(self, records: Sequence[Record], max_tokens: int, answer_prefix: str = "") -> Fitting:
        """``encode`` of those that fit (``bench.corpus.encoding.encode_fitting``)."""
        found = encode_fitting(self._tokenise, records, max_tokens, answer_prefix, self.start)
        probe.check_vocabulary(found.tokens.ids, [records[i] for i in found.kept], self.limits, self.tokenizer)
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids without the ``start`` that they may begin with; other special tokens included."""
        given = [int(i) for i in ids]
        own = given[len(self.start) :] if tuple(given[: len(self.start)]) == self.start else given
        return str(self.tokenizer.decode(own, clean_up_tokenization_spaces=False))

    def label_rows(self, texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """The tokens of each label text (what follows ``answer_prefix``). Raises UsageError unless they differ."""
        found = label_rows(self._tokenise, texts)
        for text, row in zip(texts, found, strict=True):
            probe.check_token(max(row), f"The label text {text!r}", self.limits, self.tokenizer)
        return found

    def losses(self, tokens: Tokens) -> torch.Tensor:
        """(n,) float32, differentiable: each record's mean negative log-likelihood over its predicted tokens, in nats.

        Every record stands alone: no other record's length or presence changes its value.
        """
        return self._losses(tokens)[0]

    def losses_and_stats(self, tokens: Tokens) -> tuple[torch.Tensor, TokenStats]:
        """``losses``, and the ``stats`` (without choices) that the same forward pass gives."""
        losses, logits, targets = self._losses(tokens)
        none = torch.zeros(0, dtype=torch.long, device=self.device)
        size = max(1, _CACHED // self.vocab_size)
        with torch.no_grad():
            parts = zip(torch.split(logits.detach(), size), torch.split(targets, size), strict=True)
            found = [_moments(some.clone(), wanted, none) for some, wanted in parts]
        stats = _blank(tokens)
        _fill(stats, np.arange(len(tokens)), tokens, torch.cat(found).cpu().numpy() if found else np.zeros((0, 4)))
        return losses, stats

    def _losses(self, tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(losses, logits of all predicted positions as float32, which tokens stand there)."""
        if len(tokens) == 0:
            empty = torch.zeros(0, device=self.device, requires_grad=True)
            return empty, empty.reshape(0, self.vocab_size), torch.zeros(0, dtype=torch.long, device=self.device)
        rows, columns = _positions(tokens, self.device)
        features = self._features(tokens)[rows, columns - 1]
        targets = torch.from_numpy(tokens.ids).to(self.device, torch.long)[rows, columns]
        logits = self._head(features).float()
        nll = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        counts = torch.from_numpy(tokens.predicted.sum(1)).to(self.device).clamp(min=1)
        return torch.zeros(len(tokens), device=self.device).index_add(0, rows, nll) / counts, logits, targets

    @torch.no_grad()
    def stats(self, tokens: Tokens, label_ids: Sequence[int] = (), batch: int = 16) -> TokenStats:
        """One forward pass over all records, ``batch`` at a time, longest first.

        The result does not depend on the order or the batch beyond float32 rounding. ``choices`` is NaN for a record
        without an answer, and None where no ``label_ids`` are given.
        """
        n = len(tokens)
        found = _blank(tokens)
        choices = np.full((n, len(label_ids)), np.nan, dtype=np.float32)
        labels = torch.tensor(list(label_ids), dtype=torch.long, device=self.device)
        order = np.argsort(-tokens.lengths, kind="stable")
        for start in range(0, n, batch):
            index = order[start : start + batch]
            part = tokens.take(index)
            values = self._describe(part, labels)
            rows, columns = _fill(found, index, part, values)
            answers = columns == part.answer[rows]
            choices[index[rows[answers]]] = values[answers, 4:]
        return replace(found, choices=choices) if len(label_ids) else found

    def _describe(self, tokens: Tokens, labels: torch.Tensor) -> NDArray[np.float32]:
        """(predicted positions, 4 + labels): log p(token), mean and sd of log p under p, 1 where no token is likelier,
        log p of each label."""
        rows, columns = _positions(tokens, self.device)
        features = self._features(tokens)[rows, columns - 1]
        targets = torch.from_numpy(tokens.ids).to(self.device, torch.long)[rows, columns]
        size, cached = max(1, _CHUNK // self.vocab_size), max(1, _CACHED // self.vocab_size)
        found = [torch.zeros(0, 4 + len(labels), device=self.device)]
        for i in range(0, len(targets), size):
            logits = self._head(features[i : i + size]).float()
            parts = zip(torch.split(logits, cached), torch.split(targets[i : i + size], cached), strict=True)
            found += [_moments(some, wanted, labels) for some, wanted in parts]
        values: NDArray[np.float32] = torch.cat(found).cpu().numpy()
        return values

    def _logits(self, tokens: Tokens) -> torch.Tensor:
        return self._head(self._features(tokens))

    def _tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        return tokenise(self.tokenizer, texts)


def _blank(tokens: Tokens) -> TokenStats:
    """Statistics to be filled in, zeros so far."""
    logp, mean, sd = (np.zeros(tokens.ids.shape, dtype=np.float32) for _ in range(3))
    return TokenStats(logp, tokens.predicted, mean, sd, None, np.zeros(tokens.ids.shape, dtype=bool))


def _fill(
    stats: TokenStats, index: NDArray[np.integer], part: Tokens, values: NDArray[np.floating]
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Put ``values`` (predicted positions, 4 or more) of ``part``, whose records are rows ``index`` of ``stats``, where
    they belong. Returns rows and columns of the positions within ``part``."""
    rows, columns = np.nonzero(part.predicted)
    at = index[rows], columns
    assert stats.mean is not None
    assert stats.sd is not None
    assert stats.first is not None
    stats.logp[at], stats.mean[at], stats.sd[at] = values[:, :3].T
    stats.first[at] = values[:, 3] > 0
    return rows, columns


def _positions(tokens: Tokens, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of the predicted tokens. Raises ValueError for one at position 0, which nothing predicts."""
    rows, columns = np.nonzero(tokens.predicted)
    if len(columns) and columns.min() == 0:
        raise ValueError("the token at position 0 has no context that predicts it")
    return torch.from_numpy(rows).to(device), torch.from_numpy(columns).to(device)


def _moments(logits: torch.Tensor, targets: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(m, 4 + labels) from float32 logits (m, vocabulary), which are overwritten.

    With p = softmax(logits): log p(target), mu = sum p log p, sigma = sqrt(sum p (log p - mu)^2), 1 where the target is
    a most likely token or else 0, log p(labels) (Min-K%++, Zhang et al. 2024, eq. 3). Taken about the largest logit and
    then about the mean, so that no large terms cancel.
    """
    shifted = logits.sub_(logits.amax(1, keepdim=True))
    weights = shifted.exp()
    total = weights.sum(1, keepdim=True)
    wanted = torch.cat([targets[:, None], labels.expand(len(targets), -1)], 1)
    below = shifted.gather(1, wanted)  # how far the wanted logits lie below the largest
    picked = below - total.log()
    product = weights * shifted
    mean = product.sum(1, keepdim=True) / total
    variance = torch.mul(weights, shifted.sub_(mean).square_(), out=product).sum(1, keepdim=True) / total
    first = (below[:, :1] == 0).float()
    return torch.cat([picked[:, :1], mean - total.log(), variance.sqrt(), first, picked[:, 1:]], 1)


Features = Callable[[Tokens], torch.Tensor]
Head = Callable[[torch.Tensor], torch.Tensor]


def _split(base: Any, device: torch.device) -> tuple[Features, Head]:
    """(features, head) with head(features(tokens)) the logits, (n, length, vocabulary).

    For most models features are the last hidden states and head is the output layer, which is then applied only where a
    prediction is needed. A probe decides: where it does not give the model's own logits (soft caps, scaled logits),
    features are the logits and head does nothing.
    """

    def inputs(tokens: Tokens) -> dict[str, Any]:
        ids = torch.from_numpy(tokens.ids).to(device, torch.long)
        if len(tokens) == 0 or int(tokens.lengths.min()) == ids.shape[1]:
            return {"input_ids": ids, "use_cache": False}
        mask = np.arange(ids.shape[1]) < tokens.lengths[:, None]
        return {"input_ids": ids, "use_cache": False, "attention_mask": torch.from_numpy(mask).to(device, torch.long)}

    def hidden(tokens: Tokens) -> torch.Tensor:
        states: torch.Tensor = base.base_model(**inputs(tokens)).last_hidden_state
        return states

    def logits(tokens: Tokens) -> torch.Tensor:
        found: torch.Tensor = base(**inputs(tokens)).logits
        return found

    def identity(features: torch.Tensor) -> torch.Tensor:
        return features

    head: Head = base.get_output_embeddings()
    ids = np.array([[1, 2, 3]], dtype=np.int32)
    probe = Tokens(ids, np.array([3], dtype=np.int32), ids > 1, np.array([-1], dtype=np.int32))
    with torch.no_grad():
        expected = logits(probe).float()
        try:
            error = (head(hidden(probe)).float() - expected).abs().max()
        except (AttributeError, RuntimeError, TypeError):
            return logits, identity
    separable = bool(error <= 1e-5 * expected.abs().max())
    return (hidden, head) if separable else (logits, identity)
