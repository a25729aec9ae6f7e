"""What training leaves out, held to mmdet's own code; files of which nothing, or little, is left."""

import json
import random
from collections import Counter

import pytest
from coco_defects import SQUARE, contents, edit, run
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations
from pycocotools import mask as coco_mask

from spark_bench.data.check import check
from spark_bench.data.coco.annotations import read_annotations
from spark_bench.data.coco.cleaning import clean
from spark_bench.data.coco.filtering import FEW, MANY, judge_counts, why_left_out
from spark_bench.data.detection import open_coco, open_split
from spark_bench.errors import InputError
from spark_bench.evaluation.coco_metric import run_evaluation


def drawn(rng):
    """An annotation whose values lie on and around every border of mmdet's rules."""

    def side():
        return rng.choice([0, 0.4, 0.999, 1, 1.5, 30, 64, 100, -3])

    return {
        'id': 1,
        'image_id': 1,
        'category_id': 7,
        'bbox': [side() for _ in range(4)],
        'area': rng.choice([0, 0.0, 1e-9, 1, 900]),
        'iscrowd': int(rng.random() < 0.2),
        'segmentation': [list(SQUARE)],
        **({'ignore': rng.choice([0, 1])} if rng.random() < 0.1 else {}),
    }


def learnt(annotation, size):
    """Whether mmdet's data set and the loading of masks leave an object to learn from."""
    dataset = CocoDataset.__new__(CocoDataset)
    dataset.data_prefix, dataset.cat_ids, dataset.cat2label, dataset.return_classes = {'img': ''}, [7], {7: 0}, False
    image = {'file_name': 'a.jpg', 'img_id': 1, 'width': size[0], 'height': size[1]}
    instances = dataset.parse_data_info({'raw_img_info': image, 'raw_ann_info': [annotation]})['instances']
    LoadAnnotations(with_mask=True)._process_masks({'instances': instances})
    return any(not instance['ignore_flag'] for instance in instances)


def test_what_is_of_use_is_what_mmdet_learns_from():
    rng, answers = random.Random(0), set()
    for _ in range(20000):
        annotation, size = drawn(rng), rng.choice([(64, 48), (48, 64), (1, 48), (200, 1)])
        reason = why_left_out(annotation, size)
        answers.add(reason)
        assert (reason is None) == learnt(annotation, size), (annotation, size, reason)
    assert len(answers) == 7, 'a reason that was never met was not tried'


def fractions(entry):
    left, top, width, height = entry['bbox']
    return {'bbox': [left / 64, top / 48, width / 64, height / 48]}


# From a name to (what becomes of an annotation, a word of the remedy).
USELESS = {
    'crowds': (lambda entry: {'iscrowd': 1}, 'iscrowd 0'),
    'area 0': (lambda entry: {'area': 0}, 'area of the mask'),
    'fractions': (fractions, 'multiply'),
    'below 1 pixel': (lambda entry: {'bbox': [*entry['bbox'][:2], 0.5, 0.5]}, 'pixels'),
    'ignored': (lambda entry: {'ignore': 1}, "'ignore'"),
    'outside': (lambda entry: {'bbox': [500, 500, 30, 30]}, 'pixels'),
}


def spoil(root, change, split='train', part=1.0):
    def spoiled(made):
        for entry in made['annotations']:
            entry['iscrowd'] = 0
        for entry in made['annotations'][: round(len(made['annotations']) * part)]:
            entry.update(change(entry))

    edit(root, spoiled, split)


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('name', USELESS)
def test_a_split_of_which_nothing_is_of_use_is_refused_everywhere(coco, capsys, name, split):
    change, remedy = USELESS[name]
    spoil(coco, change, split)
    status, out, _ = run(capsys, coco)
    assert status == 1 and 'of 6 annotations none is of use' in out and remedy in out
    for refused in (lambda: open_coco(coco), lambda: open_split(coco, split)):
        with pytest.raises(InputError) as caught:
            refused()
        assert f'instances_{split}.json' in str(caught.value)
        # A box outside, or a mask away from its box, is told by entry before.
        assert name == 'outside' or remedy in str(caught.value)


@pytest.mark.parametrize('name', sorted(set(USELESS) - {'crowds', 'outside'}))
def test_more_than_a_few_are_a_problem_and_a_few_are_not(coco, name):
    spoil(coco, USELESS[name][0], part=FEW / 6)
    assert not check(coco, workers=1).problems and open_coco(coco)
    spoil(coco, USELESS[name][0], part=0.5)
    assert 'many left out' in check(coco, workers=1).findings
    with pytest.raises(InputError, match='of 6 annotations 3 are left out'):
        open_coco(coco)


def polygon_in_fractions(entry):
    left, top, width, height = entry['bbox']
    corners = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
    return {'segmentation': [[value for x, y in corners for value in (x / 64, y / 48)]]}


@pytest.mark.parametrize('whole', [True, False])
def test_masks_of_another_frame_than_their_boxes_are_refused(whole, coco):
    """Polygons in 0 … 1, as converters leave them beside boxes in pixels; of a few it is a note."""
    spoil(coco, polygon_in_fractions, part=1 if whole else FEW / 6)
    report = check(coco, workers=1)
    assert 'box and mask' in report.findings and ('masks elsewhere' in report.findings) == whole
    if whole:
        with pytest.raises(InputError, match='6 have a mask that hardly overlaps their box'):
            open_coco(coco)
    else:
        assert open_coco(coco)


def test_crowds_of_more_than_a_few_are_noted(coco):
    spoil(coco, USELESS['crowds'][0], part=0.5)
    report = check(coco, workers=1)
    assert 'many crowds' in report.findings and not report.problems and open_coco(coco)


def test_a_part_of_a_large_file_is_judged_by_its_share():
    few = Counter({None: 1000, 'of area 0': int(1000 * MANY)})
    assert judge_counts(few) is None
    assert judge_counts(few + Counter({'of area 0': 10}))[0] == 'many left out'
    # Crowds are part of the protocol: COCO has 1 in 100, some data sets of streets 1 in 3.
    assert judge_counts(Counter({None: 10, 'crowds': 5})) is None
    assert judge_counts(Counter({None: 10, 'crowds': 11}))[0] == 'many left out'


def test_what_is_as_cocos_files_are_is_left_as_it_is():
    made = contents(1)
    clean(made, lambda kind, where, what: pytest.fail(kind))
    assert made == contents(1)


@pytest.mark.parametrize('garbage', [None, 3, [], {}, {'images': 3}, {'annotations': [None, 3, {}, {'id': []}]}])
def test_garbage_is_left_as_it_is(garbage):
    before = json.dumps(garbage)
    clean(garbage)
    assert json.loads(before) == garbage or json.dumps(garbage).count('iscrowd') == 2


def test_images_smaller_than_recipes_take_are_told(coco):
    small = {'bbox': [1, 1, 20, 20], 'area': 400, 'segmentation': [[1, 1, 21, 1, 21, 21, 1, 21]]}
    edit(coco, lambda made: (made['images'][0].update(height=31), made['annotations'][0].update(small)))
    assert check(coco, workers=1, decode=False).findings['small image'].examples == [('train/1.jpg', 'is 64x31')]
    train, _ = open_coco(coco)
    assert len(train.trained(32)) == 5 and len(train.trained(1)) == 6


def without(*names):
    def change(made):
        for entry in made['annotations']:
            for name in names:
                del entry[name]

    return change


def as_floats(made):
    for table in ('images', 'categories', 'annotations'):
        for entry in made[table]:
            entry.update({key: float(value) for key, value in entry.items() if type(value) is int and key != 'area'})


def with_text_references(made):
    for entry in made['annotations']:
        entry.update(image_id=str(entry['image_id']), category_id=str(entry['category_id']))


def with_bare_polygons(made):
    for entry in made['annotations']:
        if isinstance(entry['segmentation'], list):
            [entry['segmentation']] = entry['segmentation']


def with_ids(number):
    def change(made):
        for position, entry in enumerate(made['annotations']):
            entry['id'] = number(position)

    return change


def with_big_ids(made):
    for key in ('images', 'categories'):
        for entry in made[key]:
            entry['id'] += 2**62
    for entry in made['annotations']:
        entry['image_id'] += 2**62
        entry['category_id'] += 2**62


def with_urls(made):
    for entry in made['images']:
        entry['coco_url'] = f'http://images.cocodataset.org/train2017/{entry.pop("file_name")}'


def with_second_polygon(polygon, first=False):
    def change(made):
        for entry in made['annotations']:
            if isinstance(entry['segmentation'], list):
                entry['segmentation'].insert(0 if first else 1, list(polygon))

    return change


BACKENDS = ('fast', 'pycocotools')
# Sound, though not as COCO's own files are: from a name to (change, the note that tells it).
SOUND = {
    'no file name (LVIS)': (with_urls, 'no file name'),
    'no iscrowd': (without('iscrowd'), 'no crowd flag'),
    'no area': (without('area'), 'no area'),
    'no box': (without('bbox'), 'no box'),
    'no iscrowd, area, box': (without('iscrowd', 'area', 'bbox'), 'no area'),
    'null area': (lambda made: made['annotations'][0].update(area=None), 'no area'),
    'floats': (as_floats, 'whole number'),
    'references as text': (with_text_references, 'whole number'),
    'a polygon alone': (with_bare_polygons, 'bare polygon'),
    'empty polygon': (with_second_polygon([]), 'short polygon'),
    'empty first polygon': (with_second_polygon([], first=True), 'short polygon'),
    'polygon of a point': (with_second_polygon([3, 4]), 'short polygon'),
    'polygon of an odd number': (with_second_polygon([3, 4, 5]), 'short polygon'),
    'ids of annotations from 0': (with_ids(lambda position: position), 'annotation id'),
    'ids of annotations of 64 bits': (with_ids(lambda position: 2**63 + position), 'annotation id'),
    'ids of annotations as text': (with_ids(lambda position: f'object-{position}'), 'annotation id'),
    'no ids of annotations': (without('id'), 'annotation id'),
    'ids of 64 bits': (with_big_ids, None),
}


@pytest.mark.parametrize('name', SOUND)
def test_what_exporters_write_otherwise_is_read_the_same_by_all(coco, name):
    change, note = SOUND[name]
    before = open_split(coco, 'val').objects
    for split in ('train', 'val'):
        edit(coco, change, split)
    report = check(coco, workers=1)
    assert not report.problems, report.findings
    assert note is None or report.findings[note].count >= 2
    # Without the flag, its crowds are objects.
    assert 'iscrowd' in name or open_split(coco, 'val').objects == before
    fast, slow = (run_evaluation(*perfect(coco), backend).metrics for backend in BACKENDS)
    assert fast == slow and fast['mask_ap'] == fast['box_ap'] == 100


def perfect(root):
    """(annotation file, predictions that repeat what it says)."""
    path = root / 'annotations/instances_val.json'
    made, predictions = read_annotations(path).contents, []
    for entry in made['annotations']:
        mask = entry['segmentation']
        if isinstance(mask, list):
            mask = coco_mask.merge(coco_mask.frPyObjects(mask, 48, 64))
        elif isinstance(mask['counts'], list):
            mask = coco_mask.frPyObjects(mask, 48, 64)
        counts = mask['counts']
        predictions.append(
            {key: entry[key] for key in ('image_id', 'category_id', 'bbox')}
            | {
                'score': 0.9,
                'segmentation': {'size': [48, 64], 'counts': counts if isinstance(counts, str) else counts.decode()},
            }
        )
    return path, predictions


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be', 'utf-32'])
def test_every_encoding_of_json_is_read_by_all(coco, encoding):
    for split in ('train', 'val'):
        path = coco / f'annotations/instances_{split}.json'
        made = json.loads(path.read_text())
        made['categories'][0]['name'] = 'Schlüssel 鍵'
        path.write_bytes(json.dumps(made, ensure_ascii=False).encode(encoding))
    assert not check(coco, workers=1).problems
    assert open_coco(coco)[1].categories[0] == 'Schlüssel 鍵'
