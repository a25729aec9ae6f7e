"""Galleries of reconstructions: what each pretraining made of the same masked images."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from spark_bench.records.schema import Record
from spark_bench.report.galleries import Gallery, Unusable, artifact, make_galleries, one_line
from spark_bench.report.images import encode

SIDE = 224  # pixels of the longer side in the report


def reconstruction_galleries(
    records: Sequence[Record], work_root: str | Path, count: int = 4, task: str = 'pretrain'
) -> list[Gallery]:
    """A gallery for each backbone with records of ``task``: a row an image: original, masked, each method's result.

    A run's artifact 'reconstructions' is an .npz of uint8 arrays ``original``, ``masked``, ``reconstruction`` and
    ``pasted``, each (n, H, W, 3). Only methods that saw the same images under the same masks stand beside each other;
    others get a gallery of their own and a note. Paths are relative to ``work_root`` or to the working directory. A
    missing or damaged file is a note too.
    """
    return make_galleries(records, task, count, partial(_of_backbone, Path(work_root)))


def _of_backbone(work_root: Path, records: Sequence[Record], rows: int, title: str) -> list[Gallery]:
    """A gallery for each group of methods that saw the same; the first has what is said of all."""
    groups: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = []  # (what they saw, what each made of it)
    rest = Gallery(title)
    for record in records:
        try:
            arrays = _load(record, work_root)
        except Unusable as reason:
            rest.absent.setdefault(str(reason), []).append(record.method)
            continue
        for seen, pasted in groups:
            if all(np.array_equal(seen[key], arrays[key]) for key in ('original', 'masked')):
                pasted[record.method] = arrays['pasted']
                break
        else:
            if groups:
                rest.remarks.append(
                    f'{record.method} was shown other images or masks than '
                    f'{next(iter(groups[0][1]))}, so its reconstructions stand apart and cannot be '
                    'compared with those.'
                )
            groups.append((arrays, {record.method: arrays['pasted']}))
    galleries = [_gallery(title, seen, pasted, rows) for seen, pasted in groups] or [rest]
    galleries[0].absent, galleries[0].remarks = rest.absent, rest.remarks
    return galleries


def _gallery(title: str, seen: Mapping[str, np.ndarray], pasted: Mapping[str, np.ndarray], rows: int) -> Gallery:
    gallery = Gallery(title, ('original', 'masked', *pasted))
    for i in range(min(rows, len(seen['original']))):
        shown = [(seen['original'][i], 'original'), (seen['masked'][i], 'what the encoder saw')]
        shown += [(images[i], f'masked patches filled in by {method}') for method, images in pasted.items()]
        gallery.rows.append(tuple(encode(pixels, f'image {i + 1}, {words}', SIDE) for pixels, words in shown))
    return gallery


def _load(record: Record, work_root: Path) -> dict[str, np.ndarray]:
    path = artifact(record, 'reconstructions', work_root)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ('original', 'masked', 'pasted')}
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise Unusable(f'the reconstructions in {path} cannot be read ({one_line(error)}).') from error
    shape = arrays['original'].shape
    if len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise Unusable(f'the arrays in {path} are not (n, H, W, 3).')
    if any(a.shape != shape or a.dtype != np.uint8 for a in arrays.values()):
        raise Unusable(f'the arrays in {path} are not all uint8 and of one shape.')
    return arrays
