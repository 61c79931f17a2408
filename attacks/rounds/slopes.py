"""Per-record gradients against a known step of training, and what that tells of each record.

With u = -(after - before) the step as a gradient would have it, and g = g_i(before) record i's gradient there:

    cosine      <g, u> / |g| |u|          a record that was trained on drew the step towards its own gradient (Li et al.
                                          2023, "Effective passive membership inference attacks in federated learning
                                          against overparameterized models", the cosine attack)
    projection  <g, u> / |u|              the same with the record's weight: how much, to first order, the step lowered
                                          its loss
    difference  |U|^2 - |U - g|^2         = 2 <U, g> - |g|^2 with U = u rescaled to the median norm of the population's
                                          gradients, since an optimiser's step has no gradient's length (ibid., the
                                          gradient-difference attack)
    fall        loss_i(before) - loss_i(after)
                                          = <g, u> summed along the whole way: the projection, where many local steps
                                          went so far that the gradient at the start says little of it
    layers      mean over tensors of their cosines: no tensor outweighs the others
    row-space   |P g|^2 / |g|^2           the share of g within the row spaces of the step's tensors, 1 - the squared
                                          relative projection residual (Deng et al. 2026, "Toward efficient membership
                                          inference attacks against federated large language models: a projection
                                          residual approach", for LoRA factors and gradients)

and of the gradient's size alone (Nasr et al. 2019, "Comprehensive privacy analysis of deep learning"),

    small       -log |g_i| where the last step led: a record that is known well has a small gradient
    shrink      log |g_i(before)| - log |g_i| there: what training took off it

Every one is higher for likelier members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from attacks.rounds.calibration import Floats, z_scores
from attacks.rounds.tracks import Step
from bench.attack.attack import Tools
from bench.core.tokens import Tokens
from bench.model.gradients import Measured, measure

#: in the order of the module's text: from steps, and from sizes
ALONG = ("cosine", "projection", "difference", "fall", "layers", "row-space")
SIZES = ("small", "shrink")


def measured(tools: Tools, steps: Sequence[Step], tokens: Tokens) -> Measured:
    """The gradients at the first step's start, against -(after - before) of all ``steps``, which share their start."""
    at = steps[0].before()
    layout = tools.model.layout
    return measure(tools.record_gradients(at, tokens), layout, [-step.update(layout) for step in steps])


def figures(found: Measured, direction: int, scale: float, fall: Floats) -> Mapping[str, Floats]:
    """ALONG -> (n,), from direction number ``direction``. ``scale``: the length of U."""
    length = float(np.sqrt(found.lengths[direction].sum()))
    onto = found.projections[:, direction] / length if length > 0 else np.zeros(len(found.squares))
    return {
        "cosine": found.cosines[:, direction],
        "projection": onto,
        "difference": 2 * scale * onto - np.square(found.norms),
        "fall": fall,
        "layers": _layers(found, direction),
        "row-space": found.explained[:, direction],
    }


def _layers(found: Measured, direction: int) -> Floats:
    scale = np.sqrt(found.squares * found.lengths[direction])
    cosines = np.divide(found.dots[:, direction], scale, out=np.zeros_like(scale), where=scale > 0)
    counts = np.maximum((scale > 0).sum(1), 1)
    mean: Floats = cosines.sum(1) / counts
    return mean


def fall(tools: Tools, step: Step, tokens: Tokens) -> Floats:
    """(n,) how much the step lowered each record's loss, in nats per token."""
    start, end = (tools.token_stats(model, tokens).losses() for model in (step.start, step.end))
    lower: Floats = start - end
    return lower


def small(found: Measured) -> Floats:
    """(n,) -log |g|."""
    values: Floats = -np.log(np.maximum(found.norms, 1e-30))
    return values


@dataclass(frozen=True)
class Passes:
    """Gradients of the records and of the population's: at each step's start; and where the last one led, or None."""

    starts: Sequence[tuple[Measured, Measured]]
    end: tuple[Measured, Measured] | None


def passes(tools: Tools, steps: Sequence[Step], tokens: Tokens, population: Tokens, after: bool = True) -> Passes:
    """A gradient pass over ``tokens`` and ``population`` for each step's start, and ``after`` one more. All who ask at
    the same adapter share a pass, and it gives the losses there to whoever asks for them later."""
    starts = [(measured(tools, [step], tokens), measured(tools, [step], population)) for step in steps]
    if not after:
        return Passes(starts, None)
    at, layout = steps[-1].reached(), tools.model.layout
    mine, theirs = (measure(tools.record_gradients(at, part), layout, []) for part in (tokens, population))
    return Passes(starts, (mine, theirs))


def tell(tools: Tools, steps: Sequence[Step], tokens: Tokens, population: Tokens, made: Passes) -> Mapping[str, Floats]:
    """NAME and NAME-z -> (n,): of ALONG, means over at least one step; of SIZES, from the first step's start and where
    the last one led. z-scores are against the population's same figure. ``made``: the ``passes`` of the same steps and
    records; without one where the last step led there is no ``shrink``, and ``small`` is of that step's start.
    """
    parts = (tokens, population)
    hard, other_hard = (tools.token_stats(None, part).losses() for part in parts)
    raws: list[Mapping[str, Floats]] = []
    zs: list[Mapping[str, Floats]] = []
    for step, (mine, theirs) in zip(steps, made.starts, strict=True):
        norms = theirs.norms if len(population) else mine.norms
        scale = float(np.median(norms)) if len(norms) else 0.0
        falls = (fall(tools, step, part) for part in parts)
        raw, other = (figures(part, 0, scale, down) for part, down in zip((mine, theirs), falls, strict=True))
        raws.append(raw)
        zs.append({name: z_scores(raw[name], other[name], hard, other_hard) for name in ALONG})
    sizes = [[small(part) for part in pair] for pair in (*made.starts, *([made.end] if made.end else []))]
    found = {name: np.mean([raw[name] for raw in raws], axis=0) for name in ALONG}
    found |= {f"{name}-z": np.mean([z[name] for z in zs], axis=0) for name in ALONG}
    if made.end:
        lost, other_lost = (end - start for start, end in zip(sizes[0], sizes[-1], strict=True))
        found |= {"shrink": lost, "shrink-z": z_scores(lost, other_lost, hard, other_hard)}
    last, reference = sizes[-1]
    return found | {"small": last, "small-z": z_scores(last, reference, hard, other_hard)}
