"""mmdet's own configs at a size for tests, with one of this project's backbones and nothing else changed."""

from pathlib import Path

import mmdet
from small_recipes import shrink

from spark_bench.configs import read_config

CONFIGS = Path(mmdet.__file__).parent / '.mim/configs'
DETECTORS = {
    'cascade-mask-rcnn': 'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'retinanet': 'retinanet/retinanet_r50_fpn_1x_coco.py',
    'fcos': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'dino': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
    'mask2former': 'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
}
CHANNELS = [64, 128, 256, 512]


def stock(name, folder, factor=8, **settings):
    """A stock config for images ``factor`` times smaller, around a small network; return its path."""
    cfg = read_config(CONFIGS / DETECTORS[name])
    stages = cfg.model.backbone.out_indices
    cfg.model.backbone = dict(type='SparKResNet', arch='resnet18', out_indices=stages)
    (cfg.model.panoptic_head if name == 'mask2former' else cfg.model.neck).in_channels = [CHANNELS[i] for i in stages]
    for augment in cfg.model.data_preprocessor.get('batch_augments') or []:
        augment.size = (128, 128)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        shrink(loader.dataset.pipeline, factor)
    cfg.train_dataloader.dataset.filter_cfg.min_size = 1
    if name == 'dino':  # whose first queries are places of the maps, and those of so small an image are few
        cfg.model.num_queries = cfg.model.test_cfg.max_per_img = 20
    for tested in (cfg.model.test_cfg, cfg.model.test_cfg.get('rcnn', {})):
        if 'score_thr' in tested:
            tested.score_thr = 0.0
    cfg.merge_from_dict(settings)
    path = Path(folder) / f'{name}.py'
    cfg.dump(path)
    return path


def short(cfg_options=()):
    """What makes two updates of it, on the command line."""
    return ['--cfg-options', 'global_batch=2', *cfg_options]
