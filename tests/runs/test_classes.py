"""Classes belong to names: the order in which a file lists them changes no figure, and other names are refused."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from safetensors.torch import load_file
from small_finetuning import write_images
from small_recipes import CATEGORIES, ROOT, record_of
from timm.data import ImageNetInfo

from pretrain.encoder import create_network
from spark_bench import commands
from spark_bench.checkpoints import save
from spark_bench.checkpoints.classes import classes_of
from spark_bench.data.coco.dataset import SeededCocoDataset
from spark_bench.errors import InputError
from spark_bench.runs import finetune
from spark_bench.runs.options import FinetuneOptions

NAMES = [category['name'] for category in CATEGORIES]
ALL_SCORES = 'model.test_cfg.rcnn.score_thr=0.0'


@pytest.fixture(scope='module')
def detector():
    """State of a fresh detector of three classes."""
    init_default_scope('mmdet')
    model = Config.fromfile(ROOT / 'mmdet_configs/demo/mask-rcnn_demo.py').model
    model.roi_head.bbox_head.num_classes = model.roi_head.mask_head.num_classes = len(NAMES)
    torch.manual_seed(0)
    return MODELS.build(model)


def relist(root, change, split='val'):
    path = root / f'annotations/instances_{split}.json'
    contents = json.loads(path.read_text())
    change(contents['categories'])
    path.write_text(json.dumps(contents))


def evaluate(root, weights, folder, *extra):
    """(exit status, detections by image and name of the category)."""
    status = commands.main(
        [
            'evaluate',
            '--data-root',
            str(root),
            '--weights',
            str(weights),
            '--work-dir',
            str(folder),
            '--threads',
            '1',
            '--workers',
            '0',
            '--cfg-options',
            ALL_SCORES,
            *extra,
        ]
    )
    if status:
        return status, None
    names = {
        category['id']: category['name']
        for category in json.loads((folder / 'categories.json').read_text())['categories']
    }
    found = json.loads((folder / 'predictions.segm.json').read_text())
    return status, sorted(
        (entry['image_id'], names[entry['category_id']], entry['score'], entry['bbox']) for entry in found
    )


def test_a_detector_finds_the_same_whatever_order_the_file_lists_its_categories_in(boxes, detector, tmp_path):
    save(detector, tmp_path / 'd.safetensors', {'arch': 'test_resnet', 'classes': json.dumps(NAMES)})
    _, found = evaluate(boxes, tmp_path / 'd.safetensors', tmp_path / 'a')
    assert len({name for _, name, *_ in found}) > 1
    metrics = (tmp_path / 'a/metrics.json').read_text()
    relist(boxes, lambda categories: categories.reverse())
    assert evaluate(boxes, tmp_path / 'd.safetensors', tmp_path / 'b') == (0, found)
    assert (tmp_path / 'b/metrics.json').read_text() == metrics
    relist(boxes, random.Random(1).shuffle)
    assert evaluate(boxes, tmp_path / 'd.safetensors', tmp_path / 'c') == (0, found)


@pytest.mark.parametrize('meta', [{'dataset_meta': {'classes': tuple(NAMES)}}, {'CLASSES': NAMES}])
def test_files_of_mmdet_name_their_classes(boxes, detector, tmp_path, meta):
    torch.save({'meta': meta, 'state_dict': detector.state_dict()}, tmp_path / 'd.pth')
    assert classes_of(tmp_path / 'd.pth') == tuple(NAMES)
    _, found = evaluate(boxes, tmp_path / 'd.pth', tmp_path / 'a')
    relist(boxes, lambda categories: categories.reverse())
    assert evaluate(boxes, tmp_path / 'd.pth', tmp_path / 'b') == (0, found)


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda categories: categories[0].update(name='wheel'), ["'wheel'", "'box'"]),
        (lambda categories: categories.append({'id': 4, 'name': 'brick'}), ["'brick'"]),
        (lambda categories: categories.pop(1), ["'never seen' absent"]),
    ],
)
def test_other_categories_are_refused_by_name(boxes, detector, tmp_path, capsys, change, words):
    save(detector, tmp_path / 'd.safetensors', {'classes': json.dumps(NAMES)})
    relist(boxes, change)
    assert evaluate(boxes, tmp_path / 'd.safetensors', tmp_path / 'a')[0] == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(word in error for word in (*words, 'd.safetensors', 'trained on 3 classes')), error


def test_a_file_without_names_is_taken_in_the_order_of_the_data_with_a_word(boxes, detector, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('spark_bench.runs.detect.print_log', lambda text, *rest: said.append(text))
    save(detector, tmp_path / 'd.safetensors', {})
    assert evaluate(boxes, tmp_path / 'd.safetensors', tmp_path / 'a')[0] == 0
    assert len(said) == 1 and 'd.safetensors does not name its classes' in said[0]
    assert classes_of(tmp_path / 'd.safetensors') is None


def test_training_takes_the_categories_of_val_in_the_order_of_train(boxes, tmp_path):
    def train(folder):
        assert (
            commands.main(
                [
                    'detect',
                    '--data-root',
                    str(boxes),
                    '--work-dir',
                    str(folder / 'work'),
                    '--results',
                    str(folder / 'results'),
                    '--threads',
                    '1',
                    '--cfg-options',
                    'train_cfg.max_epochs=1',
                    'global_batch=2',
                    ALL_SCORES,
                ]
            )
            == 0
        )
        return record_of(folder)['metrics'], load_file(folder / 'work/detector.safetensors')

    metrics, tensors = train(tmp_path / 'a')
    assert classes_of(tmp_path / 'a' / 'work' / 'detector.safetensors') == tuple(NAMES)
    relist(boxes, lambda categories: categories.reverse())
    others, same = train(tmp_path / 'b')
    assert metrics == others and all(torch.equal(tensors[name], same[name]) for name in tensors)


def test_labels_count_the_classes_that_are_named(boxes):
    def labels(classes):
        dataset = SeededCocoDataset(
            ann_file=str(boxes / 'annotations/instances_val.json'),
            data_root='',
            data_prefix=dict(img=''),
            metainfo=dict(classes=classes),
            pipeline=[],
        )
        return {
            classes[instance['bbox_label']]
            for index in range(len(dataset))
            if dataset.get_data_info(index)['img_path'].endswith('0.JPG')
            for instance in dataset.get_data_info(index)['instances']
        }

    assert labels(tuple(NAMES)) == labels(tuple(reversed(NAMES))) == labels(('other box', 'box')) == {'box'}


@pytest.fixture(scope='module')
def three(tmp_path_factory):
    """Images of class0 … class5, of which class1, class3 and class4 are kept."""
    root = write_images(tmp_path_factory.mktemp('three'))
    for split in ('train', 'val'):
        for name in ('class0', 'class2', 'class5'):
            (root / split / name).rename(root / split / f'.{name}')
            (root / f'left-{split}-{name}').mkdir()
            (root / split / f'.{name}').rename(root / f'left-{split}-{name}' / name)
    return root


def classify(root, weights, folder):
    status = commands.main(
        [
            'evaluate',
            str(ROOT / 'pretrain/configs/demo_finetune.py'),
            '--protocol',
            'finetune',
            '--data-root',
            str(root),
            '--weights',
            str(weights),
            '--work-dir',
            str(folder),
            '--threads',
            '1',
            '--workers',
            '0',
        ]
    )
    if status:
        return status, None
    with np.load(folder / 'predictions.npz') as stored:
        return status, (stored['names'].tolist(), stored['labels'].tolist(), stored['classes'].tolist())


def test_a_classifier_is_measured_on_its_classes_by_name(images, three, tmp_path, capsys):
    names = [f'class{number}' for number in (5, 4, 3, 2, 1, 0)]  # of a file that was trained in another order
    torch.manual_seed(0)
    save(
        create_network('test_resnet', num_classes=6),
        tmp_path / 'c.safetensors',
        {'arch': 'test_resnet', 'classes': json.dumps(names)},
    )
    _, (said, labels, _) = classify(images, tmp_path / 'c.safetensors', tmp_path / 'a')
    assert said == names and labels == [number for number in (5, 4, 3, 2, 1, 0) for _ in range(3)]
    _, (_, labels, _) = classify(three, tmp_path / 'c.safetensors', tmp_path / 'b')
    assert labels == [4] * 3 + [2] * 3 + [1] * 3
    save(
        create_network('test_resnet', num_classes=2),
        tmp_path / 'e.safetensors',
        {'arch': 'test_resnet', 'classes': json.dumps(['class1', 'wasp'])},
    )
    assert classify(three, tmp_path / 'e.safetensors', tmp_path / 'c')[0] == 2
    assert "'class3', 'class4'" in capsys.readouterr().err


def test_names_that_stand_for_two_outputs_are_refused(images, boxes, detector, tmp_path, capsys):
    save(
        create_network('test_resnet', num_classes=7),
        tmp_path / 'c.safetensors',
        {'arch': 'test_resnet', 'classes': json.dumps([*(f'class{number}' for number in range(6)), 'class3'])},
    )
    assert classify(images, tmp_path / 'c.safetensors', tmp_path / 'a')[0] == 2
    assert "names 1 classes twice ('class3')" in capsys.readouterr().err
    save(detector, tmp_path / 'd.safetensors', {'classes': json.dumps(['box', 'never seen', 'box'])})
    assert evaluate(boxes, tmp_path / 'd.safetensors', tmp_path / 'b')[0] == 2
    assert "names 1 classes twice ('box')" in capsys.readouterr().err


WNIDS = tuple(ImageNetInfo().index_to_label_name(place) for place in range(1000))
NUMBERS = tuple(map(str, range(1000)))


@pytest.mark.parametrize('named', [WNIDS, NUMBERS, IMAGENET_CATEGORIES])
def test_imagenets_classes_are_known_by_each_of_their_names(tmp_path, monkeypatch, named):
    monkeypatch.setattr(finetune, 'classes_of', lambda path: tuple(named))
    this = SimpleNamespace(options=FinetuneOptions(data_root=str(tmp_path), weights='w.pth'))

    def matched(classes):
        this.val = SimpleNamespace(classes=classes)
        return finetune.ClassifierEvaluation.match_classes(this)

    assert matched(WNIDS) == WNIDS
    assert matched(WNIDS[5:9])[5:9] == WNIDS[5:9], 'some of them, as ImageNet-R has'
    assert matched(NUMBERS) == NUMBERS
    for other in ((*WNIDS[:-1], 'n20000000'), (*WNIDS[:-1], 'cat'), (*WNIDS[:-1], '999')):
        with pytest.raises(InputError):
            matched(other)


def test_a_thousand_other_words_are_not_taken_for_imagenets(tmp_path, monkeypatch):
    this = SimpleNamespace(options=FinetuneOptions(data_root=str(tmp_path), weights='w.pth'))
    this.val = SimpleNamespace(classes=WNIDS)
    for words in (sorted(set(IMAGENET_CATEGORIES) | {'zzz'}), [f'n{20000000 + number}' for number in range(1000)]):
        monkeypatch.setattr(finetune, 'classes_of', lambda path, words=words: tuple(words))
        with pytest.raises(InputError, match='1000 that it does not know'):
            finetune.ClassifierEvaluation.match_classes(this)


def test_a_refused_record_tells_what_differs_and_nothing_else(boxes, tmp_path, capsys):
    command = [
        'detect',
        '--data-root',
        str(boxes),
        '--work-dir',
        str(tmp_path / 'w'),
        '--results',
        str(tmp_path / 'r'),
        '--threads',
        '1',
        '--cfg-options',
        'train_cfg.max_epochs=1',
        'global_batch=2',
    ]
    assert commands.main(command) == 0
    assert commands.main([*command, 'optim_wrapper.optimizer.lr=0.5']) == 2
    error = capsys.readouterr().err
    assert '(optim_wrapper.optimizer.lr 0.00075, now 0.5)' in error, error
