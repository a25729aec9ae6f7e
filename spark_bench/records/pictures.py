"""Pictures for the report, made from the files that runs left behind: reconstructions and detections."""

import base64
import io
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spark_bench.data.coco.annotations import read_annotations
from spark_bench.data.images.decoding import read_picture
from spark_bench.errors import InputError
from spark_bench.records.schema import Record
from spark_bench.records.table import order_methods

if TYPE_CHECKING:
    import PIL.ImageFont

__all__ = ['Gallery', 'Picture', 'detection_galleries', 'reconstruction_galleries']

SCORE_THRESHOLD = 0.3  # detections below it are not drawn
RECONSTRUCTION_SIDE = 224  # pixels of a reconstruction's longer side in the report
BACKBONES = 6  # with pictures in one section; further ones are named
PICTURES = 120  # about, in one section: more methods, fewer rows
DETECTION_SIDE = 448  # twice the embedded pictures' 256 or so: names stay legible
# Ten hues far apart, readable below white text; category i takes colour i modulo 10.
CATEGORY_COLOURS = (
    (31, 119, 180),
    (200, 82, 0),
    (44, 130, 60),
    (190, 40, 45),
    (120, 80, 170),
    (125, 80, 70),
    (190, 70, 150),
    (95, 95, 95),
    (125, 125, 20),
    (10, 130, 145),
)


@dataclass(frozen=True)
class Picture:
    """One picture, ready for a page."""

    uri: str  # data: URI of a JPEG
    alt: str  # what it shows, in words
    width: int
    height: int


@dataclass
class Gallery:
    """Rows of pictures under common headings, and what has to be said about those that are not there."""

    title: str
    headings: tuple[str, ...] = ()
    rows: list[tuple[Picture, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Unusable(Exception):
    """A run's file is absent or damaged; the message is a plain sentence for the report."""


def reconstruction_galleries(
    records: Sequence[Record], work_root: str | Path, count: int = 4, task: str = 'pretrain'
) -> list[Gallery]:
    """A gallery for each backbone with records of `task`: a row a picture: original, masked, each method's result.

    Of each method the lowest seed is shown, its artifact 'reconstructions' being an .npz of uint8 arrays
    `original`, `masked`, `reconstruction` and `pasted`, each (n, H, W, 3). Only methods that saw the same
    pictures under the same masks stand beside each other; others get a gallery of their own and a note.
    Paths are relative to `work_root` or to the working directory. A missing or damaged file is a note too.
    """
    galleries = []
    chosen_of, rest = _lowest_seeds(records, task)
    for arch, chosen in chosen_of.items():
        groups: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = []
        notes, absent = [], {}
        for record in chosen:
            try:
                arrays = _load_reconstructions(record, Path(work_root))
            except _Unusable as reason:
                absent.setdefault(str(reason), []).append(record.method)
                continue
            for shared, pasted in groups:
                if all(np.array_equal(shared[key], arrays[key]) for key in ('original', 'masked')):
                    pasted[record.method] = arrays['pasted']
                    break
            else:
                if groups:
                    notes.append(
                        f'{record.method} was shown other pictures or masks than {next(iter(groups[0][1]))}, '
                        'so its reconstructions stand apart and cannot be compared with those.'
                    )
                groups.append((arrays, {record.method: arrays['pasted']}))
        title = _title(arch, task)
        rows = _fewer(count, sum(map(len, chosen_of.values())))
        found = [_reconstruction_gallery(title, shared, pasted, rows) for shared, pasted in groups]
        found = found or [Gallery(title)]
        found[0].notes += _gathered(absent) + notes
        galleries += found
    return galleries + rest


def _reconstruction_gallery(title: str, shared: dict, pasted: dict[str, np.ndarray], count: int) -> Gallery:
    gallery = Gallery(title, ('original', 'masked', *pasted))
    for i in range(min(count, len(shared['original']))):
        pictures = [
            _picture(shared['original'][i], f'picture {i + 1}, original', RECONSTRUCTION_SIDE),
            _picture(shared['masked'][i], f'picture {i + 1}, what the encoder saw', RECONSTRUCTION_SIDE),
        ]
        pictures += [
            _picture(images[i], f'picture {i + 1}, masked patches filled in by {method}', RECONSTRUCTION_SIDE)
            for method, images in pasted.items()
        ]
        gallery.rows.append(tuple(pictures))
    return gallery


def _load_reconstructions(record: Record, work_root: Path) -> dict[str, np.ndarray]:
    path = _artifact(record, 'reconstructions', work_root)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ('original', 'masked', 'pasted')}
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _Unusable(f'the reconstructions in {path} cannot be read ({_one_line(error)}).') from error
    shape = arrays['original'].shape
    if len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise _Unusable(f'the arrays in {path} are not (n, H, W, 3).')
    if any(a.shape != shape or a.dtype != np.uint8 for a in arrays.values()):
        raise _Unusable(f'the arrays in {path} are not all uint8 and of one shape.')
    return arrays


def detection_galleries(
    records: Sequence[Record], work_root: str | Path, count: int = 4, task: str = 'detection'
) -> list[Gallery]:
    """A gallery for each backbone with records of `task`: a row a picture with the truth and each method's detections.

    Of each method the lowest seed is shown, its artifact 'predictions' being a COCO results file; detections
    with a score of at least 0.3 are drawn. The pictures are spread evenly over the annotated ones. Missing or
    damaged files are notes.
    """
    galleries = []
    chosen_of, rest = _lowest_seeds(records, task)
    for arch, chosen in chosen_of.items():
        gallery = Gallery(_title(arch, task))
        galleries.append(gallery)
        try:
            truth = _Truth(chosen[0], Path(work_root))
            shown = truth.pick(_fewer(count, sum(map(len, chosen_of.values()))))
        except _Unusable as reason:
            gallery.notes.append(str(reason))
            continue
        columns, absent = {'ground truth': truth.annotations}, {}
        for record in chosen:
            try:
                columns[record.method] = _load_predictions(record, chosen[0], Path(work_root), shown)
            except _Unusable as reason:
                absent.setdefault(str(reason), []).append(record.method)
        gallery.notes += _gathered(absent)
        gallery.headings = tuple(columns)
        for image in shown:
            try:
                gallery.rows.append(_detection_row(truth, image, columns))
            except _Unusable as reason:
                gallery.notes.append(str(reason))
    return galleries + rest


def _detection_row(truth: '_Truth', image: dict[str, Any], columns: dict[str, dict]) -> tuple[Picture, ...]:
    pixels, number = truth.pixels(image), image['id']
    try:
        return tuple(
            _draw(pixels, objects.get(number, []), truth.categories, f'{heading}, picture {number}')
            for heading, objects in columns.items()
        )
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise _Unusable(f'the boxes or masks of picture {number} are damaged ({_one_line(error)}).') from error


def _gathered(absent: dict[str, list[str]]) -> list[str]:
    """One note for each reason, naming all methods that it holds for."""
    return [f'{", ".join(methods)}: {reason}' for reason, methods in absent.items()]


def _title(arch: str, task: str) -> str:
    variant = task.partition('_')[2]
    return f'{arch} ({variant})' if variant else arch


def _fewer(count: int, methods: int) -> int:
    """How many rows of pictures a gallery has where `methods` columns are shown in all: the page stays small."""
    return max(1, min(count, PICTURES // max(methods, 1)))


def _lowest_seeds(records: Sequence[Record], task: str) -> tuple[dict[str, list[Record]], list[Gallery]]:
    """For each backbone, the measured record of lowest seed of every method, in the table's order.

    Beyond BACKBONES of them, a gallery without pictures that names the others.
    """
    groups: dict[str, dict[str, Record]] = {}
    for record in sorted(records, key=lambda r: (r.arch, r.seed)):
        if record.task == task and record.origin == 'measured':
            groups.setdefault(record.arch, {}).setdefault(record.method, record)
    chosen = {arch: [groups[arch][m] for m in order_methods(groups[arch])] for arch in list(groups)[:BACKBONES]}
    others = list(groups)[BACKBONES:]
    note = f'Not shown, so that this file stays small: {", ".join(others)}.'
    return chosen, [Gallery('Further backbones', notes=[note])] if others else []


def _artifact(record: Record, name: str, work_root: Path) -> Path:
    if name not in record.artifacts:
        raise _Unusable(f'its run left no {name}.')
    path = _existing(record.artifacts[name], work_root)
    if path is None:
        raise _Unusable(f'the file with its {name} is no longer there ({record.artifacts[name]}).')
    return path


def _existing(name: str, *folders: Path) -> Path | None:
    """`name` below the first folder that has it, or as it stands; an absolute name is tried as it is."""
    candidates = [*(folder / name for folder in folders), Path(name)]
    # Not Path.exists(), which raises for a folder that may not be entered and for a name that is too long.
    return next((path for path in candidates if os.path.exists(path)), None)


def _load_predictions(
    record: Record, reference: Record, work_root: Path, images: Sequence[dict[str, Any]]
) -> dict[int, list[dict[str, Any]]]:
    """Detections at or above the threshold in `images`, by picture, the surest last and so on top."""
    if (record.dataset or {}).get('sha256') != (reference.dataset or {}).get('sha256'):
        raise _Unusable(f'it was evaluated on other data than {reference.method}.')
    image_ids = {image['id'] for image in images}
    path = _artifact(record, 'predictions', work_root)
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
        raise _Unusable(f'the predictions in {path} cannot be read ({_one_line(error)}).') from error
    return detections


class _Truth:
    """The annotated validation pictures of the data set that a record names."""

    def __init__(self, record: Record, work_root: Path) -> None:
        dataset = record.dataset or {}
        root = _existing(dataset.get('root', ''), work_root)
        if root is None:
            raise _Unusable(f'the folder of the pictures is no longer there ({dataset.get("root")}).')
        name = dataset.get('annotations')
        if not name:
            raise _Unusable('the run does not say where its annotations are.')
        path = _existing(name, work_root, root)
        if path is None:
            raise _Unusable(f'the annotations are no longer there ({name}).')
        # COCO's layout: instances_val2017.json describes the pictures in val2017/.
        self.folders = (root, root / path.stem.removeprefix('instances_'), root / 'images')
        self.annotations: dict[int, list[dict[str, Any]]] = {}
        try:
            content = read_annotations(path).contents
            self.images = {image['id']: image for image in content['images']}
            self.categories = {c['id']: (i, c['name']) for i, c in enumerate(content['categories'])}
            for annotation in content['annotations']:
                self.annotations.setdefault(annotation['image_id'], []).append(annotation)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise _Unusable(f'the annotations in {path} cannot be read ({_one_line(error)}).') from error

    def pick(self, count: int) -> list[dict[str, Any]]:
        """`count` annotated pictures, evenly spread over their identifiers."""
        annotated = sorted(self.images.keys() & self.annotations.keys())
        if not annotated:
            raise _Unusable('no validation picture has annotations.')
        places = np.linspace(0, len(annotated) - 1, min(count, len(annotated))).round().astype(int)
        return [self.images[annotated[i]] for i in places]

    def pixels(self, image: dict[str, Any]) -> np.ndarray:
        """The picture as uint8 (H, W, 3), RGB."""
        # Without the working directory: a name such as 1.jpg could be found there by accident.
        name = image.get('file_name', '')
        path = next((folder / name for folder in self.folders if (folder / name).is_file()), None)
        if path is None:
            raise _Unusable(f'the picture {name} is no longer in {self.folders[0]}.')
        try:
            return np.asarray(read_picture(path))
        except InputError as error:
            raise _Unusable(f'the {_one_line(error)}.') from error


def _draw(
    pixels: np.ndarray, objects: Sequence[dict[str, Any]], categories: dict[int, tuple[int, str]], title: str
) -> Picture:
    """The picture enlarged, with each object's tinted mask, box, category and, if it has one, score."""
    import PIL.Image
    import PIL.ImageDraw

    height, width = pixels.shape[:2]
    scale = DETECTION_SIDE / max(height, width)
    size = (round(width * scale), round(height * scale))
    canvas = np.asarray(PIL.Image.fromarray(pixels).resize(size, PIL.Image.Resampling.BICUBIC)).astype(np.float32)
    colours = [CATEGORY_COLOURS[categories.get(o.get('category_id'), (0, ''))[0] % 10] for o in objects]
    for item, colour in zip(objects, colours, strict=True):
        mask = _mask(item.get('segmentation'), height, width)
        if mask is not None:
            covered = np.asarray(PIL.Image.fromarray(mask * np.uint8(255)).resize(size)) > 127
            canvas[covered] = 0.55 * canvas[covered] + 0.45 * np.array(colour)
    image = PIL.Image.fromarray(canvas.round().astype(np.uint8))
    pen, font = PIL.ImageDraw.Draw(image), _font(13)
    words = []
    for item, colour in zip(objects, colours, strict=True):
        x, y, w, h = (float(v) * scale for v in item['bbox'])
        pen.rectangle((x, y, x + max(w, 1), y + max(h, 1)), outline=colour, width=2)
        text = categories.get(item.get('category_id'), (0, str(item.get('category_id'))))[1]
        if 'score' in item:
            text += f' {item["score"]:.2f}'
        words.append(text)
        left, top, right, bottom = font.getbbox(text)
        # Above the box where there is room, and never cut off by the picture's edge.
        at = (min(max(x, 0), max(size[0] - right - 6, 0)), y - bottom - 4 if y > bottom + 4 else max(y, 0))
        pen.rectangle((at[0], at[1], at[0] + right + 6, at[1] + bottom + 4), fill=colour)
        pen.text((at[0] + 3, at[1] + 1), text, fill=(255, 255, 255), font=font)
    return _picture(np.asarray(image), f'{title}: {", ".join(words) or "nothing found"}', DETECTION_SIDE)


def _mask(segmentation: Any, height: int, width: int) -> np.ndarray | None:
    """A COCO segmentation (polygons or any RLE) as uint8 0/1 (height, width); None if it is empty."""
    import pycocotools.mask

    if not segmentation:
        return None
    if isinstance(segmentation, list):
        segmentation = pycocotools.mask.merge(pycocotools.mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation['counts'], list):
        segmentation = pycocotools.mask.frPyObjects(segmentation, height, width)
    mask = pycocotools.mask.decode(segmentation)
    return mask if mask.shape == (height, width) else None


def _font(size: int) -> 'PIL.ImageFont.FreeTypeFont':
    import matplotlib
    import PIL.ImageFont

    return PIL.ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')), size)


def _picture(pixels: np.ndarray, alt: str, side: int) -> Picture:
    """`pixels`, uint8 (H, W, 3), as a JPEG whose longer side is `side`, enlarged if need be."""
    import PIL.Image

    image = PIL.Image.fromarray(pixels)
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if size != image.size:
        image = image.resize(size, PIL.Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format='JPEG', quality=86, optimize=True)
    return Picture('data:image/jpeg;base64,' + base64.b64encode(buffer.getvalue()).decode('ascii'), alt, *size)


def _one_line(error: Exception) -> str:
    return ' '.join(f'{type(error).__name__}: {error}'.split())[:160]
