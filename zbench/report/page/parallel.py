"""The page's section on several devices: sentences, tables, and what was left out before it ran."""

from dataclasses import dataclass

from zbench.analysis.sharded import pruned_topologies, same_devices, sharded_trials
from zbench.analysis.view import View
from zbench.report.tables.scaling import rank_table, stage_scaling_table, topology_table
from zbench.report.tables.text_table import TextTable
from zbench.report.text.scaling import pruned_lines, scaling_sentences


@dataclass(frozen=True)
class ParallelSection:
    """What several devices bought."""

    sentences: tuple[str, ...]
    topologies: TextTable
    stages: TextTable | None
    ranks: TextTable | None
    pruned: tuple[str, ...]

    @property
    def tables(self) -> tuple[tuple[str, TextTable], ...]:
        """The further tables and their titles."""
        titled = (("Stages on several devices", self.stages), ("Ranks", self.ranks))
        return tuple((title, table) for title, table in titled if table is not None)


def parallel_section(view: View, few: View) -> ParallelSection | None:
    """Sentences of all trials in `view`, tables of `few` of them; None where no trial uses several devices."""
    every = sharded_trials(view)
    shown = {row.key for row in few.trials}
    trials = [trial for trial in every if trial.row.key in shown]
    topologies = topology_table(trials)
    if topologies is None:
        return None
    return ParallelSection(
        sentences=tuple(scaling_sentences(same_devices(every))),
        topologies=topologies,
        stages=stage_scaling_table(trials),
        ranks=rank_table(trials),
        pruned=tuple(pruned_lines(pruned_topologies(view))),
    )
