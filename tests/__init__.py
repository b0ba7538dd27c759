from tests import typecheck  # noqa: F401 - named on pytest's command line
