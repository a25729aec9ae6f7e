"""Whatever a check calls fine runs, and whatever a command refuses a check has named: on data mixed at random."""

import copy
import json
import random

import pytest
from coco_defects import contents, save_noise
from mmengine.config import Config
from mmengine.registry import init_default_scope
from random_data import mutate_classes, mutate_coco, write_classes, write_coco

from spark_bench import registration  # noqa: F401
from spark_bench.data.check import check
from spark_bench.data.classification import build_transform
from spark_bench.data.coco.dataset import SeededCocoDataset
from spark_bench.data.detection import check_images, open_coco, open_split
from spark_bench.data.images.decoding import read_from
from spark_bench.data.images.labelled import open_labelled
from spark_bench.data.pretraining import Images
from spark_bench.errors import InputError
from spark_bench.places import shipped

MANY = 2000


@pytest.fixture(scope='module')
def recipe():
    init_default_scope('mmdet')
    return Config.fromfile(shipped('mmdet_configs/demo/mask-rcnn_demo.py'))


def read_split(split, classes, pipeline, test_mode):
    """Every item that a run would load of a split."""
    dataset = SeededCocoDataset(
        ann_file=str(split.annotations),
        data_root='',
        data_prefix=dict(img=f'{split.images}/'),
        metainfo=dict(classes=classes),
        pipeline=pipeline,
        test_mode=test_mode,
        filter_cfg=dict(filter_empty_gt=True, min_size=1),
    )
    return [dataset[index] for index in range(len(dataset))]


def test_masks_that_a_pipeline_passes_over_are_refused(tmp_path, recipe):
    for split in ('train', 'val'):
        (tmp_path / split).mkdir()
        (tmp_path / 'annotations').mkdir(exist_ok=True)
        made = contents(1)
        (tmp_path / f'annotations/instances_{split}.json').write_text(json.dumps(made))
        for entry in made['images']:
            save_noise(tmp_path / split / entry['file_name'], entry['id'])
    train, _ = open_coco(tmp_path)
    polygons = copy.deepcopy(recipe.train_pipeline)
    next(step for step in polygons if step['type'] == 'LoadAnnotations')['poly2mask'] = False
    assert len(read_split(train, train.categories, recipe.train_pipeline, test_mode=False)) == 6
    with pytest.raises(InputError, match=r'instances_train.json has masks in RLE, as of 1.jpg, .* set poly2mask=True'):
        read_split(train, train.categories, polygons, test_mode=False)


def detect(root, recipe):
    train, val = open_coco(root)
    for split in (train, val):
        check_images(split)
    items = read_split(train, train.categories, recipe.train_pipeline, test_mode=False)
    assert sum(len(item['data_samples'].gt_instances) for item in items) == sum(train.objects.values()) > 0
    assert {item['data_samples'].img_path for item in items} == {f'{train.images}/{name}' for name in train.trained(1)}
    read_split(val, train.categories, recipe.test_pipeline, test_mode=True)


def evaluate(root, recipe):
    val = open_split(root, 'val')
    check_images(val)
    read_split(val, val.categories, recipe.test_pipeline, test_mode=True)


def pretrain(root, recipe):
    images = Images(str(root), 32)
    for index in range(len(images)):
        images.load_item(index)


def finetune(root, recipe):
    transform = build_transform(dict(type='train', input_size=32))
    for split in open_labelled(root):
        for index in range(len(split)):
            transform(read_from(split.source, index))


def problems_of(root):
    try:
        return check(root, workers=1).problems
    except InputError:  # neither layout: named, too
        return 1


def hold(write, mutate, commands, recipe, root, seed):
    """Returns whether the check found problems, and how many commands refused."""
    rng = random.Random(seed)
    write(root, rng)
    done = mutate(root, rng)
    problems, refused = problems_of(root), {}
    for command in commands:
        try:
            command(root, recipe)
        except InputError as error:
            refused[command.__name__] = str(error)
            assert '\n' not in str(error), (seed, done, error)
    assert problems or not refused, (seed, done, refused)
    return bool(problems), len(refused)


LAYOUTS = {
    'coco': (write_coco, mutate_coco, (detect, evaluate, pretrain)),
    'classes': (write_classes, mutate_classes, (finetune, pretrain)),
}


def hold_many(layout, recipe, folder, seeds):
    found = [hold(*LAYOUTS[layout], recipe, folder / str(seed), seed) for seed in seeds]
    # Of each there are many, or nothing was held to anything.
    assert min(sum(problem for problem, _ in found), sum(not problem for problem, _ in found)) > len(found) / 10
    assert sum(refused > 0 for _, refused in found) > len(found) / 10
    # A check that calls everything a problem would hold, too.
    assert sum(problem and not refused for problem, refused in found) < len(found) / 10


@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_check_and_the_commands_agree(layout, recipe, tmp_path):
    hold_many(layout, recipe, tmp_path, range(MANY, MANY + 25))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_check_and_the_commands_agree_on_many(layout, recipe, tmp_path):
    hold_many(layout, recipe, tmp_path, range(MANY))
