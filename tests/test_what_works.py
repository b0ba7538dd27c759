"""The tables "what works for which model" and "for which task" say what is so."""

from pathlib import Path

import pytest

from tests.what_works import models, table, tasks

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.slow
@pytest.mark.parametrize(("columns", "page"), [(models, "models.md"), (tasks, "tasks.md")])
def test_a_table_of_the_documentation_is_what_was_tried(columns, page, tmp_path):
    assert table(columns(tmp_path), tmp_path) in (DOCS / page).read_text()
