"""What only the evaluation reads is tried before the training, and may be mended behind it."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner
from safetensors.torch import load_file
from small_recipes import ROOT, record_of, tiny, words

from spark_bench import commands
from spark_bench.errors import RunError
from spark_bench.runs import detect
from spark_bench.training.loop import UpdateOptimWrapper


def demo(data, folder, *extra, config=None):
    return [
        'detect',
        *([str(config)] if config else []),
        '--data-root',
        str(data),
        '--work-dir',
        str(folder / 'work'),
        '--results',
        str(folder / 'results'),
        '--threads',
        '1',
        '--cfg-options',
        'train_cfg.max_epochs=1',
        'global_batch=2',
        *extra,
    ]


def refused(capsys, arguments, *named):
    assert commands.main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(word in error for word in named), error


@pytest.mark.parametrize(
    'broken, named',
    [
        ('model = dict(test_cfg=dict(rcnn=dict(nms=dict(iou_thr=0.5))))', 'model.test_cfg'),
        (
            "test_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImage'), dict(type='PackDetInputs', "
            "meta_keys=('img_id', 'absent'))]))",
            'test_dataloader',
        ),
    ],
)
def test_an_evaluation_that_cannot_work_is_refused_before_the_training(broken, named, boxes, tmp_path, capsys):
    config = tmp_path / 'my.py'
    config.write_text(f"_base_ = '{ROOT}/mmdet_configs/demo/mask-rcnn_demo.py'\n{broken}\n")
    refused(capsys, demo(boxes, tmp_path, config=config), 'before the training', named, '0.JPG')
    assert not list((tmp_path / 'work').glob('*.pth')) and not (tmp_path / 'results').exists()
    # Nothing stands in the way of the mended one.
    config.write_text(f"_base_ = '{ROOT}/mmdet_configs/demo/mask-rcnn_demo.py'\n")
    assert commands.main(demo(boxes, tmp_path, config=config)) == 0


def test_the_rehearsal_changes_nothing_of_the_training(boxes, tmp_path, monkeypatch):
    assert commands.main(demo(boxes, tmp_path / 'a')) == 0
    monkeypatch.setattr(detect, 'rehearse', lambda runner, sizes: None)
    assert commands.main(demo(boxes, tmp_path / 'b')) == 0
    one, two = (load_file(tmp_path / name / 'work/detector.safetensors') for name in 'ab')
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert record_of(tmp_path / 'a')['metrics'] == record_of(tmp_path / 'b')['metrics']


def test_a_cpu_rehearses_on_small_images_and_finds_boxes_of_the_whole_ones(boxes, tmp_path, monkeypatch):
    config = tmp_path / 'my.py'
    pipeline = "[dict(type='LoadImage'), dict(type='Resize', scale=(640, 640)), dict(type='PackDetInputs')]"
    config.write_text(
        f"_base_ = '{ROOT}/mmdet_configs/demo/mask-rcnn_demo.py'\n"
        f'test_dataloader = dict(dataset=dict(pipeline={pipeline}))\n'
        'model = dict(test_cfg=dict(rpn=dict(max_per_img=200)))\n'
    )
    rehearse, sides, found, proposals = detect.rehearse, [], [], []

    def watch(runner, sizes):
        model = runner.model
        before = model.rpn_head.test_cfg.max_per_img
        hooks = [
            model.backbone.register_forward_pre_hook(lambda module, given: sides.append(given[0].shape[-1])),
            model.roi_head.bbox_head.register_forward_pre_hook(lambda module, given: proposals.append(len(given[0]))),
        ]
        with monkeypatch.context() as patched:
            patched.setattr(
                runner.test_loop.evaluator, 'process', lambda data_samples, data_batch: found.extend(data_samples)
            )
            rehearse(runner, sizes)
        assert model.rpn_head.test_cfg.max_per_img == before == 200
        for hook in hooks:
            hook.remove()

    monkeypatch.setattr(detect, 'rehearse', watch)
    assert commands.main(demo(boxes, tmp_path, config=config)) == 0
    assert set(sides) == {320} and found and max(proposals) == 100
    for sample in found:
        height, width = sample.ori_shape
        assert sample.pred_instances.masks.shape[1:] == (height, width)
        # Of a fresh network, some boxes reach over nearly the whole image.
        right, bottom = sample.pred_instances.bboxes[:, 2:].max(0).values
        assert width / 2 < right <= width and height / 2 < bottom <= height


def drop_image(root):
    path = root / 'annotations/instances_val.json'
    contents = json.loads(path.read_text())
    gone = contents['images'].pop()['id']
    contents['annotations'] = [entry for entry in contents['annotations'] if entry['image_id'] != gone]
    path.write_text(json.dumps(contents))


MENDED = {
    'a val image': lambda root: (drop_image(root), [])[1],
    'a key of the test': lambda root: ['model.test_cfg.rcnn.score_thr=0.01'],
}


@pytest.mark.parametrize('what', MENDED)
@pytest.mark.parametrize('recipe', ['epochs', pytest.param('updates', marks=pytest.mark.slow)])
def test_a_finished_training_is_measured_again_and_not_trained_again(what, recipe, boxes, tmp_path, monkeypatch):
    command = (
        demo(boxes, tmp_path)
        if recipe == 'epochs'
        else [*words(tiny(tmp_path), boxes, tmp_path), '--cfg-options', 'log_level=INFO']
    )
    with monkeypatch.context() as patched:
        patched.setattr(Runner, 'test', lambda runner: (_ for _ in ()).throw(RunError('no space left')))
        assert commands.main(command) == 1
    more = MENDED[what](boxes)
    steps = []
    for owner, name in ((UpdateOptimWrapper, 'step'), (torch.optim.Optimizer, 'step')):
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: steps.append(args))
    assert commands.main([*command, *more]) == 0 and not steps
    record = record_of(tmp_path)
    assert record['dataset']['val_images'] == (7 if 'image' in what else 8) and record['curves']['loss']


def test_another_training_is_still_refused_the_folder(boxes, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        patched.setattr(Runner, 'test', lambda runner: (_ for _ in ()).throw(RunError('no space left')))
        assert commands.main(demo(boxes, tmp_path)) == 1
    refused(capsys, demo(boxes, tmp_path, 'optim_wrapper.optimizer.lr=0.1'), 'another configuration')
    path = boxes / 'annotations/instances_train.json'
    path.write_text(path.read_text().replace('"area": 900', '"area": 901'))
    refused(capsys, demo(boxes, tmp_path), 'another configuration')
    assert list(Path(tmp_path / 'work').glob('epoch_*.pth'))


@pytest.mark.parametrize('metrics', [{'box_ap': None, 'mask_ap': 3.0}, {'mask_ap': 3.0}])
def test_a_record_without_its_main_metric_is_never_written(metrics, boxes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(detect, 'evaluate_predictions', lambda *args: (metrics, {}))
    assert commands.main(demo(boxes, tmp_path)) == 1
    assert 'box_ap could not be measured' in capsys.readouterr().err
    assert not list((tmp_path / 'results').rglob('*.json'))


@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_split_of_crowds_is_refused_before_the_training(split, boxes, tmp_path, capsys):
    path = boxes / f'annotations/instances_{split}.json'
    path.write_text(path.read_text().replace('"iscrowd": 0', '"iscrowd": 1'))
    refused(capsys, demo(boxes, tmp_path), f'instances_{split}.json', 'none is of use', 'iscrowd 0')
    assert not (tmp_path / 'work').exists()


def test_other_images_of_the_same_names_and_sizes_are_another_run(boxes, tmp_path, capsys):
    assert commands.main(demo(boxes, tmp_path)) == 0
    path = boxes / 'val/0.JPG'
    stored = path.read_bytes()
    path.write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
    refused(capsys, demo(boxes, tmp_path), 'another configuration')
    path.write_bytes(stored)
    assert commands.main(demo(boxes, tmp_path)) == 0
