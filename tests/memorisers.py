"""Networks that memorise have no key frequencies: train many small ones and look.

    python -m tests.memorisers [FOLDER]     # where the runs are kept (a temporary one otherwise)

Trains some 100 networks (about ten minutes on one core; what a folder holds already is not trained
again), each several times as long as it takes to answer all training pairs. A run memorises if then
too it answers no more of the unmirrored test pairs than chance would: the others have formed a
circuit, or had begun to, and are listed apart. No memoriser may have key frequencies at any
checkpoint from that on which answers all training pairs first, nor a label that says that it
generalises; exit status 1 if one has, or if there are fewer than 60 of them.
"""

import sys
import tempfile
import warnings
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from scipy.stats import binomtest

import grokinterp as gi

CHANCE = 0.01  # one-sided: answers so many unmirrored pairs that chance would do it this rarely
FEWEST = 60  # memorising runs
SIZES = {
    "transformer": {"d_model": 64, "n_heads": 2, "d_head": 32, "d_mlp": 256},
    "mlp": {"d_mlp": 256},
}


@dataclass(frozen=True)
class Case:
    """One network to train."""

    p: int
    kind: str
    fraction: float
    wd: float
    seed: int
    operation: str = "add"
    wide: bool = False  # the sizes of the recipes, d_model 128, not those of `SIZES`

    @property
    def name(self) -> str:
        """Its folder."""
        size = "wide-" if self.wide else ""
        of = f"{size}{self.kind}-{self.operation}{self.p}"
        return f"{of}-f{self.fraction}-wd{self.wd:g}-s{self.seed}"

    def recipe(self) -> gi.Recipe:
        """How it is trained."""
        steps = 1000 if self.p < 40 else 1600
        if self.kind == "mlp":
            steps *= 2  # from the two tokens it is slower
        checkpoints = [*range(20, 400, 20), *range(400, steps, 200)]
        return gi.Recipe(
            operation=self.operation, p=self.p, model=self.kind, train_fraction=self.fraction,
            weight_decay=self.wd, seed=self.seed, data_seed=self.seed, steps=steps,
            checkpoints=checkpoints, log_every=20, threads=1, device="cpu",
            **({} if self.wide else SIZES[self.kind]),
        )  # fmt: skip


def cases() -> list[Case]:
    """Some 100 of them: moduli 7 to 59, fractions .3 to .9, with and without weight decay."""
    found, fractions = [], (0.3, 0.4, 0.5, 0.6, 0.75, 0.9)
    for i, p in enumerate((7, 11, 13, 17, 19, 23, 29, 31, 37, 43, 53, 59)):
        for j, (kind, wd) in enumerate(product(("transformer", "mlp"), (0.0, 1.0))):
            for n in range(2):  # every modulus sees several fractions, every fraction all moduli
                fraction = fractions[(i + 2 * j + 3 * n + (j > 1)) % len(fractions)]
                found.append(Case(p, kind, fraction, wd, seed=i + n))
    for p, fraction, seed in ((19, 0.6, 0), (29, 0.5, 1), (37, 0.3, 2)):
        for operation in ("subtract", "multiply"):
            for kind in ("transformer", "mlp"):
                found.append(Case(p, kind, fraction, 1.0, seed, operation))
    for seed in range(3):
        found.append(Case(23, "transformer", 0.75, 1.0, seed, wide=True))
    return found


def trained(case: Case, folder: Path) -> gi.Run:
    """The run of a case, trained unless the folder holds it."""
    return gi.train(case.recipe(), folder / case.name, resume=True, progress=False)


def plain_transformer(
    folder: Path, p: int = 23, fraction: float = 0.75, steps: int = 400
) -> gi.Run:
    """A HookedTransformer with the initial weights of TransformerLens, in a loop of one's own.

    It learns the mirrors of what it trains on, and its logits lie along a few frequencies.
    """
    if (folder / "run.json").is_file() and gi.load(folder).steps[-1] == steps:
        return gi.load(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformer_lens import HookedTransformer, HookedTransformerConfig
    task = gi.ModularTask("add", p=p)
    order = torch.randperm(task.n_inputs, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(task.n_inputs, dtype=torch.bool)
    mask[order[: int(fraction * task.n_inputs)]] = True
    config = HookedTransformerConfig(
        n_layers=1, n_heads=4, d_model=128, d_head=32, d_mlp=512, act_fn="relu",
        normalization_type=None, d_vocab=p + 1, d_vocab_out=p, n_ctx=3, seed=0, device="cpu",
    )  # fmt: skip
    model = HookedTransformer(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokens, labels = task.tokens[mask], task.labels[mask]
    with gi.Recorder(folder, task=task, train_mask=mask) as recorder:
        for step in range(steps + 1):
            if step % 20 == 0:
                recorder.save(step, model)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(tokens)[:, -1], labels).backward()
            optimizer.step()
    return gi.load(folder)


def stop_of(run: gi.Run) -> int | None:
    """The first checkpoint at which the run answers all that it trains on."""
    known = run.metrics[run.metrics.step.isin(run.steps)]
    fitted = known[known.train_acc == 1.0]
    return None if fitted.empty else int(fitted.step.iloc[0])


def looked_at(name: str, run: gi.Run, step: int) -> dict[str, object]:
    """A row of the table: the run as if it had been stopped at this step."""
    snapshot = run.snapshot(step)
    rows = snapshot.unmirrored_rows
    assert rows is not None
    right = (snapshot.logits.argmax(dim=1) == snapshot.task.labels).double()
    keys = gi.key_frequencies(snapshot)
    fit = keys.heldout
    return {
        "run": name,
        "step": step,
        "train_acc": float(right[snapshot.train_mask].mean()),
        "test_acc": float(right[snapshot.test_rows].mean()),
        "n": int(rows.sum()),  # of unmirrored test pairs
        "n_right": int(right[rows].sum()),
        "label": gi.detect_phases(
            run if step == run.steps[-1] else run.metrics[run.metrics.step <= step]
        ).label,
        "keys": " ".join(map(str, keys)),
        "n_rejected": len(keys.rejected),
        "loss": None if fit is None else fit.loss,
        "ln_p": None if fit is None else fit.uniform_loss,
        "placebo_loss": None if fit is None else fit.placebo_loss,
        "acc": None if fit is None else fit.acc,
        "placebo_acc": None if fit is None else fit.placebo_acc,
    }


def memorises(last: dict[str, object], p: int) -> bool | None:
    """Whether it answers no more unmirrored pairs than chance; None without such pairs."""
    if not last["n"]:
        return None
    return bool(binomtest(last["n_right"], last["n"], 1 / p, alternative="greater").pvalue > CHANCE)


def main() -> int:
    """Train, look, print; 1 where a memoriser is taken for more."""
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else kept)
        runs = {case.name: trained(case, folder) for case in cases()}
        runs["plain-23"] = plain_transformer(folder / "plain-23")
        found: dict[bool | None, list[list[dict[str, object]]]] = {True: [], False: [], None: []}
        unfitted = []
        for name, run in runs.items():
            if (stop := stop_of(run)) is None:
                unfitted.append(name)
                continue
            rows = [looked_at(name, run, step) for step in run.steps if step >= stop]
            found[memorises(rows[-1], run.task.n_classes)].append(rows)
    for title, kind, place in (
        ("memorise: when they answer all training pairs first", True, 0),
        ("memorise: at their end", True, -1),
        ("answer more than chance at their end: when they answer all training pairs", False, 0),
        ("answer more than chance at their end: there", False, -1),
        ("have no unmirrored test pair: at their end", None, -1),
    ):
        table = pd.DataFrame([rows[place] for rows in found[kind]])
        print(f"\n## {len(table)} runs {title}\n")
        print(table.round(3).to_string(index=False))
    looks = pd.DataFrame([row for rows in found[True] for row in rows])
    with_keys = looks[looks["keys"] != ""]
    generalise = looks[looks["label"].isin(["grokked", "steady"])]
    for what, wrong in (("key frequencies", with_keys), ("a label that generalises", generalise)):
        print(f"\n## {len(wrong)} checkpoints of memorisers with {what}\n")
        print(wrong.round(3).to_string(index=False))
    print(
        f"\nnot fitted: {', '.join(unfitted) or 'none'}\n{len(found[True])} memorising runs, "
        f"{len(looks)} checkpoints: {with_keys.run.nunique()} runs with key frequencies, "
        f"{generalise.run.nunique()} with a label that generalises"
    )
    return int(len(found[True]) < FEWEST or len(with_keys) > 0 or len(generalise) > 0)


if __name__ == "__main__":
    sys.exit(main())
