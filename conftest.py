"""Which examples are run: those at the home of a function, and not again where a room offers it."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out examples of functions in an `__init__.py`, where they are only passed on."""

    def passed_on(item: pytest.Item) -> bool:
        module = item.name == ".".join(
            Path(item.path).parent.relative_to(item.config.rootpath).parts
        )
        return (
            isinstance(item, pytest.DoctestItem) and item.path.name == "__init__.py" and not module
        )

    items[:] = [item for item in items if not passed_on(item)]
