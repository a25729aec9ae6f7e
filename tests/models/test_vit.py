"""The plain ViT for MAE and its pyramid, against timm, mmpretrain and loops that spell the paper out."""

import pytest
import timm
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from spark_bench.errors import InputError
from spark_bench.models.layer_depth import vit_layer


def build(**backbone):
    return MODELS.build({'type': 'SparKViT', 'arch': 'vit_tiny', 'drop_path_rate': 0.0, **backbone})


def fill(model, seed=0):
    """Random weights, large enough that every term of the attention counts."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            noise = torch.randn(value.shape, generator=draw)
            if value.dim() == 1:
                value.copy_(0.2 * noise + (0.0 if name.endswith('bias') else 1.0))
            else:
                value.copy_(noise * (0.5 if 'pos' in name else value[0].numel() ** -0.5))
    return model.eval()


def make_image(height, width, seed=1):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def mae_file(path, arch='vit_tiny_patch16_224', **changes):
    """A file as MAE publishes it, and timm's network with its weights but without class token."""
    source = fill(timm.create_model(arch, num_classes=0))
    state = {**source.state_dict(), **changes}
    torch.save({'model': {name: value for name, value in state.items() if value is not None}}, path)
    plain = timm.create_model(arch, num_classes=0, class_token=False, global_pool='avg', fc_norm=False).eval()
    weights = {name: value for name, value in source.state_dict().items() if name != 'cls_token'}
    plain.load_state_dict(weights | {'pos_embed': weights['pos_embed'][:, 1:]}, strict=True)
    return str(path), plain


def last_block(network, image):
    with torch.no_grad():
        return network.forward_intermediates(image, indices=1, norm=False, intermediates_only=True)[0]


def assert_close(ours, theirs, tolerance=1e-5):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize('arch', ['vit_tiny', pytest.param('vit_base', marks=pytest.mark.slow)])
def test_a_file_of_mae_gives_the_features_of_timm(arch, tmp_path):
    """An image of 224 pixels is one window, and fresh relative positions are zero: a plain ViT."""
    path, plain = mae_file(tmp_path / 'mae.pth', f'{arch}_patch16_224')
    backbone = build(arch=arch, input_size=224, weights=path)
    backbone.init_weights()
    tables = {name for name, _ in backbone.named_parameters() if 'rel_pos' in name}
    assert len(tables) == 24 and not any(dict(backbone.named_parameters())[name].any() for name in tables)
    image = make_image(224, 224)
    with torch.no_grad():
        [found] = backbone.eval()(image)
    assert_close(found, last_block(plain, image))


def test_every_tensor_of_the_file_is_accounted_for(tmp_path):
    from spark_bench.checkpoints import load

    path, _ = mae_file(tmp_path / 'mae.pth', mask_token=torch.zeros(1, 1, 512))
    backbone = build(input_size=64)
    coverage = load(backbone, path)
    assert coverage.format == 'MAE' and set(coverage.fresh) == {
        name for name in backbone.state_dict() if 'rel_pos' in name
    }
    assert set(coverage.unused) == {'cls_token', 'mask_token', 'norm.weight', 'norm.bias'}
    assert len(coverage.loaded) + len(coverage.fresh) == len(backbone.state_dict())


@pytest.mark.parametrize(
    'changes, word',
    [
        ({'blocks.7.mlp.fc1.bias': None}, 'blocks.7.mlp.fc1.bias'),
        ({'pos_embed': None}, r'missing from the file \(pos_embed\)'),
        ({'pos_embed': torch.zeros(1, 577, 192)}, r'pos_embed \(1, 577, 192\) for \(1, 197, 192\)'),
        ({'patch_embed.proj.weight': torch.full((192, 3, 16, 16), float('inf'))}, 'finite'),
        ({'blocks.12.norm1.weight': torch.ones(192)}, 'blocks.12.norm1.weight'),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_tensor(changes, word, tmp_path):
    path, _ = mae_file(tmp_path / 'mae.pth', **changes)
    backbone = build(input_size=64, weights=path)
    with pytest.raises(InputError, match=word):
        backbone.init_weights()


def attend(block, x_hwC, window):
    """Attention of one block, position by position: within its window, padded positions taking part as zeros do.

    Logit of a query and a key: q·k / sqrt(d), and q·(table of rows at their distance in rows), and likewise in columns.
    """
    height, width, channels = x_hwC.shape
    heads = block.attn.num_heads
    side_h, side_w = (window, window) if window else (height, width)
    padded = torch.zeros(-(-height // side_h) * side_h, -(-width // side_w) * side_w, channels)
    padded[:height, :width] = x_hwC
    q, k, v = (
        part.reshape(*padded.shape[:2], heads, -1)
        for part in F.linear(padded, block.attn.qkv.weight, block.attn.qkv.bias).chunk(3, dim=-1)
    )
    result = torch.zeros(height, width, heads, channels // heads)
    for y in range(height):
        for x in range(width):
            top, left = y // side_h * side_h, x // side_w * side_w
            keys = [(top + i, left + j) for i in range(side_h) for j in range(side_w)]
            for head in range(heads):
                query = q[y, x, head]
                rows, columns = block.attn.rel_pos_h, block.attn.rel_pos_w
                logits = torch.stack(
                    [
                        query @ k[i, j, head] / len(query) ** 0.5
                        + query @ rows[y - i + side_h - 1]
                        + query @ columns[x - j + side_w - 1]
                        for i, j in keys
                    ]
                )
                result[y, x, head] = logits.softmax(0) @ torch.stack([v[i, j, head] for i, j in keys])
    return F.linear(result.flatten(2), block.attn.proj.weight, block.attn.proj.bias)


@pytest.mark.parametrize('number, window', [(0, 3), (2, 0)], ids=['window', 'global'])
def test_attention_is_that_of_the_paper(number, window):
    backbone = fill(build(input_size=80, window_size=3))
    block = backbone.blocks[number]
    assert block.window_size == window
    x_hwC = torch.randn(5, 5, 192, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = block(x_hwC[None])[0]
        middle = x_hwC + attend(block, block.norm1(x_hwC), window)
        expected = middle + block.mlp(block.norm2(middle))
    assert_close(found, expected)


def test_four_blocks_attend_globally():
    windows = {
        arch: [block.window_size for block in build(arch=arch, input_size=64).blocks]
        for arch in ('vit_base', 'vit_large')
    }
    assert [i for i, window in enumerate(windows['vit_base']) if window == 0] == [2, 5, 8, 11]
    assert [i for i, window in enumerate(windows['vit_large']) if window == 0] == [5, 11, 17, 23]
    assert set(windows['vit_base']) == {0, 14}


def test_the_whole_network_equals_mmpretrains():
    """mmpretrain's ViT for SAM is ViTDet's too, once its absolute positions are ours interpolated."""
    ours = fill(build(input_size=240, window_size=4))
    theirs = MODELS.build(
        dict(
            type='mmpretrain.ViTSAM',
            img_size=240,
            out_channels=0,
            window_size=4,
            use_rel_pos=True,
            arch=dict(
                embed_dims=192, num_layers=12, num_heads=3, feedforward_channels=768, global_attn_indexes=[2, 5, 8, 11]
            ),
        )
    )
    state = {}
    for name, value in ours.state_dict().items():
        for old, new in (
            ('blocks.', 'layers.'),
            ('patch_embed.proj.', 'patch_embed.projection.'),
            ('norm', 'ln'),
            ('mlp.fc1', 'ffn.layers.0.0'),
            ('mlp.fc2', 'ffn.layers.1'),
        ):
            name = name.replace(old, new)
        state[name] = value
    grid = state['pos_embed'][:, 1:].reshape(1, 14, 14, 192).permute(0, 3, 1, 2)
    state['pos_embed'] = F.interpolate(grid, (15, 15), mode='bicubic', align_corners=False).permute(0, 2, 3, 1)
    theirs.load_state_dict(state, strict=True)
    theirs.eval()
    image = make_image(240, 240)
    with torch.no_grad():
        assert_close(ours(image)[0], theirs(image)[0])


def test_a_smaller_image_is_padded_with_the_mean_colour():
    backbone = fill(build(input_size=128, window_size=3))
    image = make_image(100, 70)
    with torch.no_grad():
        assert torch.equal(backbone(image)[0], backbone(F.pad(image, (0, 58, 0, 28)))[0])
        assert backbone(make_image(150, 64))[0].shape == (2, 192, 10, 8)  # and a larger one to whole patches


@pytest.mark.parametrize('arch, depth', [('vit_base', 12), ('vit_large', 24)])
def test_layer_of_every_parameter_is_the_recipes(arch, depth):
    backbone = build(arch=arch, input_size=64)
    for name, _ in backbone.named_parameters():
        layer = 0 if name.split('.')[0] in ('pos_embed', 'patch_embed') else int(name.split('.')[1]) + 1
        assert backbone.get_layer_depth(f'backbone.{name}', prefix='backbone.') == (layer, depth + 2), name
    assert backbone.get_layer_depth('neck.stages.0.0.weight', prefix='backbone.') == (depth + 1, depth + 2)
    assert vit_layer('blocks.11.norm1.bias', 12) == (12, 14)


def detector(arch='vit_tiny', **backbone):
    cfg = Config.fromfile('mmdet_configs/baselines/mask-rcnn_vit-base-mae_fpn_100e_coco.py')
    cfg.model.backbone.update(arch=arch, input_size=128, **backbone)
    cfg.model.data_preprocessor.batch_augments[0].size = (128, 128)
    if arch == 'vit_tiny':
        cfg.model.neck.in_channels = 192
    return MODELS.build(cfg.model), cfg


def test_learning_rate_and_weight_decay_are_vitdets():
    model, cfg = detector('vit_base')
    cfg.optim_wrapper.type, cfg.optim_wrapper.autocast = 'OptimWrapper', None
    cfg.optim_wrapper.pop('autocast')
    cfg.optim_wrapper.optimizer.lr = cfg.base_lr
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    group_of = {id(parameter): group for group in groups for parameter in group['params']}
    norms = {id(p) for m in model.modules() if isinstance(m, torch.nn.LayerNorm) for p in m.parameters()}
    for name, parameter in model.named_parameters():
        parts = name.split('.')
        layer = 13
        if parts[0] == 'backbone':
            layer = int(parts[2]) + 1 if parts[1] == 'blocks' else 0
        group = group_of.pop(id(parameter))
        assert group['lr'] == pytest.approx(1e-4 * 0.7 ** (13 - layer), rel=1e-12), name
        spared = id(parameter) in norms or name == 'backbone.pos_embed'
        assert group['weight_decay'] == (0.0 if spared else 0.1), name
    assert not group_of


def test_the_pyramid_is_what_its_parts_compute():
    neck = MODELS.build(dict(type='SimpleFeaturePyramid', in_channels=32, out_channels=16))
    fill(neck)
    map_BChw = torch.randn(2, 32, 6, 8, generator=torch.Generator().manual_seed(4))

    def norm(x, layer):
        mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
        return (x - mean) / (var + 1e-6).sqrt() * layer.weight[:, None, None] + layer.bias[:, None, None]

    def doubled(x, layer):
        # One 2×2 block of the result for each position.
        blocks = torch.einsum('bchw,cdij->bdhiwj', x, layer.weight)
        return blocks.flatten(4, 5).flatten(2, 3) + layer.bias[:, None, None]

    stages = neck.stages
    resized = [
        doubled(F.gelu(norm(doubled(map_BChw, stages[0][0]), stages[0][1])), stages[0][3]),
        doubled(map_BChw, stages[1][0]),
        map_BChw,
        map_BChw.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2)),
    ]
    expected = []
    for x, stage in zip(resized, stages, strict=True):
        x = norm(torch.einsum('bchw,dc->bdhw', x, stage[-4].weight[:, :, 0, 0]), stage[-3])
        expected.append(norm(F.conv2d(x, stage[-2].weight, padding=1), stage[-1]))
    expected.append(expected[3][:, :, ::2, ::2])
    with torch.no_grad():
        found = neck((map_BChw,))
    assert [tuple(part.shape[2:]) for part in found] == [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)]
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b)


def test_parameters_are_as_many_as_vitdets():
    """Counted from the shapes that detectron2's ViTDet-B has: 80 categories, layer norm in pyramid and heads."""
    cfg = Config.fromfile('mmdet_configs/baselines/mask-rcnn_vit-base-mae_fpn_100e_coco.py')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    c, wide = 768, 3072
    block = 2 * 2 * c + (c * 3 * c + 3 * c) + (c * c + c) + (c * wide + wide) + (wide * c + c)
    relative = 8 * 2 * 27 * 64 + 4 * 2 * 127 * 64
    assert count['backbone'] == 12 * block + relative + 197 * c + (3 * 256 * c + c)
    resize = (c * 384 * 4 + 384) + 2 * 384 + (384 * 192 * 4 + 192) + (c * 384 * 4 + 384)
    out = 4 * (256 * 256 * 9 + 2 * 2 * 256) + 256 * (192 + 384 + 768 + 768)
    assert count['neck'] == resize + out
    rpn = 2 * (256 * 256 * 9 + 256) + (256 * 3 + 3) + (256 * 12 + 12)
    assert count['rpn_head'] == rpn
    convs = 4 * (256 * 256 * 9 + 2 * 256)
    box = convs + (256 * 49 * 1024 + 1024) + (1024 * 81 + 81) + (1024 * 320 + 320)
    mask = convs + (256 * 256 * 4 + 256) + (256 * 80 + 80)
    assert count['roi_head'] == box + mask


def test_activation_checkpointing_changes_no_gradient():
    gradients = []
    for with_cp in (False, True):
        model = fill(build(input_size=64, window_size=3, with_cp=with_cp)).train()
        model(make_image(64, 64))[0].square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(a, b)


def test_frozen_blocks_are_not_trained():
    model = fill(build(input_size=64, frozen_stages=2)).train()
    model(make_image(64, 64))[0].sum().backward()
    for name, parameter in model.named_parameters():
        frozen = name.split('.')[0] != 'blocks' or int(name.split('.')[1]) < 2
        assert (parameter.grad is None) == frozen, name


def test_drop_path_grows_from_the_first_block():
    model = build(input_size=64, drop_path_rate=0.1)
    rates = [getattr(block.drop_path1, 'drop_prob', 0.0) for block in model.blocks]
    assert rates == pytest.approx([0.1 * i / 11 for i in range(12)])


def test_an_unknown_size_names_the_known_ones():
    with pytest.raises(Exception, match='choose one of vit_tiny, vit_small, vit_base, vit_large'):
        build(arch='vit_giant')
