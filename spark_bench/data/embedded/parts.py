"""The three parts of the set as files: images by several processes, then the COCO annotations."""

import json
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from spark_bench.data.embedded.scenes import PARTS, SIDE, VERSION, Scene, render_scene
from spark_bench.data.embedded.sources import CATEGORIES

_JPEG_QUALITY = 92

# Scenes handed to a process at once: enough to hide the hand-over, few enough for a smooth progress bar.
_CHUNK = 16


@dataclass(frozen=True)
class Sizes:
    """Number of images in each part."""

    unlabelled: int
    classification_train: int
    classification_val: int
    detection_train: int
    detection_val: int

    def of(self, part: str) -> int:
        """Return the number of images of a part named as in ``PARTS``."""
        return getattr(self, part.replace('/', '_'))

    @property
    def images(self) -> int:
        """Number of images in all parts together."""
        return sum(self.of(part) for part in PARTS)


SIZES = {'full': Sizes(1280, 1500, 500, 1280, 160), 'quick': Sizes(96, 80, 40, 48, 24)}
"""Sizes of the set by name."""


def image_path(part: str, index: int) -> str:
    """Return the path of an image relative to the root of the set, with forward slashes."""
    if part.startswith('detection'):
        return f'detection/{part.split("/")[1]}2017/{index + 1:012d}.jpg'
    if part.startswith('classification'):
        return f'{part}/{CATEGORIES[index % len(CATEGORIES)]}/{index:06d}.jpg'
    return f'{part}/{index:06d}.jpg'


def annotate(scene: Scene) -> list[dict]:
    """Return the COCO fields of a scene's objects, a list of dicts without ``id`` and ``image_id``.

    ``segmentation`` is a compressed run-length code, ``area`` the number of visible pixels, ``bbox``
    the tight box [x, y, width, height] of the visible pixels.
    """
    annotations = []
    for position, layer in enumerate(scene.layers, start=1):
        visible = (scene.owner_HW == position).view(np.uint8)
        code = coco_mask.encode(np.asfortranarray(visible))
        annotations.append(
            {
                'category_id': layer.category_id,
                'segmentation': {'size': [SIDE, SIDE], 'counts': code['counts'].decode('ascii')},
                'bbox': [float(value) for value in cv2.boundingRect(visible)],
                'area': int(np.count_nonzero(visible)),
                'iscrowd': 0,
            }
        )
    return annotations


def write_parts(root: Path, sizes: Sizes, seed: int, jobs: int) -> None:
    """Write all images and annotations of the set below an existing, empty folder.

    Args:
        seed: non-negative integer.
        jobs: number of processes; 1 draws in this one. The files do not depend on it.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
        InputError: a photograph or the font is missing from its package.
    """
    tasks = []
    for part in PARTS:
        count = sizes.of(part)
        for folder in {(root / image_path(part, index)).parent for index in range(count)}:
            folder.mkdir(parents=True, exist_ok=True)
        starts = range(0, count, _CHUNK)
        tasks += [(root, seed, part, range(start, min(start + _CHUNK, count))) for start in starts]
    found: dict[str, dict[int, list[dict]]] = {part: {} for part in PARTS}
    with _progress(sizes.images) as advance, _mapper(jobs) as run:
        for (_, _, part, indices), annotations in zip(tasks, run(_write_images, tasks), strict=True):
            found[part].update(zip(indices, annotations, strict=True))
            advance(len(indices))
    folder = root / 'detection' / 'annotations'
    folder.mkdir(parents=True)
    for split in ('train', 'val'):
        text = json.dumps(_coco(split, found[f'detection/{split}'], seed), separators=(',', ':'))
        (folder / f'instances_{split}2017.json').write_text(text, encoding='utf-8')


def _write_images(task):
    """Write some images of a part; return, for each, its annotations (detection) or None."""
    root, seed, part, indices = task
    annotations = []
    for index in indices:
        scene = render_scene(seed, part, index)
        image_HW3 = cv2.cvtColor(scene.image_HW3, cv2.COLOR_RGB2BGR)
        _, encoded = cv2.imencode('.jpg', image_HW3, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        Path(root, image_path(part, index)).write_bytes(encoded.tobytes())
        annotations.append(annotate(scene) if part.startswith('detection') else None)
    return annotations


def _coco(split, annotations_by_index, seed):
    """Return the annotation file of a split as a dict in COCO's instances format."""
    images, annotations = [], []
    for index, objects in sorted(annotations_by_index.items()):
        name = image_path(f'detection/{split}', index).rsplit('/', 1)[1]
        images.append({'id': index + 1, 'file_name': name, 'width': SIDE, 'height': SIDE})
        for entry in objects:
            annotations.append({'id': len(annotations) + 1, 'image_id': index + 1, **entry})
    description = f'spark_bench embedded scenes, {split}'
    return {
        'info': {'description': description, 'version': str(VERSION), 'seed': seed},
        'licenses': [],
        'images': images,
        'annotations': annotations,
        'categories': [
            {'id': category_id, 'name': name, 'supercategory': 'pictograph'}
            for category_id, name in enumerate(CATEGORIES, start=1)
        ],
    }


@contextmanager
def _progress(total):
    """Show a progress bar on stderr; yields a function that takes the number of images newly done."""
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task('embedded data set', total=total)
        yield lambda done: progress.advance(task, done)


@contextmanager
def _mapper(jobs):
    """Yield a function like ``map``, over several processes unless ``jobs`` is 1."""
    if jobs == 1:
        yield map
        return
    # Spawned, not forked: the caller may hold threads (torch, OpenMP) that a fork would leave locked.
    context = multiprocessing.get_context('spawn')
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker():
    """Keep a worker to one thread, and end it when its parent is killed: it would wait for work for ever."""
    cv2.setNumThreads(0)

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
