"""Any detector of mmdet as a recipe: its own configs, with one of this project's backbones, train and are measured."""

import contextlib
import io
import json

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sampling import all_but
from small_recipes import ROOT, leave_boxes_alone, record_of, words
from stock_recipes import CONFIGS, DETECTORS, stock

from spark_bench import commands
from spark_bench.configs import read_config
from spark_bench.errors import InputError
from spark_bench.models.categories import check_categories, set_categories
from spark_bench.models.precision import prepare_detector
from spark_bench.models.shapes import check_shapes
from spark_bench.records.store import load_all
from spark_bench.runs.detect import Detection
from spark_bench.runs.inputs import load_config
from spark_bench.runs.options import DetectOptions
from spark_bench.tables.markdown import to_markdown
from spark_bench.tables.suite import table_of_suite
from spark_bench.training.batches import fit_batch

# Narrow heads and few proposals, for what does not depend on their size.
SMALL = {
    'retinanet': {'model.bbox_head.stacked_convs': 1, 'model.test_cfg.max_per_img': 20},
    'fcos': {'model.bbox_head.stacked_convs': 1, 'model.test_cfg.max_per_img': 20},
    'dino': {'model.encoder.num_layers': 2, 'model.decoder.num_layers': 2},
    'mask2former': {
        'model.panoptic_head.transformer_decoder.num_layers': 3,
        'model.panoptic_head.num_queries': 20,
        'model.test_cfg.max_per_image': 20,
    },
    'cascade-mask-rcnn': {
        'model.train_cfg.rpn_proposal.max_per_img': 50,
        'model.test_cfg.rpn.max_per_img': 20,
        'model.test_cfg.rcnn.max_per_img': 5,
        **{f'model.train_cfg.rcnn.{i}.sampler.num': 16 for i in range(3)},
        **{f'model.roi_head.bbox_head.{i}.fc_out_channels': 64 for i in range(3)},
        'model.roi_head.mask_head.num_convs': 1,
    },
}
FAST = ('retinanet',)


def two_updates(name):
    return ['global_batch=3', 'train_cfg.max_updates=2' if name == 'mask2former' else 'train_cfg.max_epochs=1']


def box_ap(annotations, results):
    """By pycocotools alone, in percent."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * evaluation.stats[0]


@pytest.mark.parametrize(
    'name', [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in DETECTORS]
)
def test_a_config_of_mmdet_trains_two_updates_and_is_measured(name, coco, tmp_path):
    config = stock(name, tmp_path, **SMALL[name])
    if 'mask' not in name:
        coco = leave_boxes_alone(coco, tmp_path / 'boxes')
    assert commands.main([*words(config, coco, tmp_path), '--cfg-options', *two_updates(name)]) == 0
    record, work = record_of(tmp_path), tmp_path / 'work'
    kinds = {'box', 'mask'} if 'mask' in name else {'box'}
    assert {key.split('_')[0] for key in record['metrics']} == kinds
    assert len(record['curves']['loss']) == 2 and all(0 < loss < 1e4 for _, loss in record['curves']['loss'])
    results = work / f'predictions.{"segm" if "mask" in name else "bbox"}.json'
    assert record['artifacts']['predictions'] == str(results) and json.loads(results.read_text())
    annotations = coco / 'annotations/instances_val2017.json'
    # Of results with masks pycocotools takes the masks' boxes: those of the other file are the same detections.
    assert record['metrics']['box_ap'] == pytest.approx(box_ap(annotations, work / 'predictions.bbox.json'), abs=1e-9)
    again = [
        'evaluate',
        config,
        '--weights',
        work / 'detector.safetensors',
        '--data-root',
        coco,
        '--workers',
        '0',
        '--work-dir',
        tmp_path / 'again',
        '--threads',
        '1',
    ]
    assert commands.main([str(word) for word in again]) == 0
    assert json.loads((tmp_path / 'again/metrics.json').read_text()) == record['metrics']
    table = table_of_suite(load_all(tmp_path / 'results', 'custom'))
    shown = {column.metric: cell for column, cell in zip(table.columns, table.rows[0].cells, strict=True)}
    assert shown['box_ap'].value == record['metrics']['box_ap']
    assert (shown['mask_ap'].value is None) == ('mask' not in name) and ('–' in to_markdown(table)) == (
        'mask' not in name
    )


def groups(wrapper, model):
    """From name of a parameter to its learning rate and weight decay."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (pytest.approx(group['lr'], rel=1e-12), group['weight_decay'])
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }


@pytest.mark.parametrize('name', DETECTORS)
def test_what_is_taken_from_a_config_of_mmdet_trains_as_mmdet_would(name, tmp_path):
    """Optimizer, schedule, model and images; the loop, its batches and its hooks are this project's."""
    init_default_scope('mmdet')
    path = stock(name, tmp_path)
    theirs, ours = Config.fromfile(path), load_config(str(path), {})
    fit_batch(ours)
    assert ours.global_batch == theirs.auto_scale_lr.base_batch_size == 16 and ours.train_dataloader.batch_size == 2
    assert ours.model == theirs.model
    schedule = theirs.param_scheduler if isinstance(theirs.param_scheduler, list) else [theirs.param_scheduler]
    assert ours.param_scheduler == schedule
    length = {theirs.train_cfg.get('max_epochs'), theirs.train_cfg.get('max_iters')}
    assert length == {ours.train_cfg.get('max_epochs'), ours.train_cfg.get('max_updates')}
    with torch.device('meta'):
        model = MODELS.build(theirs.model)
    assert groups(build_optim_wrapper(model, ours.optim_wrapper), model) == groups(
        build_optim_wrapper(model, theirs.optim_wrapper), model
    )
    assert ours.optim_wrapper.get('clip_grad') == theirs.optim_wrapper.get('clip_grad')
    for loader in ('train_dataloader', 'test_dataloader'):
        steps, kept = theirs[loader].dataset.pipeline, ours[loader].dataset.pipeline
        assert [step.type.replace('LoadImageFromFile', 'LoadImage') for step in steps] == [step.type for step in kept]
        assert steps[1:] == kept[1:] and kept[0].get('to_float32', False) == steps[0].get('to_float32', False)
    assert ours.train_dataloader.sampler.type == 'GroupedImageSampler'  # of every one of these configs
    assert not {'val_cfg', 'val_dataloader', 'val_evaluator', 'auto_scale_lr'}.intersection(ours)


@pytest.mark.parametrize(
    'recipe',
    [
        'demo/mask-rcnn_demo.py',
        'spark/mask-rcnn_resnet50_fpn_1x_coco.py',
        'baselines/mask-rcnn_vit-base-mae_fpn_100e_coco.py',
        'spark/cascade-mask-rcnn_convnext-base_fpn_3x_coco.py',
    ],
)
def test_a_recipe_of_this_project_stays_as_it_is(recipe):
    path = ROOT / 'mmdet_configs' / recipe
    assert load_config(str(path), {}).to_dict() == Config.fromfile(path).to_dict()


@pytest.mark.parametrize(
    'settings, named',
    [
        ({'train_cfg.type': 'TeacherLoop'}, ['train_cfg.type TeacherLoop', "type='UpdateLoop'"]),
        ({'train_cfg': dict(type='EpochBasedTrainLoop')}, ['neither max_epochs nor max_updates']),
        ({'train_cfg': dict(type='UpdateLoop', max_epochs=1, max_updates=2)}, ['both max_epochs and max_updates']),
        ({'optim_wrapper.type': 'ApexOptimWrapper'}, ['optim_wrapper.type ApexOptimWrapper', 'UpdateOptimWrapper']),
        ({'train_dataloader.dataset.type': 'RepeatDataset'}, ['dataset.type RepeatDataset', 'CocoDataset']),
        ({'train_dataloader.sampler.type': 'ClassAwareSampler'}, ['ClassAwareSampler', 'ImageSampler']),
        ({'test_evaluator': [dict(type='CocoMetric'), dict(type='CocoPanopticMetric')]}, ['2 metrics', 'CocoMetric']),
        ({'test_evaluator.type': 'VOCMetric'}, ['test_evaluator.type VOCMetric', 'CocoMetric']),
        ({'load_from': 'some.pth'}, ['load_from some.pth', '--weights']),
        ({'model.backbone.weights': 'some.pth'}, ['model.backbone.weights some.pth', '--weights']),
        (
            {'model.backbone.init_cfg': dict(type='Pretrained', checkpoint='torchvision://resnet50')},
            ['model.backbone.init_cfg', 'torchvision://resnet50', '--weights'],
        ),
        ({'model.init_cfg': [dict(type='mmengine.Pretrained', checkpoint='a.pth')]}, ['model.init_cfg', '--weights']),
        ({'optim_wrapper.accumulative_counts': 4}, ['accumulative_counts 4', 'global_batch']),
        ({'train_dataloader.dataset.metainfo': dict(classes=('star',))}, ['metainfo.classes', '--data-root']),
        ({'model.roi_head': dict(mask_iou_head=dict(type='MaskIoUHead'))}, ['mask_iou_head', 'box AP']),
        ({'auto_scale_lr': None}, ['no global_batch']),
    ],
)
def test_what_cannot_be_kept_is_refused_by_its_key(settings, named, tmp_path):
    path = stock('retinanet', tmp_path)
    cfg = read_config(path)
    for key, value in settings.items():
        place, _, last = key.rpartition('.')
        (cfg if not place else cfg.get(place) or _at(cfg, place))[last] = value
    cfg.dump(path)
    with pytest.raises(InputError) as refused:
        load_config(str(path), {})
    assert '\n' not in str(refused.value) and all(word in str(refused.value) for word in (*named, path.name))


def _at(cfg, place):
    for part in place.split('.'):
        cfg = cfg[part]
    return cfg


def test_half_precision_becomes_bfloat16(tmp_path):
    path = stock('retinanet', tmp_path, **{'optim_wrapper.type': 'AmpOptimWrapper', 'optim_wrapper.loss_scale': 512.0})
    wrapper = load_config(str(path), {}).optim_wrapper
    assert wrapper.type == 'UpdateOptimWrapper' and wrapper.autocast and 'loss_scale' not in wrapper


def model_of(name):
    return Config.fromfile(CONFIGS / DETECTORS[name]).model


def test_every_head_tells_the_categories_of_the_data_apart():
    init_default_scope('mmdet')
    for name in DETECTORS:
        model = model_of(name)
        set_categories(model, 3)
        with torch.device('meta'):
            check_categories(MODELS.build(model), 3)
    assert [head.num_classes for head in model_of('cascade-mask-rcnn').roi_head.bbox_head] == [80] * 3
    model = model_of('mask2former')
    weights = list(model.panoptic_head.loss_cls.class_weight)
    set_categories(model, 80)
    assert list(model.panoptic_head.loss_cls.class_weight) == weights
    set_categories(model, 3)
    assert list(model.panoptic_head.loss_cls.class_weight) == [1.0, 1.0, 1.0, 0.1]
    assert model.panoptic_fusion_head.num_things_classes == 3 and model.panoptic_head.num_stuff_classes == 0


def test_heads_that_cannot_take_the_categories_are_refused():
    init_default_scope('mmdet')
    panoptic = Config.fromfile(CONFIGS / 'mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py').model
    with pytest.raises(InputError, match=r'panoptic_head\.num_stuff_classes is 53.*set 0'):
        set_categories(panoptic, 3)
    hybrid = Config.fromfile(CONFIGS / 'htc/htc_r50_fpn_1x_coco.py').model
    with pytest.raises(InputError, match=r'model\.roi_head\.semantic_head'):
        set_categories(hybrid, 3)
    weighted = ConfigDict(bbox_head=dict(num_classes=2, loss_cls=dict(class_weight=[1.0, 3.0, 0.1])))
    with pytest.raises(InputError, match=r'model\.bbox_head\.loss_cls\.class_weight has a weight of its own'):
        set_categories(weighted, 3)
    silent = model_of('cascade-mask-rcnn')
    silent.roi_head.mask_head.pop('num_classes')
    set_categories(silent, 3)
    with torch.device('meta'), pytest.raises(InputError, match=r'model\.roi_head\.mask_head.*\.num_classes is 80'):
        check_categories(MODELS.build(silent), 3)


def built(model):
    """A detector whose weights take no time; some of DINO's are made on the CPU wherever it is told to be built."""
    with torch.device('cpu' if model.type == 'DINO' else 'meta'):
        return MODELS.build(model)


@pytest.mark.parametrize(
    'name, key, value, named',
    [
        ('cascade-mask-rcnn', 'roi_head.bbox_head.1.in_channels', 128, r'bbox_head\.1\.in_channels is 128: give 256'),
        ('cascade-mask-rcnn', 'roi_head.bbox_head.2.roi_feat_size', 14, r'bbox_head\.2\.roi_feat_size is 14: give 7'),
        ('cascade-mask-rcnn', 'train_cfg.rcnn.0.mask_size', 14, r'train_cfg\.rcnn\.0\.mask_size is 14: give 28'),
        ('retinanet', 'bbox_head.in_channels', 64, r'bbox_head\.in_channels is 64: give 256'),
        ('retinanet', 'neck.in_channels', [64, 128, 256, 500], r'neck\.in_channels'),
        ('retinanet', 'bbox_head.anchor_generator.strides', [8, 16, 32], r'strides is \[8, 16, 32\], 3 of them'),
        ('fcos', 'bbox_head.strides', [8, 16, 32], r'bbox_head\.strides is \[8, 16, 32\]'),
        (
            'retinanet',
            'bbox_head.anchor_generator.strides',
            [4, 8, 16, 32, 64],
            r'\[4, 8, 16, 32, 64\]: give \[8, 16, 32',
        ),
        ('mask2former', 'panoptic_head.in_channels', [64, 128, 256, 500], r'panoptic_head\.in_channels'),
        ('dino', 'neck.in_channels', [128, 256, 500], r'neck\.in_channels'),
    ],
)
def test_parts_that_do_not_fit_are_told_by_key(name, key, value, named, tmp_path):
    init_default_scope('mmdet')
    path = stock(name, tmp_path, **SMALL[name])
    model = read_config(path).model
    network = built(model)
    check_shapes(network, model)
    *parts, last = (int(part) if part.isdigit() else part for part in key.split('.'))
    parent = model
    for part in parts:
        parent = parent[part]
    parent[last] = value
    with pytest.raises(InputError, match=named):
        check_shapes(network, model)


@pytest.mark.parametrize('name', all_but(['mask2former'], ['retinanet', 'dino', 'mask2former']))
def test_heads_in_bfloat16_give_float32_near_those_of_float32(name, tmp_path):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    cfg = read_config(stock(name, tmp_path, **SMALL[name]))
    set_categories(cfg.model, 3)
    model = MODELS.build(cfg.model).eval()
    model.init_weights()
    prepare_detector(model)
    seen = []
    head = model.panoptic_head if name == 'mask2former' else model.bbox_head
    head.register_forward_hook(lambda _, __, output: seen.append(list(_tensors(output))))
    image_B3HW = torch.randn(1, 3, 128, 128)
    sample = DetDataSample(
        metainfo=dict(
            img_shape=(128, 128),
            ori_shape=(128, 128),
            scale_factor=(1.0, 1.0),
            batch_input_shape=(128, 128),
            pad_shape=(128, 128),
        )
    )
    with torch.no_grad():
        model(image_B3HW, [sample], mode='predict')
        with torch.autocast('cpu', torch.bfloat16):
            model(image_B3HW, [sample], mode='predict')
    exact, near = seen
    assert all(tensor.dtype == torch.float32 for tensor in near) and len(exact) == len(near)
    if name == 'retinanet':  # the queries of the others may be other places of the image, by rounding
        assert all(torch.allclose(a, b, atol=0.05 * a.abs().max()) for a, b in zip(exact, near, strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(exact, near, strict=True))


def _tensors(value):
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def test_boxes_of_queries_are_refined_in_float32(tmp_path):
    """The branch of a layer is added to its reference in place: in bfloat16 a box would move by pixels."""
    init_default_scope('mmdet')
    model = MODELS.build(read_config(stock('dino', tmp_path, **SMALL['dino'])).model)
    prepare_detector(model)
    with torch.autocast('cpu', torch.bfloat16):
        for branches in (model.bbox_head.reg_branches, model.bbox_head.cls_branches):
            assert all(branch(torch.randn(2, 5, 256)).dtype == torch.float32 for branch in branches)


def test_a_timm_network_is_fitted_to_whatever_takes_its_maps(tmp_path):
    for name, maps, key in (('retinanet', 4, 'neck'), ('dino', 3, 'neck'), ('mask2former', 4, 'panoptic_head')):
        path = stock(name, tmp_path)
        cfg = read_config(path)
        cfg.model.backbone = dict(type='SparKTimm', arch='test_resnet')
        if maps == 3:
            cfg.dump(path)
            with pytest.raises(InputError, match=r'for 3 maps, and the backbone gives 4.*out_indices, \(1, 2, 3\)'):
                Detection.check_recipe(DetectOptions(config=str(path)))
            cfg.model.backbone.out_indices = (1, 2, 3)
        cfg.dump(path)
        cfg = load_config(str(path), {})
        Detection.fit_recipe(cfg, DetectOptions(config=str(path)), 3)
        assert cfg.model[key].in_channels == [32, 48, 192, 96][4 - maps :]
        check_shapes(built(cfg.model), cfg.model)


def test_a_detector_without_boxes_is_refused(tmp_path):
    path = tmp_path / 'solo.py'
    path.write_text(
        "_base_ = 'mmdet::solo/solo_r50_fpn_1x_coco.py'\n"
        "model = dict(backbone=dict(_delete_=True, type='SparKResNet', arch='resnet50'))\n"
    )
    with pytest.raises(InputError, match='SOLO, which gives masks without boxes'):
        Detection.check_recipe(DetectOptions(config=str(path)))


def test_the_cascade_is_mmdets_but_for_the_heads_of_convnext():
    ours = Config.fromfile(ROOT / 'mmdet_configs/spark/cascade-mask-rcnn_convnext-base_fpn_3x_coco.py')
    cascade = Config.fromfile(CONFIGS / '_base_/models/cascade-mask-rcnn_r50_fpn.py').model
    tiny = Config.fromfile(next((CONFIGS / 'convnext').glob('cascade-mask-rcnn_convnext-t-*.py')))
    theirs, mine = tiny.model.to_dict(), ours.model.to_dict()
    for model in (theirs, mine):
        model.pop('_scope_', None)
        model.pop('backbone')
        model['neck'].pop('in_channels')
    assert mine == theirs and ours.model.train_cfg == cascade.train_cfg
    assert ours.train_dataloader.dataset.pipeline[1:] == tiny.train_dataloader.dataset.pipeline[1:]
    assert ours.model.backbone.drop_path_rate == 0.7 and ours.base_lr == tiny.optim_wrapper.optimizer.lr
    assert ours.optim_wrapper.paramwise_cfg.decay_rate == 0.8 and ours.param_scheduler[1].gamma == 0.1


def test_the_recipe_of_mask2former_is_mmdets_but_for_the_backbone():
    path = ROOT / 'mmdet_configs/spark/mask2former_resnet50_50e_coco.py'
    ours, theirs = load_config(str(path), {}), Config.fromfile(CONFIGS / DETECTORS['mask2former'])
    ours.model.pop('_scope_')
    assert {**ours.model, 'backbone': 0} == {**theirs.model, 'backbone': 0}
    assert ours.param_scheduler == [theirs.param_scheduler] and ours.train_cfg.max_updates == theirs.train_cfg.max_iters
    assert ours.base_lr == theirs.optim_wrapper.optimizer.lr
    mine, stated = ours.optim_wrapper.to_dict(), theirs.optim_wrapper.to_dict()
    assert mine['paramwise_cfg'] == stated['paramwise_cfg'] and mine['clip_grad'] == stated['clip_grad']
