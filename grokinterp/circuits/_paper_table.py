"""The paper's numbers for one model, next to those published for its mainline model.

Published values are those of Nanda et al. 2023 (arXiv 2301.05217, sections 4 and 5, and the
authors' notebook; per-frequency excluded losses as recomputed by ARENA 2.0) for one network: p =
113, five key frequencies. Another network differs legitimately, so nothing is ticked.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd
from jaxtyping import Bool
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.circuits import hooks
from grokinterp.circuits._attention_readout import attention_fits, attention_readout
from grokinterp.circuits.ablation import ablate
from grokinterp.circuits.interventions import Intervention
from grokinterp.circuits.neurons import LEFTOVER, neuron_clusters, neuron_logit_directions
from grokinterp.circuits.polynomials import fitted_neurons, polynomial_fits
from grokinterp.fourier._key_frequencies import RULES, Keys, need_key_frequencies, subject_of
from grokinterp.fourier.answers import group_of
from grokinterp.progress import losses
from grokinterp.reading._load import Subject
from grokinterp.runs._snapshot import Snapshot
from grokinterp.tasks.modular import ModularTask

LISTED = "k = 14, 35, 41, 42, 52"  # the mainline's key frequencies, in the order of its values


class Entry(NamedTuple):
    """One number of the model, and the published one; a note where its assumption fails."""

    section: str
    quantity: str
    value: float | None
    published: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class PaperTable(Result):
    """The entries, the frequencies they are about, and the step. Losses in nats, on all inputs.

    >>> import grokinterp as gi
    >>> found = gi.paper_table(gi.load("mod31-small"))
    >>> round(found["loss"].value, 4), found["loss"].published
    (0.005, '2.412e-07')
    >>> found.table()[["quantity", "value", "published"]].head(4).round(2)
                         quantity  value              published
    0             key frequencies    3.0  5: 14, 35, 41, 42, 52
    1  frequencies visible in W_E    3.0                      6
    2                        loss    0.0              2.412e-07
    3                    accuracy    1.0                      1
    """

    entries: tuple[Entry, ...] = field(repr=False)
    frequencies: tuple[int, ...]
    step: int | None

    def __getitem__(self, quantity: str) -> Entry:
        """The first entry of that quantity."""
        for entry in self.entries:
            if entry.quantity == quantity:
                return entry
        raise InputError(f"no entry is called {quantity!r}; .table() lists them.")

    def table(self) -> pd.DataFrame:
        """One row per entry: section, quantity, value, published value, note."""
        return pd.DataFrame(self.entries)


def paper_table(
    x: Subject,
    *,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> PaperTable:
    """Key frequencies, clusters, variance explained and every ablation of the paper, in one call.

    What a model has no answer for (no key frequencies, no "=", several layers, ...) has the value
    None (NaN in the table) and the reason as its note. A number near the published one does not
    show that the network works in the same way: see the placebos of `ablate`, and `algorithm`.

    >>> import grokinterp as gi
    >>> found = gi.paper_table(gi.load("mod31-small"))
    >>> rows = found.table().query("section == 'ablations'")
    >>> rows[["quantity", "value", "published"]].head(3).round(2)
                       quantity  value published
    34  loss: MLP skip 0 (zero)   0.04  9.12e-07
    35  loss: MLP skip 0 (mean)   0.03  7.25e-07
    36       loss: MLP 0 (zero)   3.78
    """
    snapshot, keys = subject_of(x, step, frequencies, task, train_mask)
    entries: list[Entry] = []
    for section, rows in SECTIONS.items():
        try:
            for row in rows(snapshot, keys):  # one by one: those before an error stay
                entry = Entry(section, *row)
                if entry.value is not None and not math.isfinite(entry.value):
                    entry = entry._replace(value=None, note=f"not finite ({entry.value})")
                entries.append(entry)
        except InputError as error:
            entries.append(Entry(section, "not defined here", None, "", str(error)))
    return PaperTable(entries=tuple(entries), frequencies=keys, step=snapshot.step)


Entries = Iterator[tuple[Any, ...]]  # an entry without its section


def _frequencies(snapshot: Snapshot, keys: Keys) -> Entries:
    group_of(snapshot)
    visible = RULES["embedding"](snapshot).frequencies
    note = "; ".join([", ".join(map(str, keys)), *keys.notes]) if keys else keys.reason
    yield "key frequencies", float(len(keys)), "5: 14, 35, 41, 42, 52", note
    note = ", ".join(map(str, visible)) or "none"
    note = note if keys else "of the embedding alone: no circuit is claimed of them"
    yield "frequencies visible in W_E", float(len(visible)), "6", note


def _losses(snapshot: Snapshot, keys: Keys) -> Entries:
    whole = ablate(snapshot, [()], placebos=0).rows[0].whole
    yield "loss", whole.loss_all, "2.412e-07"
    yield "accuracy", whole.acc_all, "1"
    need_key_frequencies(keys)
    explained = losses.trig_variance_explained(snapshot, keys)
    yield "logit variance explained by the key cosines", explained, "0.95"
    yield "trig loss", losses.trig_loss(snapshot, keys), "4.7e-08"
    yield "restricted loss", losses.restricted_loss(snapshot, keys), "5.547e-08"
    unknown = "the training pairs are not known" if snapshot.train_mask is None else ""
    published = f"2.82e-04, 6.33e-04, 1.61e-03, 7.195e-02, 3.288e-02 ({LISTED})"
    for k, loss in losses.excluded_loss_each(snapshot, keys).items():
        value = None if unknown else loss
        yield f"excluded loss of k = {k}, training pairs", value, published, unknown


def _neurons(snapshot: Snapshot, keys: Keys) -> Entries:
    need_key_frequencies(keys)
    clusters = neuron_clusters(snapshot, frequencies=keys)
    n, leftover = len(clusters.fraction), clusters.sizes[LEFTOVER]
    yield "neurons above 0.85", (n - leftover) / n, "0.846 (433 of 512)"
    yield "activation variance they hold", clusters.variance_share, ""
    published = f"44, 93, 145, 87, 64 ({LISTED})"
    for k in clusters.frequencies:
        note = "" if k in keys else "not a key frequency"
        yield f"neurons of k = {k}", float(clusters.sizes[k]), published, note
    yield "leftover neurons", float(leftover), "79"
    fits = polynomial_fits(snapshot, frequencies=keys).summary().set_index("cluster")
    for column, what in (("degree_2", "degree-2 polynomials"), ("product_terms", "products alone")):
        for cluster, explained in fits[column].items():
            if cluster in clusters.frequencies:
                yield f"neurons of k = {cluster}, variance explained by {what}", explained, ""


def _map(snapshot: Snapshot, keys: Keys) -> Entries:
    need_key_frequencies(keys)
    found = neuron_logit_directions(snapshot, frequencies=keys)
    note = "; ".join(found.notes)
    yield "W_L norm outside the key rows", found.residual, "< 0.0055", note
    published = f"0.932 0.935, 0.968 0.965, 0.970 0.970, 0.964 0.964, 0.974 0.982 ({LISTED})"
    for (k, part), explained in zip(found.parts, found.variance_explained.tolist(), strict=True):
        name = "u" if part == "cos" else "v"
        quantity = f"{name}_{k} . MLP explained by {part} w_{k}(a + b)"
        yield quantity, explained, f"{published}, cos and sin"


def _attention(snapshot: Snapshot, keys: Keys) -> Entries:
    readout = attention_readout(snapshot, frequencies=keys)
    published = "k = 35, 42, 52, 42: 0.9903, 0.9849, 0.9907, 0.9791"
    for head, (k, share) in enumerate(zip(readout.leading, readout.leading_share, strict=True)):
        note = "" if share >= readout.threshold else "not a single-frequency head"
        yield f"head {head} readout, variance explained by k = {k}", share, published, note
    for head, attention in enumerate(readout.to_equals.tolist()):
        yield f"head {head} attention of = to itself", attention, "0.001 to 0.004"


def _ablations(snapshot: Snapshot, keys: Keys) -> Entries:
    for asked in (_parts, _fourier, _polynomials, _fitted_attention):
        try:
            planned = list(asked(snapshot, keys))
        except InputError as error:
            yield f"not defined here ({asked.__name__.strip('_')})", None, "", str(error)
            continue
        found = ablate(snapshot, [one for one, _, _ in planned], placebos=0)
        for row, (one, published, note) in zip(found.rows, planned, strict=True):
            yield f"loss: {one.name}", row.score.loss_all, published, note


Plan = Iterator[tuple[Intervention, str, str]]


def _parts(snapshot: Snapshot, keys: Keys) -> Plan:
    last = snapshot.n_layers - 1
    several = "of the last layer only" if last else ""
    if f"blocks.{last}.mlp.W_out" in snapshot.weights:
        yield hooks.mlp_skip(last, mode="zero"), "9.12e-07", several
        yield hooks.mlp_skip(last, mode="mean"), "7.25e-07", several
        yield hooks.mlp(last, mode="zero"), "", several
    yield hooks.attention(last, mode="zero"), "24.3", several
    stream = "the stream at the answer position; what the published value took out is not said"
    yield hooks.attention_skip(last, mode="zero"), "19.1", several or stream


def _fourier(snapshot: Snapshot, keys: Keys) -> Plan:
    need_key_frequencies(keys)
    task, post = snapshot.modular_task, snapshot.mlp_post_name
    basis = neuron_logit_directions(snapshot, frequencies=keys).basis
    yield hooks.fourier(post, task, keys, keep=True), "5.54e-08", ""
    operands = hooks.fourier(post, task, keys, keep=True, terms="operands")
    yield operands, "7.24e-08", f"{8 * len(keys)} components; the mainline's five keep 40"
    yield hooks.directions(post, basis, keep=True, name="u_k, v_k"), "1.19e-07", ""
    yield hooks.directions(post, basis, name="u_k, v_k"), "5.27", ""


def _polynomials(snapshot: Snapshot, keys: Keys) -> Plan:
    need_key_frequencies(keys)
    last = snapshot.n_layers - 1
    clusters = neuron_clusters(snapshot, frequencies=keys)
    members = [i for k in clusters.frequencies for i in clusters.members(k).tolist()]
    if not members:
        raise InputError("no neuron reaches the 0.85 rule, so none is replaced.")

    def replaced(terms: str, name: str) -> Intervention:
        fitted = fitted_neurons(snapshot, clusters=clusters, terms=terms)
        return hooks.replaced_neurons(last, members, fitted[:, members], name=name)

    yield replaced("degree_2", "clustered neurons as degree-2 polynomials"), "2.48e-07", ""
    own = replaced("products", "clustered neurons in their 3 x 3 block")
    yield own, "", ""
    dropped = f"2.0e-04, 4.6e-04, 1.9e-03, 5.2e-03, 2.4e-02 ({LISTED})"
    for k in clusters.frequencies:
        both = own + hooks.neurons(last, clusters.members(k).tolist())
        both = both.called(f"without the cluster of k = {k}, the others in their block")
        yield both, dropped, "" if k in keys else "not a key frequency"


def _fitted_attention(snapshot: Snapshot, keys: Keys) -> Plan:
    fits = attention_fits(snapshot, frequencies=keys)
    readout = fits.readout
    several = [str(h) for h, share in enumerate(readout.leading_share) if share < readout.threshold]
    note = f"heads {', '.join(several)} are not single-frequency" if several else ""
    for form, published in (("sigmoid", ""), ("linear", "2.12e-07")):
        name = f"attention as its one-wave {form} fit"
        yield hooks.replaced_patterns(0, fits.patterns[form], name=name), published, note


SECTIONS: dict[str, Callable[[Snapshot, Keys], Entries]] = {
    "frequencies": _frequencies,
    "losses": _losses,
    "neurons": _neurons,
    "neuron-logit map": _map,
    "attention": _attention,
    "ablations": _ablations,
}
