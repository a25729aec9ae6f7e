"""Galleries of detections: what each method found in the same images, beside the truth."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spark_bench.data.coco.annotations import read_annotations
from spark_bench.data.images.decoding import read_image
from spark_bench.errors import InputError
from spark_bench.records.schema import Record
from spark_bench.report.galleries import Gallery, Unusable, artifact, existing, make_galleries, one_line
from spark_bench.report.images import Image, draw_objects

SCORE_THRESHOLD = 0.3  # detections below it are not drawn

Found = Mapping[int, list[dict[str, Any]]]  # image identifier → COCO's annotations or results


def detection_galleries(
    records: Sequence[Record], work_root: str | Path, count: int = 4, task: str = 'detection'
) -> list[Gallery]:
    """A gallery for each backbone with records of ``task``: a row an image with the truth and each method's detections.

    A run's artifact 'predictions' is a COCO results file; detections with a score of at least SCORE_THRESHOLD are
    drawn. The images are spread evenly over the annotated ones. Missing or damaged files are notes.
    """
    return make_galleries(records, task, count, partial(_of_backbone, Path(work_root)))


def _of_backbone(work_root: Path, records: Sequence[Record], rows: int, title: str) -> list[Gallery]:
    gallery = Gallery(title)
    try:
        truth = _Truth(records[0], work_root)
        shown = truth.pick(rows)
    except Unusable as reason:
        gallery.remarks.append(str(reason))
        return [gallery]
    columns: dict[str, Found] = {'ground truth': truth.annotations}
    for record in records:
        try:
            columns[record.method] = _load_predictions(record, records[0], work_root, shown)
        except Unusable as reason:
            gallery.absent.setdefault(str(reason), []).append(record.method)
    gallery.headings = tuple(columns)
    for image in shown:
        try:
            gallery.rows.append(_row(truth, image, columns))
        except Unusable as reason:
            gallery.remarks.append(str(reason))
    return [gallery]


def _row(truth: '_Truth', image: Mapping[str, Any], columns: Mapping[str, Found]) -> tuple[Image, ...]:
    pixels, number = truth.pixels(image), image['id']
    try:
        return tuple(
            draw_objects(pixels, found.get(number, []), truth.categories, f'{heading}, image {number}')
            for heading, found in columns.items()
        )
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise Unusable(f'the boxes or masks of image {number} are damaged ({one_line(error)}).') from error


def _load_predictions(record: Record, reference: Record, work_root: Path, images: Sequence[Mapping[str, Any]]) -> Found:
    """Detections at or above the threshold in ``images``, the surest last and so on top."""
    if (record.dataset or {}).get('sha256') != (reference.dataset or {}).get('sha256'):
        raise Unusable(f'it was evaluated on other data than {reference.method}.')
    image_ids = {image['id'] for image in images}
    path = artifact(record, 'predictions', work_root)
    detections: dict[int, list[dict[str, Any]]] = {}
    try:
        results = json.loads(path.read_bytes())
        if not isinstance(results, list):
            raise TypeError('not a list of detections')
        for result in sorted(results, key=lambda r: r['score']):
            _, _, _, _ = map(float, result['bbox'])
            if result['image_id'] in image_ids and result['score'] >= SCORE_THRESHOLD:
                detections.setdefault(result['image_id'], []).append(result)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Unusable(f'the predictions in {path} cannot be read ({one_line(error)}).') from error
    return detections


class _Truth:
    """The annotated validation images of the data set that a record names."""

    def __init__(self, record: Record, work_root: Path) -> None:
        dataset = record.dataset or {}
        root = existing(dataset.get('root', ''), work_root)
        if root is None:
            raise Unusable(f'the folder of the images is no longer there ({dataset.get("root")}).')
        name = dataset.get('annotations')
        if not name:
            raise Unusable('the run does not say where its annotations are.')
        path = existing(name, work_root, root)
        if path is None:
            raise Unusable(f'the annotations are no longer there ({name}).')
        # COCO's layout: instances_val2017.json describes the images in val2017/.
        self.folders = (root, root / path.stem.removeprefix('instances_'), root / 'images')
        self.annotations: dict[int, list[dict[str, Any]]] = {}
        try:
            content = read_annotations(path).contents
            self.images = {image['id']: image for image in content['images']}
            self.categories = {c['id']: (i, c['name']) for i, c in enumerate(content['categories'])}
            for annotation in content['annotations']:
                self.annotations.setdefault(annotation['image_id'], []).append(annotation)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise Unusable(f'the annotations in {path} cannot be read ({one_line(error)}).') from error

    def pick(self, count: int) -> list[dict[str, Any]]:
        """``count`` annotated images, evenly spread over their identifiers."""
        annotated = sorted(self.images.keys() & self.annotations.keys())
        if not annotated:
            raise Unusable('no validation image has annotations.')
        places = np.linspace(0, len(annotated) - 1, min(count, len(annotated))).round().astype(int)
        return [self.images[annotated[i]] for i in places]

    def pixels(self, image: Mapping[str, Any]) -> np.ndarray:
        """The image as uint8 (H, W, 3), RGB."""
        # Without the working directory: a name such as 1.jpg could be found there by accident.
        name = image.get('file_name', '')
        path = next((folder / name for folder in self.folders if (folder / name).is_file()), None)
        if path is None:
            raise Unusable(f'the image {name} is no longer in {self.folders[0]}.')
        try:
            return np.asarray(read_image(path))
        except InputError as error:
            raise Unusable(f'the {one_line(error)}.') from error
