#!/usr/bin/env python3
"""Judge the claims of docs/mini.md by its protocol, from the records of this clone: python tools/judge_mini.py.

A row is ahead of another in a column where Welch's test says so at 95 % and the difference is larger than that between
two pretrainings of one row. `tools/fill_tables.py` puts what this prints into the page.
"""

import itertools
import sys
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from scipy.stats import ttest_ind

from spark_bench.records import load_all
from spark_bench.records.schema import Record
from spark_bench.tables.build import mixture
from spark_bench.tables.markdown import markdown_lines

RESULTS = Path(__file__).resolve().parent.parent / 'results'
LEVEL = 0.05
# Task, metric, heading, and the task of the same measure whose pretrainings were repeated.
MEASURES = (
    ('classification_hundredth', 'top1', 'top-1, 1 %', 'classification_tenth'),
    ('classification_tenth', 'top1', 'top-1, 10 %', 'classification_tenth'),
    ('detection_tenth', 'box_ap', 'box AP, 10 %', 'detection_tenth'),
    ('detection_tenth', 'mask_ap', 'mask AP, 10 %', 'detection_tenth'),
    ('detection_full', 'box_ap', 'box AP', 'detection_tenth'),
    ('detection_full', 'mask_ap', 'mask AP', 'detection_tenth'),
)
ABLATED, SIZES = ('test_resnet', 'convnext_mini_s'), ('convnext_mini_s', 'convnext_mini_m', 'convnext_mini_l')
REPEATED = ('spark', 'black_mosaic')
# The last columns are not measured for the larger sizes.
CLAIMS = (
    ('SparK helps', ABLATED, ('scratch',), MEASURES, 'ahead'),
    (
        'Its parts matter',
        ABLATED,
        ('no_sparse', 'black_mosaic', 'no_hierarchy', 'loss_on_all', 'half_schedule'),
        MEASURES,
        'ahead',
    ),
    ('Position embeddings gain nothing', ABLATED, ('ape',), MEASURES, 'not behind'),
    ('It gains at every size', SIZES, ('scratch',), MEASURES[:4], 'ahead'),
)


class Comparison(NamedTuple):
    """``spark`` against another row in one column.

    Attributes:
        difference: of the means, in points.
        p: of Welch's two-sided test.
        noise: the difference between two pretrainings' means, the larger of the rows that have two.
        verdict: ``ahead``, ``behind`` or ``undecided``.
    """

    difference: float
    p: float
    noise: float
    verdict: str


class Judge:
    """Verdicts from records.

    Args:
        records: of the suite ``mini``. Those of a cell that the tables refuse, as its runs are not alike, tell nothing.
    """

    def __init__(self, records: list[Record]) -> None:
        measured = [record for record in records if record.origin == 'measured']
        cells = {cell: [record for record in measured if record.cell == cell] for cell in {r.cell for r in measured}}
        alike = [record for members in cells.values() if not mixture(members) for record in members]
        self._of = {record.identity[2:]: record.metrics for record in alike}

    def figures(self, arch: str, task: str, method: str, metric: str, seeds: range = range(6)) -> list[float]:
        """Of the seeds that have a record with that figure, in percent."""
        found = (self._of.get((task, arch, method, seed), {}).get(metric) for seed in seeds)
        return [value for value in found if value is not None]

    def noise(self, arch: str, task: str, metric: str) -> float | None:
        """Between two pretrainings of a row; None where none has two with three seeds each."""
        arch = 'convnext_mini_s' if arch in SIZES else arch
        halves = [
            [self.figures(arch, task, method, metric, seeds) for seeds in (range(3), range(3, 6))]
            for method in REPEATED
        ]
        known = [abs(mean(first) - mean(second)) for first, second in halves if len(first) == len(second) == 3]
        return max(known) if known else None

    def compare(self, arch: str, other: str, task: str, metric: str, repeated: str) -> Comparison | None:
        """``spark`` against ``other``; None where either has fewer than three seeds, or the noise is unknown."""
        ours, theirs = (self.figures(arch, task, method, metric) for method in ('spark', other))
        noise = self.noise(arch, repeated, metric)
        if min(len(ours), len(theirs)) < 3 or noise is None:
            return None
        difference, p = mean(ours) - mean(theirs), float(ttest_ind(ours, theirs, equal_var=False).pvalue)
        is_beyond = p < LEVEL and abs(difference) > noise
        return Comparison(difference, p, noise, ('ahead' if difference > 0 else 'behind') if is_beyond else 'undecided')


def verdict_of(verdicts: list[str], wanted: str) -> str:
    """Of a claim, from those of its columns: whether it holds, fails, or is undecided."""
    contrary = verdicts.count('behind')
    supporting = len(verdicts) - contrary if wanted == 'not behind' else verdicts.count('ahead')
    if 2 * contrary >= len(verdicts):
        return 'fails'
    return 'holds' if 2 * supporting >= len(verdicts) and not contrary else 'undecided'


def judged(records: list[Record]) -> str:
    """The comparisons and the verdicts on the claims, in Markdown."""
    judge, parts = Judge(records), []
    rows: dict[tuple[str, str], dict[str, Comparison | None]] = {}
    for claim, archs, others, measures, wanted in CLAIMS:
        found = []
        for arch, other in itertools.product(archs, others):
            compared = {
                heading: judge.compare(arch, other, task, metric, repeated)
                for task, metric, heading, repeated in measures
            }
            rows.setdefault((arch, other), {}).update(compared)
            found += compared.values()
        verdicts = [comparison.verdict for comparison in found if comparison]
        told = f'**{verdict_of(verdicts, wanted)}**' if verdicts else 'not measured'
        rest = len(found) - len(verdicts)
        parts.append(
            f'- {claim}: {told}{" so far" if rest else ""}; {len(verdicts)} comparisons, {rest} not yet measured.'
        )
    headings = [heading for _, _, heading, _ in MEASURES]
    lines = [['network', '`spark` against', *headings], ['---'] * (2 + len(headings))]
    for (arch, other), compared in rows.items():
        if any(compared.values()):
            lines.append([arch, other, *(_words(compared.get(heading)) for heading in headings)])
    note = 'Difference of the means; p of Welch’s test; the noise of pretraining; verdict. –: not measured.'
    return '\n'.join([*markdown_lines(lines), '', note, '', *parts, ''])


def _words(found):
    if found is None:
        return '–'
    sign = '+' if found.difference >= 0 else '−'
    p = 'p < 0.001' if found.p < 0.001 else f'p = {found.p:.3f}'
    return f'{sign}{abs(found.difference):.1f}, {p}, noise {found.noise:.1f}: {found.verdict}'


def main() -> int:
    """Print it; exit status 0."""
    print(judged(load_all(RESULTS, 'mini')), end='')
    return 0


if __name__ == '__main__':
    sys.exit(main())
