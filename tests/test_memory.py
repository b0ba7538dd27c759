import sys

import pytest
import torch

from grokinterp.base.memory import kept_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of the GNU C library")
def test_memory_that_is_freed_is_used_again():
    """Blocks of megabytes cost no new pages while memory is kept."""
    import resource

    def faults(n):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(n):
            torch.ones(4 * 2**20)  # 16 MB: 4096 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with kept_memory(), kept_memory():
        faults(10)
        assert faults(20) < 20 * 4096 / 10


def test_it_passes_on_what_is_raised():
    with pytest.raises(ZeroDivisionError), kept_memory():
        _ = 1 / 0
