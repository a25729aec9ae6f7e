"""Weights as people have them: files of many libraries, sound ones and unsound."""

import re

import timm
import torch


def state_of(arch):
    torch.manual_seed(0)
    return {
        name: value + 0.25 if value.is_floating_point() else value
        for name, value in timm.create_model(arch, num_classes=0).state_dict().items()
    }


SMALL = state_of('test_resnet')
WIDTH = SMALL['layer4.0.bn2.weight'].shape[0]


def under(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def linear(name, rows, columns):
    return {f'{name}.weight': torch.ones(rows, columns), f'{name}.bias': torch.zeros(rows)}


def renamed(state, *rules):
    """Names rewritten by regular expressions, one after the other."""

    def rewrite(name):
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        return name

    return {rewrite(name): value for name, value in state.items()}


def official(state):
    return renamed(
        state,
        (r'^stem\.', 'downsample_layers.0.'),
        (r'^stages\.(\d)\.downsample', r'downsample_layers.\1'),
        (r'\.blocks\.', '.'),
        ('conv_dw', 'dwconv'),
        (r'mlp\.fc', 'pwconv'),
        (r'mlp\.grn\.weight', 'grn.gamma'),
        (r'mlp\.grn\.bias', 'grn.beta'),
        (r'^head\.norm', 'norm'),
    )


def hugging_face_resnet(state):
    stage = (r'^layer(\d)', lambda match: f'encoder.stages.{int(match[1]) - 1}.layers')
    return renamed(
        state,
        (r'^conv1', 'embedder.embedder.convolution'),
        (r'^bn1', 'embedder.embedder.normalization'),
        (r'downsample\.0', 'shortcut.convolution'),
        (r'downsample\.1', 'shortcut.normalization'),
        (r'\.conv(\d)', lambda match: f'.layer.{int(match[1]) - 1}.convolution'),
        (r'\.bn(\d)', lambda match: f'.layer.{int(match[1]) - 1}.normalization'),
        stage,
    )


def hugging_face_convnext(state):
    return renamed(
        state,
        (r'^stem\.0', 'embeddings.patch_embeddings'),
        (r'^stem\.1', 'embeddings.layernorm'),
        (r'^stages\.(\d)\.downsample', r'encoder.stages.\1.downsampling_layer'),
        (r'^stages\.(\d)\.blocks', r'encoder.stages.\1.layers'),
        ('conv_dw', 'dwconv'),
        (r'layers\.(\d+)\.norm', r'layers.\1.layernorm'),
        (r'mlp\.fc', 'pwconv'),
        (r'mlp\.grn', 'grn'),
        (r'\.gamma$', '.layer_scale_parameter'),
        (r'^head\.norm', 'layernorm'),
    )


def detectron2(state):
    state = {name: value for name, value in state.items() if 'num_batches' not in name}
    return renamed(
        state,
        (r'^(conv|bn)1', r'stem.\g<0>'),
        (r'^layer(\d)', lambda match: f'res{int(match[1]) + 1}'),
        (r'downsample\.0', 'shortcut'),
        (r'downsample\.1', 'shortcut.norm'),
        (r'\bbn(\d)', r'conv\1.norm'),
    )


def numbered(state):
    return renamed(state, (r'^conv1', '0'), (r'^bn1', '1'), (r'^layer(\d)', lambda match: f'{int(match[1]) + 3}'))


def swin_detector():
    state = {
        name: value for name, value in state_of('swin_tiny_patch4_window7_224').items() if not name.startswith('norm.')
    }
    state = renamed(state, (r'layers\.(\d)\.downsample', lambda match: f'layers.{int(match[1]) - 1}.downsample'))
    norms = {f'norm{i}.{last}': torch.ones(96 * 2**i) for i in range(4) for last in ('weight', 'bias')}
    return {'state_dict': under('backbone.', {**state, **norms})}


FCMAE = {'mask_token': torch.zeros(1, 64, 1, 1), **linear('proj', 64, 320), **linear('pred', 3072, 64)}
FPN = {
    **linear('backbone.fpn.inner_blocks.0.0', 16, 32),
    **linear('rpn.head.cls_logits', 3, 16),
    **linear('roi_heads.box_predictor.cls_score', 3, 64),
}
PROJECTION = {**linear('projection_head.0', 64, WIDTH), 'prototypes.weight': torch.ones(30, 16)}
MLP = {**linear('fc.0', WIDTH, WIDTH), **linear('fc.3', WIDTH, WIDTH)}
STATISTICS = {
    'bn.running_mean': torch.zeros(8),
    'bn.running_var': torch.ones(8),
    'bn.num_batches_tracked': torch.tensor(3),
}
DETR = {
    'transformer.encoder.layers.0.norm1.weight': torch.ones(4),
    'query_embed.weight': torch.ones(3, 4),
    **linear('class_embed', 3, 4),
}

# What stands in the file, the timm network that it is, and whether all tensors beside it are left out.
SOUND = {
    'plain': (SMALL, 'test_resnet'),
    'classifier': ({**SMALL, **linear('fc', 7, WIDTH)}, 'test_resnet'),
    'swav': (under('module.', {**SMALL, **PROJECTION}), 'test_resnet'),
    'simsiam': (
        {
            'epoch': 100,
            'state_dict': {**under('module.encoder.', {**SMALL, **MLP}), **linear('module.predictor.0', 32, WIDTH)},
        },
        'test_resnet',
    ),
    'moco': (
        {
            'epoch': 1,
            'arch': 'resnet50',
            'state_dict': {
                **under('module.encoder_q.', {**SMALL, **linear('fc', 128, WIDTH)}),
                **under('module.encoder_k.', {**SMALL, **linear('fc', 128, WIDTH)}),
                'module.queue': torch.ones(128, 8),
            },
        },
        'test_resnet',
    ),
    'byol': (
        {
            'state_dict': {
                **under('online_network.encoder.', SMALL),
                **under('target_network.encoder.', SMALL),
                **linear('predictor.net.0', 16, 16),
            }
        },
        'test_resnet',
    ),
    'byol under two names': (
        {**under('net.', SMALL), **under('online_encoder.net.', SMALL), **under('target_encoder.net.', SMALL)},
        'test_resnet',
    ),
    'barlow twins': (
        {
            'epoch': 3,
            'model': under('module.', {**under('backbone.', SMALL), **linear('projector.0', 16, 16), **STATISTICS}),
        },
        'test_resnet',
    ),
    'detr': (
        {
            'model': {
                **under(
                    'backbone.0.body.', {name: value for name, value in SMALL.items() if 'num_batches' not in name}
                ),
                **DETR,
            }
        },
        'test_resnet',
    ),
    'torchvision detector': ({'model': {**under('backbone.body.', SMALL), **FPN}}, 'test_resnet'),
    'mmdet detector': (
        {
            'meta': {'epoch': 3},
            'state_dict': {
                **under('backbone.', SMALL),
                **linear('neck.convs.0', 4, 4),
                **linear('roi_head.bbox_head.fc_cls', 3, 4),
            },
        },
        'test_resnet',
    ),
    'segmenter': (under('module.', {**under('backbone.', SMALL), **linear('aux_classifier.0', 3, 4)}), 'test_resnet'),
    'lightning': (
        {
            'state_dict': {
                **under('model.', SMALL),
                'criterion.weight': torch.ones(3),
                **linear('online_classifier', 3, WIDTH),
            },
            'callbacks': {},
            'hyper_parameters': {'a': 1},
            'pytorch-lightning_version': '2.2',
        },
        'test_resnet',
    ),
    'swa': (under('module.', SMALL) | {'n_averaged': torch.tensor(4)}, 'test_resnet'),
    'averages beside': ({**SMALL, **under('ema.', SMALL)}, 'test_resnet'),
    'float counters': (
        {name: value.float() if 'num_batches' in name else value for name, value in SMALL.items()},
        'test_resnet',
    ),
    'fsdp': (
        renamed(under('_fsdp_wrapped_module.', SMALL), (r'(layer\d\.0\.)', r'\1_fsdp_wrapped_module.')),
        'test_resnet',
    ),
    'checkpointing': (renamed(SMALL, (r'(layer\d\.0\.)', r'\1_checkpoint_wrapped_module._orig_mod.')), 'test_resnet'),
    'numbered': (
        {
            'state_dict': {
                **under('backbone.', numbered(state_of('resnet18'))),
                **linear('projection_head.layers.0', 8, 512),
            }
        },
        'resnet18',
    ),
    'hugging face resnet': (
        {**under('resnet.', hugging_face_resnet(state_of('resnet18'))), **linear('classifier.1', 9, 512)},
        'resnet18',
    ),
    'hugging face convnext': (
        {**under('convnext.', hugging_face_convnext(state_of('convnext_atto'))), **linear('classifier', 9, 320)},
        'convnext_atto',
    ),
    'hugging face convnext v2': (
        under('convnextv2.', hugging_face_convnext(state_of('convnextv2_atto'))),
        'convnextv2_atto',
    ),
    'detectron2 detector': (
        {
            'model': {
                **under('backbone.bottom_up.', detectron2(state_of('resnet18'))),
                **linear('proposal_generator.rpn_head.conv', 4, 4),
                'pixel_mean': torch.ones(3),
            }
        },
        'resnet18',
    ),
    'fcmae': ({'model': {**under('encoder.', official(state_of('convnextv2_atto'))), **FCMAE}}, 'convnextv2_atto'),
    'vissl': (
        {
            'phase_idx': 3,
            'classy_state_dict': {
                'base_model': {
                    'model': {'trunk': under('_feature_blocks.', SMALL), 'heads': linear('0.clf.0', 5, WIDTH)}
                },
                'optimizer': {'state': {}},
            },
        },
        'test_resnet',
    ),
    'solo': (
        {
            'state_dict': {
                **under('backbone.', SMALL),
                **under('momentum_backbone.', SMALL),
                **linear('classifier', 5, WIDTH),
                **linear('projector.0', 5, WIDTH),
            }
        },
        'test_resnet',
    ),
    'vicreg': (
        {'model': under('module.', {**under('backbone.', SMALL), **linear('projector.0', 5, WIDTH)})},
        'test_resnet',
    ),
    'swin detector': (swin_detector(), 'swin_tiny_patch4_window7_224'),
    'of no known format': ({**state_of('mobilenetv3_small_050'), **linear('criterion', 3, 3)}, 'mobilenetv3_small_050'),
}


def damaged(**changes):
    state = {name: value.clone() for name, value in SMALL.items()}
    for name, value in changes.items():
        state[name.replace('__', '.')] = value
    return {name: value for name, value in state.items() if value is not None}


# What stands in the file, and what the refusal names.
UNSOUND = {
    'a tensor missing': (damaged(layer3__0__conv2__weight=None), r'layer3\.0\.conv2\.weight'),
    'of another shape': (damaged(layer3__0__bn1__bias=torch.ones(5)), r'layer3\.0\.bn1\.bias'),
    'foreign tensor in a stage': (damaged(layer2__0__attention__weight=torch.ones(5)), r'layer2\.0\.attention\.weight'),
    'a stage too many': ({**SMALL, **under('layer5.0.', linear('conv1', 2, 2))}, r'layer5\.0\.conv1'),
    'foreign stem': ({**SMALL, 'stem.9.weight': torch.ones(2)}, r'stem\.9\.weight'),
    'not finite': (damaged(bn1__bias=torch.full((SMALL['bn1.bias'].shape), float('nan'))), r'bn1\.bias'),
    'whole numbers': (damaged(bn1__bias=torch.ones(SMALL['bn1.bias'].shape, dtype=torch.int64)), r'bn1\.bias'),
    'group norm': (
        under(
            'backbone.',
            {
                re.sub(r'bn(\d)', r'gn\1', name): value
                for name, value in SMALL.items()
                if 'running' not in name and 'num_batches' not in name
            },
        ),
        r'gn1',
    ),
    'two networks': (
        {
            **under('student.backbone.', SMALL),
            **under('teacher.backbone.', {name: value + 1 for name, value in SMALL.items()}),
        },
        r'--key-prefix',
    ),
    'two networks in dicts': (
        {
            'student': under('module.backbone.', SMALL),
            'teacher': under('backbone.', {name: value + 1 for name, value in SMALL.items()}),
            'epoch': 3,
            'optimizer': {'state': {}},
        },
        r'--key-prefix',
    ),
    'caffe2': ({'res2_0_branch2a_w': torch.ones(3), 'conv1_w': torch.ones(3)}, 'Caffe2'),
    'flat parameters': ({'_fsdp_wrapped_module._flat_param': torch.ones(3)}, 'FULL_STATE_DICT'),
    'sparse kernels': ({'encoder.stages.0.0.dwconv.kernel': torch.ones(49, 3)}, 'MinkowskiEngine'),
    'nothing known': ({'weird.weight': torch.ones(3)}, 'no format that is known|missing'),
}
