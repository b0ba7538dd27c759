import tomllib

import pytest

from grokinterp.base.errors import InputError
from grokinterp.recipe import BUILTIN, Recipe, checkpoint_steps, find_recipe, parse_setting, recipes


@pytest.mark.parametrize("name", BUILTIN)
def test_recipes_survive_toml_and_dicts(name, tmp_path):
    recipe = recipes()[name]
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml())
    assert find_recipe(path) == recipe == Recipe.from_dict(recipe.to_dict())
    assert tomllib.loads(recipe.to_toml())["lr"] == recipe.lr


def test_nanda_mainline_has_the_papers_shape():
    recipe = recipes()["nanda-mainline"]
    architecture = recipe.architecture()
    assert (architecture.d_vocab, architecture.d_vocab_out) == (114, 114)
    assert (recipe.split, recipe.data_seed, recipe.warmup) == ("python", 0, 10)
    assert (recipe.biases, recipe.init, recipe.steps) == ("mlp", "paper", 50_000)
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay) == ("adamw", 1e-3, 1.0)
    assert (recipe.betas, recipe.batch_size, recipe.train_fraction) == ((0.9, 0.98), 0, 0.3)
    assert (recipe.n_heads, recipe.d_head, recipe.d_model, recipe.d_mlp) == (4, 32, 128, 512)


def test_mod31_recipes_differ_in_init_scale_alone():
    one, other = recipes()["mod31-grokked"].to_dict(), recipes()["mod31-steady"].to_dict()
    assert {key for key in one if one[key] != other[key]} == {"init_scale"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lerning_rate": 1}, "recipe key 'lerning_rate' is not known; did you mean 'lr'"),
        ({"weigth_decay": 1}, "did you mean 'weight_decay'"),
        ({"p": 1}, "p=1"),
        ({"p": "x"}, "p='x' is not a whole number"),
        ({"train_fraction": 0}, "train_fraction=0"),
        ({"train_fraction": 1.5}, "train_fraction=1.5 is not between 0 and 1"),
        ({"operation": "ad"}, "did you mean 'add'"),
        ({"optimizer": "adamW"}, "did you mean 'adamw'"),
        ({"split": "numpy"}, "split='numpy'"),
        ({"lr": 0}, "lr=0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"betas": [0.9]}, "betas="),
        ({"betas": [0.9, 1.0]}, "betas="),
        ({"steps": -1}, "steps=-1"),
        ({"log_every": 0}, "log_every=0"),
        ({"checkpoints": "sometimes"}, "is not a schedule"),
        ({"checkpoints": [0, -1]}, "names -1, which is no step"),
        ({"checkpoints": "every:²"}, "is not a schedule"),
        ({"steps": 1e99}, "is too large; give at most 100000000"),
        ({"seed": 2**70}, "seed="),
        ({"p": 100_000}, "p=100000"),
        ({"equals_class": True, "equals_token": False}, "equals_class"),
        ({"biases": "some"}, "biases='some'"),
    ],
)
def test_bad_values_are_refused_in_one_line(changes, message):
    with pytest.raises(InputError, match=message) as error:
        Recipe.from_dict(changes)
    assert "\n" not in str(error.value)


def test_values_take_the_type_of_their_key():
    recipe = Recipe.from_dict({"weight_decay": 1, "steps": 1e3, "biases": True, "operation": "mul"})
    assert isinstance(recipe.weight_decay, float)
    assert recipe.steps == 1000
    assert (recipe.biases, recipe.operation) == ("all", "multiply")


def test_settings_from_a_command_line():
    settings = ["p=31", "lr=1e-3", "biases=true", "optimizer=adam", "checkpoints=[0,5]"]
    parsed = dict(map(parse_setting, settings))
    assert parsed == {
        "p": 31, "lr": 1e-3, "biases": True, "optimizer": "adam", "checkpoints": [0, 5]
    }  # fmt: skip
    assert parse_setting("checkpoints=every:10") == ("checkpoints", "every:10")
    with pytest.raises(InputError, match="not key=value"):
        parse_setting("p")


def test_schedules():
    assert checkpoint_steps("every:7", 20) == (0, 7, 14, 20)
    assert checkpoint_steps("log:1", 10) == (0, 1, 10)
    assert checkpoint_steps("every:5", 0) == (0,)
    logarithmic = checkpoint_steps("log:40", 10_000)
    assert len(logarithmic) <= 41
    assert logarithmic[:2] == (0, 1)
    assert logarithmic[-1] == 10_000


def test_a_shortened_run_keeps_the_steps_it_reaches():
    short = recipes()["mod113-grokked"].replace(steps=300)
    assert short.checkpoint_steps() == (0, 100, 200, 300)


def test_a_file_that_is_no_recipe_is_refused(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("p = = 3")
    with pytest.raises(InputError, match="not TOML"):
        find_recipe(path)
    with pytest.raises(InputError, match="did you mean 'mod113-grokked'"):
        find_recipe("mod113-groked")


@pytest.mark.parametrize("empty", ["", [], {}, ()])
def test_what_is_empty_is_none_of_a_key_that_may_be_none(empty):
    given = Recipe(p=7, layout="a op b =", token_ids={"op": 9, "=": 8}, operand_ids=1)
    none = given.replace(layout="", token_ids=empty, operand_ids=empty or None)
    assert none == Recipe(p=7)
    assert Recipe.from_dict(tomllib.loads(none.to_toml())) == none
    with pytest.raises(InputError, match="steps="):
        Recipe(steps=empty)


def test_spellings_of_a_layout_and_its_ids_are_one_recipe():
    one = Recipe(p=7, layout="a op b =", token_ids={"op": 9, "=": 8})
    assert one == Recipe(p=7, layout=" a  op b = ", token_ids=[["=", 8], ["op", 9]])
    assert one.build_task().token_ids == (("op", 9), ("=", 8))  # in the order of the words


@pytest.mark.parametrize("ids", [[[["op"], 7], ["=", 8]], [[7, "op"], [8, "="]], {"op": [7]}])
def test_ids_that_are_none_are_refused_in_one_short_line(ids):
    for words in ("a op b =", "a " + " ".join(f"word{i}" for i in range(60)) + " b"):
        with pytest.raises(InputError, match="give token_ids=") as refused:
            Recipe(p=7, layout=words, token_ids=ids)
        assert len(str(refused.value)) <= 400
        assert "\n" not in str(refused.value)
