"""A few tries of each fault that takes no more than a second or two; `python -m tests.stress`
tries them all, and many times.
"""

import pytest

from tests.stress import clocks, disks, flips, interruptions, kills, rivals
from tests.stress.__main__ import attempt, faults

pytestmark = pytest.mark.slow

QUICK = {
    fault.__name__: fault
    for fault in (
        kills.first_save, kills.operations, disks.failing, rivals.second, rivals.one_file,
        clocks.patched, flips.finished, flips.resumed, flips.leftovers, interruptions.imports,
        interruptions.single_files,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", QUICK)
def test_a_fault_loses_nothing(name):
    bench = attempt(QUICK[name], quick=True, seed=0)
    assert bench.tried > 0
    assert not bench.losses


def test_a_loss_is_counted():
    def lossy(bench):
        bench.check(None)
        bench.check("something")
        raise OSError("and broke")

    bench = attempt(lossy, quick=True, seed=0)
    assert (bench.tried, bench.survived) == (3, 1)
    assert bench.losses == ["something", "OSError: and broke"]


def test_every_fault_has_a_name_of_its_own():
    modules = (kills, disks, rivals, clocks, flips, interruptions)
    assert len(faults()) >= sum(len(module.FAULTS) for module in modules)
