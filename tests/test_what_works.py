"""The table "what works for which model" says what is so."""

from pathlib import Path

import pytest

from tests.what_works import table


@pytest.mark.slow
def test_the_table_of_the_documentation_is_what_was_tried(tmp_path):
    page = Path(__file__).parents[1] / "docs" / "models.md"
    assert table(tmp_path) in page.read_text()
