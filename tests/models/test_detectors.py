"""The detectors equal stock mmdet's, and compute in bfloat16 and channels-last what they compute without."""

import pytest
import torch
from networks import R50, SWIN, TINY, detector, fill
from sampling import all_but

STOCK = {
    'resnet50': (dict(type=R50, arch='resnet50'), dict(type='ResNet', depth=50, norm_eval=False)),
    'convnext_tiny': (
        dict(type=TINY, arch='convnext_tiny'),
        dict(
            type='mmpretrain.ConvNeXt',
            arch='tiny',
            out_indices=[0, 1, 2, 3],
            gap_before_final_norm=False,
            layer_scale_init_value=1.0,
        ),
    ),
    'swin_tiny': (
        dict(type=SWIN, arch='swin_tiny', drop_path_rate=0.0),
        dict(type='SwinTransformer', embed_dims=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], drop_path_rate=0.0),
    ),
}


def training_batch():
    import numpy as np
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    sample = DetDataSample(
        metainfo=dict(
            img_shape=(96, 128),
            ori_shape=(96, 128),
            pad_shape=(96, 128),
            batch_input_shape=(96, 128),
            scale_factor=(1.0, 1.0),
            img_id=0,
        )
    )
    boxes = torch.tensor([[10.0, 10, 60, 70], [50, 20, 120, 90]])
    masks = np.zeros((2, 96, 128), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 2]), masks=BitmapMasks(masks, 96, 128))
    draw = torch.Generator().manual_seed(0)
    return {
        'inputs': [torch.randint(0, 256, (3, 96, 128), generator=draw, dtype=torch.uint8)],
        'data_samples': [sample],
    }


@pytest.mark.parametrize('arch', all_but(['swin_tiny'], STOCK))
def test_detector_equals_stock_mmdet(arch):
    ours, stock = (detector(dict(backbone), arch) for backbone in STOCK[arch])
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in stock.parameters())
    stock.load_state_dict(fill(ours).state_dict(), strict=True)
    results = []
    for model in (ours, stock):
        model.train()
        torch.manual_seed(0)
        losses = model(**model.data_preprocessor(training_batch(), True), mode='loss')
        total = sum(sum(part) if isinstance(part, list) else part for name, part in losses.items() if 'loss' in name)
        total.backward()
        model.eval()
        with torch.no_grad():
            found = model(**model.data_preprocessor(training_batch(), False), mode='predict')[0].pred_instances
        results.append((total.detach(), found, [p.grad.norm() for p in model.parameters() if p.grad is not None]))
    (loss, found, gradients), (loss_stock, found_stock, gradients_stock) = results
    assert loss > 0 and len(found) > 0
    torch.testing.assert_close(loss, loss_stock, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.bboxes, found_stock.bboxes, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.scores, found_stock.scores, rtol=1e-5, atol=1e-5)
    assert (found.masks == found_stock.masks).all() and (found.labels == found_stock.labels).all()
    torch.testing.assert_close(torch.stack(gradients), torch.stack(gradients_stock), rtol=1e-4, atol=1e-6)


def test_channels_last_gives_the_same_features_of_rois():
    """mmcv's RoIAlign reads memory in plain layout, whatever the tensor's: it must not get another."""
    from spark_bench.models.precision import prepare_detector

    rois = torch.tensor([[0.0, 10, 10, 60, 70], [0, 50, 20, 120, 90]])
    results = []
    for channels_last in (False, True):
        model = fill(detector(dict(type=R50, arch='resnet18'), 'resnet18'))
        prepare_detector(model, channels_last)
        with torch.no_grad():
            maps_of_neck = model.extract_feat(model.data_preprocessor(training_batch(), False)['inputs'])
            results.append(model.roi_head.bbox_roi_extractor(maps_of_neck[:4], rois))
    assert maps_of_neck[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


def test_under_bfloat16_boxes_and_losses_are_float32():
    from spark_bench.models.precision import prepare_detector

    model = fill(detector(dict(type=R50, arch='resnet18'), 'resnet18')).train()
    prepare_detector(model)
    seen = []
    model.backbone.layer1[0].conv1.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    model.rpn_head.register_forward_hook(lambda _, __, output: seen.append(output[1][0].dtype))
    with torch.autocast('cpu', torch.bfloat16):
        losses = model(**model.data_preprocessor(training_batch(), True), mode='loss')
    assert seen == [torch.bfloat16, torch.float32]
    assert all(
        part.dtype == torch.float32
        for value in losses.values()
        for part in (value if isinstance(value, list) else [value])
    )
