"""What a run is made from: base model, records, splits, all tokenised and loaded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.assets.assets import Assets, ModelSource
from bench.core.streams import Streams
from bench.core.tokens import Tokens
from bench.corpus.pool import Pool, build_pool
from bench.corpus.task import Record, Task
from bench.model.lora import LoraModel
from bench.model.probe import check_length, check_longest
from bench.plugins.find import Plugins
from bench.spec.config import canonical_json
from bench.spec.result import Data
from bench.spec.run import RunSpec


@dataclass(frozen=True)
class Corpus:
    """A task's records that fit, tokenised. Row i of ``tokens`` is ``records[i]``; ``seen``: of each the prompt and
    text that the model sees, decoded from its tokens; ``cut``: ids of those whose text was cut. ``left_out``: how many
    of the task's records don't fit, by reason."""

    task: Task
    records: tuple[Record, ...]
    tokens: Tokens
    seen: Mapping[str, str]
    cut: frozenset[str] = frozenset()
    left_out: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def rows(self) -> dict[str, int]:
        return {record.id: row for row, record in enumerate(self.records)}

    def lengths(self) -> dict[str, int]:
        """A record's own tokens, after the cut at ``pool.max_tokens``; what stands in front of all is not counted."""
        return {r.id: int(n) - self.tokens.lead for r, n in zip(self.records, self.tokens.lengths, strict=True)}


@dataclass(frozen=True)
class Materials:
    """A run's model, corpus and pool. ``undecided``: candidates that a defense's records part makes the same as what
    was trained on, about which nothing is asked (``bench.training.units``)."""

    source: ModelSource
    model: LoraModel
    corpus: Corpus
    pool: Pool
    streams: Streams
    label_prices: Literal["sum", "mean"] = "sum"
    undecided: int = 0

    def tokens(self, ids: Iterable[str]) -> Tokens:
        """Tokenised records by id, in the order given."""
        return self.corpus.tokens.take([self.corpus.rows[i] for i in ids])

    def texts(self, ids: Iterable[str]) -> tuple[str, ...]:
        """The text that the model sees of each record, decoded from its own tokens: cut where they are cut, so that no
        score of the text knows more than the losses beside it."""
        chosen = tuple(ids)
        fresh = [i for i in dict.fromkeys(chosen) if i not in self._decoded]
        for i, own in zip(fresh, self.tokens(fresh).own(), strict=True):
            self._decoded[i] = self.model.decode(own.tolist())
        return tuple(self._decoded[i] for i in chosen)

    @cached_property
    def _decoded(self) -> dict[str, str]:
        return {}

    def gold(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Index of each record's label in ``task.labels``, -1 without one."""
        labels = list(self.corpus.task.labels)
        found = [self.pool.records[i].label for i in ids]
        return np.array([labels.index(x) if x in labels else -1 for x in found], dtype=np.int64)

    @cached_property
    def label_rows(self) -> tuple[tuple[int, ...], ...]:
        """The tokens of every label of the task."""
        task = self.corpus.task
        return self.model.label_rows([task.label_text(label) for label in task.labels])


def data_of(materials: Materials) -> Data:
    """What was given, left out and cut, and which secrets no model sees."""
    corpus, records = materials.corpus, materials.pool.records
    marked = [(record.id, secret.text) for record in records.values() for secret in record.secrets]
    return Data(
        given=len(corpus.records) + sum(corpus.left_out.values()),
        left_out=dict(corpus.left_out),
        used=len(records),
        cut=sum(i in corpus.cut for i in records),
        secrets=len(marked),
        undecided=materials.undecided,
        secrets_cut=sum(text not in corpus.seen.get(i, text) for i, text in marked),
    )


class Workshop:
    """Loads each model and corpus once for all runs that share it; holds the last of each only. ``say``: is called with
    what the user should hear of them, each time that they are asked for."""

    def __init__(
        self, plugins: Plugins, assets: Assets, device: str = "auto", say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.plugins, self.assets, self.device, self.say = plugins, assets, device, say
        self._model: tuple[str, ModelSource, LoraModel] | None = None
        self._corpus: tuple[str, Corpus] | None = None

    def materials(self, spec: RunSpec, seed: int) -> Materials:
        """Raises UsageError on bad records, too few of them, or a model that can't be had."""
        source, model = self._load_model(spec)
        long = check_length(model.limits, spec.pool.max_tokens, source.name, len(model.start))
        for warning in filter(None, (long, _elsewhere(model, spec))):
            self.say(warning)
        corpus = self._load_corpus(spec, model)
        streams = Streams(seed)
        pool = build_pool(corpus.records, corpus.lengths(), spec.pool, spec.federation, streams, corpus.seen)
        return Materials(source, model, corpus, pool, streams, spec.utility.labels)

    def _load_model(self, spec: RunSpec) -> tuple[ModelSource, LoraModel]:
        key = canonical_json([spec.model.model_dump(mode="json"), spec.federation.lora.model_dump(mode="json")])
        if self._model is None or self._model[0] != key:
            self._model = self._corpus = None  # free the former before loading another
            source = self.assets.model(spec.model)
            self._model = (key, source, LoraModel.load(source.path, spec.model, spec.federation.lora, self.device))
        return self._model[1], self._model[2]

    def _load_corpus(self, spec: RunSpec, model: LoraModel) -> Corpus:
        key = canonical_json([spec.task.model_dump(mode="json"), spec.pool.max_tokens])
        if self._corpus is None or self._corpus[0] != key:
            task = self.plugins.find("task", spec.task.name).build(spec.task.config)
            every = tuple(task.records(self.assets))
            found = model.encode_fitting(every, spec.pool.max_tokens, task.answer_prefix)
            check_longest(model, found.tokens, spec.model.name, spec.model)
            records = tuple(every[i] for i in found.kept)
            cut = frozenset(record.id for record, cut in zip(records, found.cut, strict=True) if cut)
            seen = seen_texts(model, records, found.tokens)
            self._corpus = (key, Corpus(task, records, found.tokens, seen, cut, found.left_out))
        return self._corpus[1]


def seen_texts(model: LoraModel, records: Sequence[Record], tokens: Tokens) -> dict[str, str]:
    """By id the prompt and text of each record as its ``tokens`` hold them, cut where they are cut."""
    ends = tokens.lengths if tokens.ends is None else tokens.ends
    rows = zip(records, tokens.ids, ends, strict=True)
    return {record.id: model.decode(ids[tokens.lead : end].tolist()) for record, ids, end in rows}


def _elsewhere(model: LoraModel, spec: RunSpec) -> str | None:
    """What to say where the adapter is not on the spec's targets (``bench.model.loading.choose_targets``)."""
    targets = spec.federation.lora.targets
    held = {name.rpartition(".lora_")[0] for name in model.layout.names}
    if all(any(one.endswith(f".{target}") for one in held) for target in targets):
        return None
    found = ", ".join(sorted({one.rpartition(".")[2] for one in held}))
    return f"this model has no {', '.join(targets)}: its adapter is on {found}, PEFT's default for its architecture"
