"""Figures that others published, as records in the suites whose tables show them."""

from argparse import Namespace
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jsonschema

from spark_bench.errors import InputError
from spark_bench.records.json_files import parse_json
from spark_bench.records.json_schema import RECORD_SCHEMA, raise_first
from spark_bench.records.schema import Record, record_path
from spark_bench.records.store import check_writable, find, is_repetition, write
from spark_bench.suites.definition import specs_of

OTHERS = 'others'  # the suite of figures that no table shows
SETTINGS = ('pretrain_epochs', 'finetune_epochs', 'resolution', 'schedule')
FULL_SCHEDULE = 1600  # epochs of SparK's pretraining in the paper's tables


def main(args: Namespace) -> int:
    """Write the records of `args.file` below `args.results`, and print how many there are; exit status 0.

    Raises InputError, naming the file and the key of what is wrong, or the record that says otherwise already; then
    nothing is written.
    """
    document = parse_json(args.file)
    try:
        records = published_records(document)
    except InputError as error:
        raise InputError(f'{args.file}: {error}') from error
    for record in records:
        existing = find(args.results, *record.identity)
        if existing is not None and not is_repetition(record, existing):
            path = record_path(args.results, *record.identity)
            raise InputError(f'{args.file}: says otherwise than {path}; a record is never edited: delete that first')
        check_writable(args.results, *record.identity)
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
            and `ablation`, with model, metric, source and rows of ablation, top1, verified and perhaps a note. Any of
            the three may be missing; further keys are left alone.

    Raises:
        InputError: naming the key of an entry, if something is missing or wrong.
    """
    raise_first(jsonschema.Draft202012Validator(_document_schema()), document)
    drafts = [
        draft
        for section, read in (('classification', _classification), ('detection_mask_rcnn_coco', _detection))
        for entry in document.get(section, [])
        for draft in read(entry)
    ]
    drafts += _ablation(document.get('ablation', {'rows': []}))
    seeds: Counter = Counter()
    records = []
    for draft in drafts:
        cell = tuple(draft[key] for key in ('suite', 'task', 'arch', 'method'))
        records.append(Record(origin='published', seed=seeds[cell], **draft))
        seeds[cell] += 1
    return records


def _document_schema() -> dict[str, Any]:
    record = RECORD_SCHEMA['properties']
    percent = {'type': 'number', 'minimum': 0, 'maximum': 100}
    epochs = {'type': ['integer', 'null'], 'minimum': 0}
    shared = {key: record[key] for key in ('arch', 'method', 'source', 'verified')}
    classification = {
        **shared,
        'pretrain_epochs': epochs,
        'finetune_epochs': epochs,
        'top1': percent,
        'resolution': {'type': 'integer', 'minimum': 1, 'maximum': 10_000},
    }
    detection = {
        **shared,
        'schedule': {'type': ['string', 'null'], 'pattern': r'^([A-Za-z0-9]+-)*[a-z0-9]+$(?!\n)'},
        **{name: {**percent, 'type': ['number', 'null']} for name in ('box_ap', 'mask_ap')},
    }
    row = {'ablation': record['method'], 'top1': percent, 'verified': record['verified']}
    rows = {'type': 'array', 'items': {**_having(row), 'properties': {**row, 'note': record['source']}}}
    ablation = {'model': record['arch'], 'metric': {'enum': ['top1', 'top5']}, 'source': record['source'], 'rows': rows}
    sections = {
        'classification': {'type': 'array', 'items': _having(classification)},
        'detection_mask_rcnn_coco': {'type': 'array', 'items': _having(detection)},
        'ablation': _having(ablation),
    }
    return {'type': 'object', 'properties': sections}


def _having(properties: dict[str, Any]) -> dict[str, Any]:
    return {'type': 'object', 'properties': properties, 'required': list(properties)}


def _classification(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    task = 'classification' if entry['resolution'] == 224 else f'classification_{int(entry["resolution"])}'
    shortened = entry['method'] == 'spark' and entry['pretrain_epochs'] != FULL_SCHEDULE
    tasks = {} if shortened else {'scaling': task, 'transformers': task}
    return _placed(entry, tasks, task, {'top1': entry['top1']})


def _detection(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    schedule, arch = entry['schedule'], entry['arch']
    variant = 'detection' if schedule is None else f'detection_{schedule.rpartition("-")[2]}'
    tasks = {'resnet50': variant}
    # Of 3x, or of the 100 epochs of a ViT, as the heading of that column has it; or of a source that does not say.
    if variant in ('detection', 'detection_3x', 'detection_100ep', 'detection_vitdet'):
        tasks['transformers'] = 'detection_vitdet' if variant == 'detection_vitdet' else 'detection'
    if schedule == ('1x' if arch.startswith('resnet') else '3x'):
        tasks['scaling'] = 'detection'
    return _placed(entry, tasks, variant, {name: entry[name] for name in ('box_ap', 'mask_ap')})


def _placed(
    entry: Mapping[str, Any], tasks: Mapping[str, str], task: str, metrics: Mapping[str, float | None]
) -> list[dict[str, Any]]:
    """Drafts of `entry`: one a suite of `tasks` (suite → task there) that shows it, else one of `task` in OTHERS."""
    shown = {s: t for s, t in tasks.items() if _is_shown(s, t, entry['arch'], entry['method'])} or {OTHERS: task}
    told = {key: entry[key] for key in ('arch', 'method', 'source', 'verified')}
    told |= {'metrics': metrics, 'setting': {name: entry[name] for name in SETTINGS if name in entry}}
    return [{'suite': suite, 'task': name, **told} for suite, name in shown.items()]


def _is_shown(suite: str, task: str, arch: str, method: str) -> bool:
    return any(
        arch in spec.archs and method in spec.methods and task in {column.task for column in spec.columns}
        for spec in specs_of(suite)
    )


def _ablation(section: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            'suite': 'ablation',
            'task': 'classification',
            'arch': section['model'],
            'method': row['ablation'],
            'metrics': {section['metric']: row['top1']},
            'verified': row['verified'],
            'source': f'{section["source"]}; {row["note"]}' if 'note' in row else section['source'],
        }
        for row in section['rows']
    ]
