"""Updates a second and member, of an ensemble of 8 beside single runs. Prints; asserts nothing.

    python tests/benchmarks/ensemble.py

Two threads. Both ways are timed in turn, so that a drifting machine slows both; each figure is the
median over the steps of one repetition, and repetitions stand below each other.
"""

import warnings

import torch

import grokinterp as gi
from grokinterp.training import faster_as_ensemble

MEMBERS, REPETITIONS = 8, 3
SMALL = gi.Recipe(p=11, train_fraction=0.5, d_model=32, n_heads=4, d_head=8, d_mlp=64)
RECIPES = {
    "small transformer (p = 11, d_model 32)": SMALL,
    "mod11-quick": gi.recipes()["mod11-quick"],
    "mod31-grokked": gi.recipes()["mod31-grokked"],
    "small MLP (p = 31, 64 neurons, batches of 64)": gi.Recipe(
        model="mlp", p=31, d_mlp=64, batch_size=64, train_fraction=0.7
    ),
    "mod113-grokked": gi.recipes()["mod113-grokked"],
}


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {MEMBERS} members")
    for name, recipe in RECIPES.items():
        recipes = [recipe.replace(seed=seed) for seed in range(MEMBERS)]
        for _ in range(REPETITIONS):
            found = faster_as_ensemble(recipes, seconds=2.0)
            print(
                f"{name:46} single {1 / found.singly:7.0f}/s, ensemble {1 / found.together:7.0f}/s "
                f"a member: {found.singly / found.together:.2f}x"
            )


if __name__ == "__main__":
    main()
