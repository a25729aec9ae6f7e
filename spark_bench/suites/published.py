"""Figures that others published, as records in the suites whose tables show them."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spark_bench.errors import InputError
from spark_bench.records.schema import Record
from spark_bench.records.store import write
from spark_bench.suites.paper_tables import TABLES

__all__ = ['main', 'published_records']

OTHERS = 'others'  # the suite of figures that no table shows
SETTINGS = ('pretrain_epochs', 'finetune_epochs', 'resolution', 'schedule')
FULL_SCHEDULE = 1600  # epochs of SparK's pretraining in the paper's tables


def main(args) -> int:
    """Write the records of `args.file` below `args.results`, and print how many there are; exit status 0."""
    records = published_records(_read(Path(args.file)))
    for record in records:
        write(record, args.results)
    suites = Counter(record.suite for record in records)
    print(f'{len(records)} published records: ' + ', '.join(f'{suite} {n}' for suite, n in sorted(suites.items())))
    return 0


def published_records(document: Mapping[str, Any]) -> list[Record]:
    """The records of a list of published figures, each in every suite that shows it, or in suite 'others'.

    The seed of a published record is no seed: it tells apart what several sources say of one cell, 0 being the
    first of the document.

    Args:
        document: `classification`, entries with arch, method, pretrain_epochs, finetune_epochs, resolution, top1;
            `detection_mask_rcnn_coco`, with arch, method, schedule, box_ap, mask_ap; both with source and verified;
            and `ablation`, with model, source and rows of ablation, top1, verified and perhaps a note.

    Raises:
        InputError: naming section and entry, if something is missing.
    """
    drafts: list[dict[str, Any]] = []
    for section, read in (('classification', _classification), ('detection_mask_rcnn_coco', _detection)):
        for number, entry in enumerate(document.get(section, [])):
            try:
                drafts += read(entry)
            except (KeyError, TypeError) as error:
                raise InputError(f'{section}[{number}]: {error} is missing; complete the entry') from error
    drafts += _ablation(document.get('ablation', {'rows': []}))
    seeds: Counter = Counter()
    records = []
    for draft in drafts:
        cell = tuple(draft[key] for key in ('suite', 'task', 'arch', 'method'))
        records.append(Record(origin='published', seed=seeds[cell], **draft))
        seeds[cell] += 1
    return records


def _classification(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    task = 'classification' if entry['resolution'] == 224 else f'classification_{entry["resolution"]}'
    shortened = entry['method'] == 'spark' and entry['pretrain_epochs'] != FULL_SCHEDULE
    tasks = {} if shortened else {'scaling': task, 'transformers': task}
    return _placed(entry, tasks, task, {'top1': entry['top1']})


def _detection(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    schedule, arch = entry['schedule'], entry['arch']
    variant = 'detection' if schedule is None else f'detection_{schedule.rpartition("-")[2]}'
    tasks = {'resnet50': variant, 'transformers': variant if variant == 'detection_vitdet' else 'detection'}
    if schedule == ('1x' if arch.startswith('resnet') else '3x'):
        tasks['scaling'] = 'detection'
    return _placed(entry, tasks, variant, {name: entry[name] for name in ('box_ap', 'mask_ap')})


def _placed(
    entry: Mapping[str, Any], tasks: Mapping[str, str], task: str, metrics: Mapping[str, float | None]
) -> list[dict[str, Any]]:
    """Drafts of `entry`: one a suite of `tasks` (suite → task there) that shows it, else one of `task` in OTHERS."""
    shown = {s: t for s, t in tasks.items() if _is_shown(s, t, entry['arch'], entry['method'])} or {OTHERS: task}
    setting = {name: entry[name] for name in SETTINGS if name in entry}
    return [
        {
            'suite': suite,
            'task': name,
            'arch': entry['arch'],
            'method': entry['method'],
            'metrics': metrics,
            'setting': setting,
            'source': entry['source'],
            'verified': entry['verified'],
        }
        for suite, name in shown.items()
    ]


def _is_shown(suite: str, task: str, arch: str, method: str) -> bool:
    return any(
        arch in spec.archs and method in spec.methods and task in {column.task for column in spec.columns}
        for spec in TABLES[suite]
    )


def _ablation(section: Mapping[str, Any]) -> list[dict[str, Any]]:
    drafts = []
    for number, row in enumerate(section['rows']):
        try:
            source = f'{section["source"]}; {row["note"]}' if 'note' in row else section['source']
            drafts.append({
                'suite': 'ablation',
                'task': 'classification',
                'arch': section['model'],
                'method': row['ablation'],
                'metrics': {section['metric']: row['top1']},
                'source': source,
                'verified': row['verified'],
            })
        except KeyError as error:
            raise InputError(f'ablation.rows[{number}]: {error} is missing; complete the entry') from error
    return drafts


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise InputError(f'{path}: cannot read the published figures: {error.strerror}') from error
    except ValueError as error:
        raise InputError(f'{path}: not JSON ({error})') from error
