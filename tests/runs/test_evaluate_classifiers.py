"""``evaluate`` of classifiers and of features: which network of a file, of which pixels, on which images."""

import json
import shutil

import numpy as np
import pytest
import torch
from small_finetuning import CLASSES, VAL, words, write_images
from small_recipes import record_of

from pretrain.encoder import create_network
from spark_bench import commands
from spark_bench.checkpoints import save
from spark_bench.data.images.imagenet import WNIDS
from spark_bench.evaluation.accuracy import save_classifier
from spark_bench.models.classifier import SparKClassifier
from spark_bench.probes.features import build_backbone

NAMES = [f'class{number}' for number in range(CLASSES)]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('images') / 'data')


def evaluate(data, weights, folder, *extra):
    command = ['evaluate', '--protocol', 'finetune', '--data-root', data, '--weights', weights, '--work-dir', folder]
    if 'pretrain/configs/demo_finetune.py' not in extra:
        command = [*command[:3], 'pretrain/configs/demo_finetune.py', *command[3:]]
    assert commands.main([str(word) for word in [*command, '--workers', 0, *extra]]) == 0
    return json.loads((folder / 'metrics.json').read_text())


def classifier(seed):
    torch.manual_seed(seed)
    return create_network('test_resnet', num_classes=CLASSES)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / 'model.safetensors'
    save(classifier(0), path, {'arch': 'test_resnet', 'classes': json.dumps(NAMES)})
    return path


def test_val_alone_and_class_folders_alone_are_measured_whole(data, weights, tmp_path):
    whole = evaluate(data, weights, tmp_path / 'a')
    shutil.copytree(data / 'val', tmp_path / 'alone/val')
    assert evaluate(tmp_path / 'alone', weights, tmp_path / 'b') == whole
    assert evaluate(tmp_path / 'alone/val', weights, tmp_path / 'c') == whole
    for name in NAMES[2:]:
        shutil.rmtree(tmp_path / f'alone/val/{name}')
    found = evaluate(tmp_path / 'alone/val', weights, tmp_path / 'd')
    assert round(found['top1'] * 2 * VAL / 100, 6) == int(found['top1'] * 2 * VAL / 100 + 0.5), 'of six images'


def test_without_splits_no_image_is_measured_that_was_trained_on(tmp_path, capfd):
    data = write_images(tmp_path / 'images') / 'train'
    settings = ['--weights', 'scratch', '--epochs', '1']
    assert commands.main(words(data, tmp_path, *settings, settings=['global_batch=12'])) == 0
    trained = record_of(tmp_path)
    file = tmp_path / 'work/classifier.safetensors'
    found = evaluate(data, file, tmp_path / 'a')
    assert found['top1'] == trained['metrics']['top1_last_raw']
    with np.load(tmp_path / 'a/predictions.npz') as stored:
        assert len(stored['labels']) == trained['dataset']['val_images'] < trained['dataset']['train_images']
    assert 'has no splits: all' not in ''.join(capfd.readouterr())
    shutil.rmtree(data / NAMES[0])
    evaluate(data, file, tmp_path / 'b')  # other data
    told = ''.join(capfd.readouterr())
    assert 'has no splits: all 40 images are measured' in told and 'are held out for evaluation' not in told


def test_files_without_names_of_a_thousand_classes_are_imagenets(tmp_path, data):
    torch.manual_seed(0)
    network = create_network('test_resnet', num_classes=1000)
    torch.save({'state_dict': network.state_dict(), 'arch': 'test_resnet'}, tmp_path / 'w.pth')
    for number, name in enumerate(NAMES):
        shutil.copytree(data / 'val' / name, tmp_path / f'r/val/{WNIDS[100 * number + 2]}')
    evaluate(tmp_path / 'r', tmp_path / 'w.pth', tmp_path / 'a')
    with np.load(tmp_path / 'a/predictions.npz') as stored:
        assert sorted(set(stored['labels'].tolist())) == [2, 102, 202, 302, 402, 502]
        assert stored['names'].tolist() == list(WNIDS)


def test_one_of_two_networks_is_chosen(data, tmp_path, capsys):
    both = {
        f'{name}.{key}': value
        for seed, name in ((0, 'student'), (1, 'teacher'))
        for key, value in classifier(seed).state_dict().items()
    }
    torch.save({'state_dict': both, 'arch': 'test_resnet'}, tmp_path / 'two.pth')
    found = {}
    for seed, name in ((0, 'student'), (1, 'teacher')):
        save(classifier(seed), tmp_path / f'{name}.safetensors', {'arch': 'test_resnet'})
        found[name] = evaluate(data, tmp_path / f'{name}.safetensors', tmp_path / name)
        chosen = evaluate(data, tmp_path / 'two.pth', tmp_path / f'of_{name}', '--key-prefix', name)
        assert chosen == found[name]
    assert found['student'] != found['teacher']


def test_pixels_of_another_mean_are_told(data, weights, tmp_path, capfd):
    evaluate(data, weights, tmp_path / 'a')
    assert 'mean (0.5, 0.5, 0.5)' not in ''.join(capfd.readouterr())
    weights.with_name('config.json').write_text('{"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}')
    evaluate(data, weights, tmp_path / 'b')
    assert 'mean (0.5, 0.5, 0.5)' in ''.join(capfd.readouterr())


@pytest.mark.parametrize('pool', ['avg', None])
def test_features_of_a_vit_are_what_its_classifier_sees(tmp_path, pool):
    torch.manual_seed(0)
    model = SparKClassifier('vit_mini', 3, global_pool=pool).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.1, 0.3)
    save_classifier(model, tmp_path / 'c.safetensors', {'arch': 'vit_mini'})
    seen = []
    model.backbone.get_classifier().register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    image_B3HW = torch.randn(2, 3, 96, 96)
    network = build_backbone('vit_mini', tmp_path / 'c.safetensors')
    with torch.no_grad():
        model(image_B3HW, mode='tensor')
        features_BC = network.forward_head(network.forward_features(image_B3HW), pre_logits=True)
    assert torch.equal(features_BC, seen[0])


def test_a_detector_of_other_pixels_is_told(boxes, tmp_path, capfd):
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from small_recipes import CATEGORIES, ROOT

    init_default_scope('mmdet')
    model = Config.fromfile(ROOT / 'mmdet_configs/demo/mask-rcnn_demo.py').model
    model.roi_head.bbox_head.num_classes = model.roi_head.mask_head.num_classes = len(CATEGORIES)
    state = MODELS.build(model).state_dict()
    classes = [category['name'] for category in CATEGORIES]
    for mean, other in (([123.675, 116.28, 103.53], False), ([103.53, 116.28, 123.675], True)):
        config = f'data_preprocessor = dict(mean={mean}, std=[58.395, 57.12, 57.375])'
        torch.save(
            {'state_dict': state, 'meta': {'cfg': config, 'dataset_meta': {'classes': classes}}}, tmp_path / 'd.pth'
        )
        command = [
            'evaluate',
            '--data-root',
            boxes,
            '--weights',
            tmp_path / 'd.pth',
            '--work-dir',
            tmp_path / str(other),
        ]
        assert commands.main([str(word) for word in [*command, '--workers', 0]]) == 0
        assert ('made for pixels of mean (104, 116, 124)' in ''.join(capfd.readouterr())) == other


def test_images_without_objects_are_evaluated_whatever_a_config_says(boxes, tmp_path):
    from spark_bench.data.detection import open_split
    from spark_bench.runs.detect import place_evaluation
    from spark_bench.runs.inputs import load_config
    from spark_bench.runs.options import DetectOptions

    cfg = load_config('mmdet_configs/demo/mask-rcnn_demo.py', {})
    cfg.test_dataloader.dataset.update(test_mode=False, filter_cfg=dict(filter_empty_gt=True, min_size=32))
    val = open_split(boxes, 'val')
    place_evaluation(cfg, DetectOptions(work_dir=str(tmp_path)), val, val.categories)
    assert cfg.test_dataloader.dataset.test_mode and 'filter_cfg' not in cfg.test_dataloader.dataset
