"""Hand-made records: fixtures for the tests of records, of tables and of the report."""

import dataclasses
import json

import numpy as np
import PIL.Image
import pycocotools.mask
import pytest

from spark_bench.records.schema import Record


@pytest.fixture(scope='session')
def make_record():
    """A function that makes a measured record, valid as it stands; keywords replace its fields."""

    def make(task='detection', method='spark', seed=0, **fields) -> Record:
        values = {
            'origin': 'measured',
            'suite': 'demo',
            'task': task,
            'arch': 'convnext_atto',
            'method': method,
            'seed': seed,
            'metrics': {'box_ap': 12.5, 'mask_ap': 11.25, 'box_ap_small': None},
            'curves': {'loss': [[10, 2.0], [20, 1.5], [30, 1.25]]},
            'config_hash': 'ab12' * 16,
            'config': 'work_dirs/demo/config.py',
            'weights': None,
            'dataset': {
                'name': 'embedded-v1',
                'sha256': 'cd34' * 16,
                'root': 'data',
                'train_images': 1600,
                'val_images': 200,
            },
            'environment': {
                'git_revision': 'f' * 40,
                'git_dirty': False,
                'python': '3.11.7',
                'platform': 'Linux',
                'cpu': 'a processor',
                'cores': 2,
                'threads': 2,
                'memory_gb': 8.0,
                'gpu': None,
                'packages': {'torch': '2.12.1'},
            },
            'started_at': '2026-01-02T03:04:05Z',
            'wall_time_s': 61.5,
            'artifacts': {},
        }
        return Record(**{**values, **fields})

    return make


@pytest.fixture(scope='session')
def make_benchmark(make_record):
    """A function that makes the records of a benchmark: backbones × methods × seeds, on eight GPUs.

    Of each method but the first there is one pretraining of 10 hours, from which all seeds of classification (2
    hours) and detection (3 hours) start. Backbone a and method m (counted from 0) have top-1 80 + a + m / 2 plus a
    tenth of the seed, box AP half of that, mask AP 0.4 of it. Curves have ``points`` values.
    """

    def make(archs, methods, seeds=3, points=30, suite='benchmark') -> list[Record]:
        records = []
        for a, arch in enumerate(archs):
            for m, method in enumerate(methods):
                shared = {'suite': suite, 'arch': arch, 'setting': {'gpus': 8}}
                config_hash = f'{16 * a + m:064x}'
                losses = {'loss': [[i + 1, 1 / (i + 1)] for i in range(points)]}
                weights = None
                if m:
                    records.append(
                        make_record(
                            'pretrain',
                            method,
                            metrics={'loss': 0.5},
                            curves=losses,
                            config_hash=config_hash,
                            wall_time_s=36000.0,
                            **shared,
                        )
                    )
                    weights = {'path': f'{method}.safetensors', 'sha256': 'ab' * 32, 'config_hash': config_hash}
                for seed in range(seeds):
                    top1 = 80 + a + m / 2 + seed / 10
                    accuracy = [[epoch, top1 - 50 / epoch] for epoch in range(1, points + 1)]
                    accuracies = {'top1_raw': accuracy, 'top1_ema': accuracy}
                    records.append(
                        make_record(
                            'classification',
                            method,
                            seed,
                            metrics={'top1': top1},
                            curves={**losses, **accuracies},
                            weights=weights,
                            wall_time_s=7200.0,
                            **shared,
                        )
                    )
                    records.append(
                        make_record(
                            'detection',
                            method,
                            seed,
                            metrics={'box_ap': top1 / 2, 'mask_ap': 0.4 * top1},
                            curves=losses,
                            weights=weights,
                            wall_time_s=10800.0,
                            **shared,
                        )
                    )
        return records

    return make


@pytest.fixture(scope='session')
def make_published():
    """A function that makes a published record."""

    def make(suite, task, arch, method, metrics, verified=True, source='somebody/README') -> Record:
        return Record(
            origin='published',
            suite=suite,
            task=task,
            arch=arch,
            method=method,
            seed=0,
            metrics=metrics,
            source=source,
            verified=verified,
        )

    return make


@pytest.fixture(scope='session')
def benchmark_runs(make_benchmark, make_published):
    """Two backbones, three methods, three seeds; a cell and a figure are missing; published figures beside them."""
    records = make_benchmark(('convnext_small', 'convnext_base'), ('scratch', 'spark', 'no_sparse'))
    gone = ('classification', 'convnext_base', 'no_sparse')
    records = [r for r in records if (r.task, r.arch, r.method) != gone]
    partial = ('detection', 'convnext_base', 'spark', 2)
    records = [
        dataclasses.replace(r, metrics={**r.metrics, 'mask_ap': None})
        if (r.task, r.arch, r.method, r.seed) == partial
        else r
        for r in records
    ]
    task, arch = 'classification', 'convnext_small'
    return [
        *records,
        make_published('benchmark', task, arch, 'scratch', {'top1': 83.1}),
        make_published('benchmark', task, arch, 'spark', {'top1': 84.1}, source='another/README'),
        make_published('benchmark', task, arch, 'no_sparse', {'top1': 83.2}, verified=False, source='a paper'),
    ]


def leave_demo(folder, make_record):
    """Records of a whole small demo, with every file that its runs would leave below ``folder``.

    Grey 64x48 images: number i is all 60 + 20 * i. The truth is a box at (8, 10, 20, 30) in each, category
    'star', detected by every method with score 0.9; a 'heart' over the whole image has score 0.29.
    """
    rectangle = np.zeros((48, 64), np.uint8, order='F')
    rectangle[10:40, 8:28] = 1
    segmentation = pycocotools.mask.encode(rectangle)
    segmentation['counts'] = segmentation['counts'].decode('ascii')
    data = folder / 'data'
    (data / 'val2017').mkdir(parents=True, exist_ok=True)
    images, annotations, detections = [], [], []
    for i in range(1, 7):
        PIL.Image.fromarray(np.full((48, 64, 3), 60 + 20 * i, np.uint8)).save(data / 'val2017' / f'{i}.png')
        images.append({'id': i, 'file_name': f'{i}.png', 'width': 64, 'height': 48})
        found = {'image_id': i, 'category_id': 3, 'bbox': [8, 10, 20, 30], 'segmentation': segmentation}
        annotations.append({**found, 'id': i, 'area': 600, 'iscrowd': 0})
        detections += [{**found, 'score': 0.9}, {**found, 'category_id': 7, 'bbox': [0, 0, 64, 48], 'score': 0.29}]
    categories = [{'id': 3, 'name': 'star'}, {'id': 7, 'name': 'heart'}]
    truth = {'images': images, 'annotations': annotations, 'categories': categories}
    (data / 'instances_val2017.json').write_text(json.dumps(truth))
    (folder / 'predictions.json').write_text(json.dumps(detections))
    pixels = np.arange(2 * 64 * 64 * 3, dtype=np.uint32).reshape(2, 64, 64, 3) // 97 % 256
    original = pixels.astype(np.uint8)
    upper = np.zeros((2, 64, 64, 1), bool)
    upper[:, :32] = True
    masked = np.where(upper, original, np.uint8(0))
    dataset = {'name': 'small', 'sha256': 'cd34' * 16, 'root': 'data', 'train_images': 9, 'val_images': 6}
    records = []
    for i, method in enumerate(('scratch', 'spark', 'no_sparse', 'no_hierarchy', 'black_mosaic')):
        weights = {'path': f'{method}.pth', 'sha256': 'ab' * 32, 'config_hash': 'ab12' * 16}
        if method != 'scratch':
            pasted = np.where(upper, original, np.uint8(40 * i))
            path = folder / f'{method}.npz'
            np.savez(path, original=original, masked=masked, reconstruction=pasted, pasted=pasted)
            files = {'reconstructions': path.name}
            records.append(make_record('pretrain', method, metrics={'loss': 0.5 + i / 100}, artifacts=files))
        shared = {'weights': weights if method != 'scratch' else None}
        records.append(make_record('classification', method, metrics={'top1': 60.0 + i}, **shared))
        shared |= {'dataset': {**dataset, 'annotations': 'data/instances_val2017.json'}}
        shared |= {'artifacts': {'predictions': 'predictions.json'}}
        records.append(make_record('detection', method, metrics={'box_ap': 10.0 + i, 'mask_ap': 9.0 + i}, **shared))
    return records


@pytest.fixture
def demo_runs(tmp_path, make_record):
    """Those of :func:`leave_demo`, below ``tmp_path``."""
    return leave_demo(tmp_path, make_record)
