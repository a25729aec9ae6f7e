"""SparK models with decoder: the authors' files, mmpretrain's and our own."""

import pytest
import timm
import torch

from pretrain import build_spark
from pretrain.encoder import create_network
from spark_bench import checkpoints
from spark_bench.checkpoints.convert import convert
from spark_bench.checkpoints.inspect import inspect
from spark_bench.errors import InputError

OFFICIAL = {
    'convnext_atto': ((2, 2, 6, 2), (40, 80, 160, 320)),
    'convnext_small': ((3, 3, 27, 3), (96, 192, 384, 768)),
    'convnext_base': ((3, 3, 27, 3), (128, 256, 512, 1024)),
    'convnext_large': ((3, 3, 27, 3), (192, 384, 768, 1536)),
}


def encoder_shapes(arch, official):
    """Names in the authors' code: timm's for ResNets, Meta's for ConvNeXts; and the channels of the maps."""
    if arch in OFFICIAL:
        return official.shapes(*OFFICIAL[arch]), OFFICIAL[arch][1]
    with torch.device('meta'):
        network = timm.create_model(arch, num_classes=0)
    wide = (256, 512, 1024, 2048) if arch == 'resnet50' else (64, 128, 256, 512)
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}, wide


def write_authors_file(path, arch, official, authors, dtype=torch.float32, repeat=None):
    """A file as the authors' code writes it; ``repeat`` fills every tensor with one number, for the large ones."""
    encoder, channels = encoder_shapes(arch, official)
    shapes = authors(encoder, channels, batch_norm='resnet' in arch)
    module = (
        official.state(shapes)
        if repeat is None
        else {name: torch.full(shape, repeat, dtype=dtype) for name, shape in shapes.items()}
    )
    for name in module:
        if name.endswith('num_batches_tracked'):
            module[name] = torch.tensor(7)
    tensors = dict(module)
    module['config'] = {
        'mask_ratio': 0.6,
        'densify_norm_str': 'bn',
        'sbn': True,
        'hierarchy': 4,
        'sparse_encoder.input_size': 224,
        'dense_decoder.width': 768,
    }
    torch.save(
        {
            'args': 'Args(…)',
            'input_size': 224,
            'arch': arch,
            'epoch': 1599,
            'performance_desc': '0.4 0.4',
            'module': module,
            'optimizer': {'state': {0: {'step': 3}}, 'param_groups': [{'betas': (0.9, 0.95)}]},
            'is_pretrain': True,
        },
        path,
    )
    return tensors


@pytest.mark.parametrize('arch', ['resnet50', 'convnext_small', 'convnext_base', 'convnext_large'])
def test_authors_file_has_exactly_the_tensors_of_our_model(arch, official, authors, tmp_path):
    """Names and shapes alone, so that no memory is spent: what the file maps to is what the model has."""
    from spark_bench.checkpoints.naming import identify

    encoder, channels = encoder_shapes(arch, official)
    shapes = authors(encoder, channels, batch_norm='resnet' in arch)
    with torch.device('meta'):
        model = build_spark(arch)
    source, target = identify(tuple(shapes), 'file'), identify(tuple(model.state_dict()), 'model')
    assert source.format == 'spark' and not source.unknown and not target.unknown and not target.dead
    assert set(source.dead) == {'imn_m', 'imn_s', 'norm_black'}
    ours = {target.canonical[name]: tuple(value.shape) for name, value in model.state_dict().items()}
    assert {source.canonical[name]: shapes[name] for name in source.canonical} == ours


@pytest.mark.parametrize('arch', ['resnet18', 'convnext_atto'])
def test_authors_file_fills_our_model_and_comes_back_to_the_bit(arch, official, authors, tmp_path):
    tensors = write_authors_file(tmp_path / 'a.pth', arch, official, authors)
    model = build_spark(arch)
    coverage = checkpoints.load(model, tmp_path / 'a.pth')
    assert set(coverage.loaded) == set(model.state_dict()) and not coverage.fresh
    assert coverage.unused == ('imn_m', 'imn_s', 'norm_black', 'optimizer') and coverage.format == 'spark'
    assert torch.equal(model.densify[0].mask_token, tensors['mask_tokens.0'])
    assert torch.equal(model.decoder.dec[2].conv[3].weight, tensors['dense_decoder.dec.2.conv.3.weight'])
    assert torch.equal(model.densify[3].proj.weight, tensors['densify_projs.3.weight'])
    checkpoints.save_spark(model, tmp_path / 'b.pth', {'arch': arch, 'epoch': 1599})
    written = torch.load(tmp_path / 'b.pth', weights_only=True)
    assert written['arch'] == arch and written['epoch'] == 1599 and written['input_size'] == 224
    assert written['module'].pop('config')['hierarchy'] == 4 and 'optimizer' not in written
    assert set(written['module']) == set(tensors)
    dead = ('imn_m', 'imn_s', 'norm_black')
    for name, value in written['module'].items():
        assert value.shape == tensors[name].shape and value.dtype == tensors[name].dtype
        assert name in dead or torch.equal(value, tensors[name]), name


@pytest.mark.parametrize('arch', ['regnetx_002', 'efficientnet_b0'])
def test_a_network_that_the_authors_format_cannot_hold_is_refused(arch, tmp_path):
    model = build_spark(arch, 64, decoder_width=64)
    with pytest.raises(InputError, match='ResNets and ConvNeXts only: save this model with .*checkpoints.save'):
        checkpoints.save_spark(model, tmp_path / 'a.pth', {'arch': arch})
    assert not list(tmp_path.iterdir())


def test_chain_of_conversions_is_exact_and_keeps_metadata(official, authors, tmp_path):
    tensors = write_authors_file(tmp_path / 'a.pth', 'convnext_atto', official, authors)
    convert(tmp_path / 'a.pth', 'safetensors', tmp_path / 'b.safetensors')
    metadata = checkpoints.read_metadata(tmp_path / 'b.safetensors')
    assert metadata['epoch'] == '1599' and metadata['arch'] == 'convnext_atto' and metadata['mask_ratio'] == '0.6'
    model = build_spark('convnext_atto')
    assert checkpoints.load(model, tmp_path / 'b.safetensors').format == 'spark_bench'
    convert(tmp_path / 'b.safetensors', 'spark', tmp_path / 'c.pth')
    back = torch.load(tmp_path / 'c.pth', weights_only=True)
    assert back['epoch'] == 1599 and back['input_size'] == 224
    for name, value in tensors.items():
        assert name in ('imn_m', 'imn_s', 'norm_black') or torch.equal(back['module'][name], value), name


def test_encoder_of_a_file_with_decoder_and_the_other_way_round(official, authors, tmp_path):
    tensors = write_authors_file(tmp_path / 'a.pth', 'convnext_atto', official, authors)
    network = create_network('convnext_atto')
    coverage = checkpoints.load(network, tmp_path / 'a.pth')
    assert torch.equal(network.stem[0].weight, tensors['sparse_encoder.sp_cnn.downsample_layers.0.0.weight'])
    assert set(coverage.fresh) == {'head.norm.weight', 'head.norm.bias'}
    assert len(coverage.loaded) + len(coverage.unused) == len(tensors) + 1
    _, written, left_out = convert(tmp_path / 'a.pth', 'timm', tmp_path / 'timm.safetensors')
    assert written + len(left_out) == len(tensors) + 1 and 'optimizer' in left_out
    assert checkpoints.load(create_network('convnext_atto'), tmp_path / 'timm.safetensors').loaded == coverage.loaded
    model = build_spark('convnext_atto')
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match='encoder only, the decoder is missing.*model.encoder.pyramid.network'):
        checkpoints.load(model, tmp_path / 'timm.safetensors')
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    checkpoints.load(model.encoder.pyramid.network, tmp_path / 'timm.safetensors')
    with pytest.raises(InputError, match='encoder only.*possible: --to timm, official, mmdet'):
        convert(tmp_path / 'timm.safetensors', 'spark')


def test_an_input_size_that_contradicts_the_buffers_is_said(official, authors, tmp_path):
    write_authors_file(tmp_path / 'a.pth', 'convnext_atto', official, authors)
    contents = torch.load(tmp_path / 'a.pth', weights_only=True)
    assert not inspect(tmp_path / 'a.pth')['problems']
    torch.save({**contents, 'input_size': 384}, tmp_path / 'b.pth')
    assert inspect(tmp_path / 'b.pth')['problems'] == ['the file disagrees with itself on input_size: 224, 384']


@pytest.mark.parametrize('kind', ['resnet', 'convnext'])
def test_mmpretrain_spark_loads_whole(kind, randomise, tmp_path):
    from mmengine.registry import DefaultScope
    from mmpretrain.models.selfsup import SparK

    backbone, width, norm = {
        'resnet': (
            dict(type='SparseResNet', depth=18, out_indices=(0, 1, 2, 3), norm_cfg=dict(type='SparseBatchNorm2d')),
            512,
            'SparseBatchNorm2d',
        ),
        'convnext': (
            dict(type='SparseConvNeXt', arch='atto', out_indices=(0, 1, 2, 3), gap_before_output=False),
            320,
            'SparseLN2d',
        ),
    }[kind]
    # A detector trained before in this process leaves its own scope behind.
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        source = randomise(
            SparK(
                backbone=backbone,
                enc_dec_norm_cfg=dict(type=norm),
                enc_dec_norm_dim=width,
                neck=dict(type='SparKLightDecoder', feature_dim=128, upsample_ratio=32, norm_cfg=dict(type='BN')),
                head=dict(type='SparKPretrainHead', loss=dict(type='PixelReconstructionLoss', criterion='L2')),
            )
        )
    torch.save({'state_dict': source.state_dict(), 'meta': {}}, tmp_path / 'a.pth')
    model = build_spark({'resnet': 'resnet18', 'convnext': 'convnext_atto'}[kind], decoder_width=128)
    coverage = checkpoints.load(model, tmp_path / 'a.pth')
    assert coverage.format == 'mmpretrain SparK' and not coverage.fresh
    assert coverage.unused == ('meta',)
    x = torch.randn(1, 128, 2, 2)
    with torch.no_grad():
        maps = [x] + [torch.randn(1, 128 // 2**i, 2 ** (i + 1), 2 ** (i + 1)) for i in (1, 2, 3)]
        assert torch.allclose(model.eval().decoder(maps), source.neck(maps), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('arch', ['resnet50', 'convnext_small', 'convnext_base', 'convnext_large'])
def test_authors_file_of_full_size_round_trips(arch, official, authors, tmp_path):
    tensors = write_authors_file(tmp_path / 'a.pth', arch, official, authors)
    report = inspect(tmp_path / 'a.pth')
    assert report['arch'] == arch and not report['problems']
    convert(tmp_path / 'a.pth', 'safetensors', tmp_path / 'b.safetensors')
    model = build_spark(arch)
    coverage = checkpoints.load(model, tmp_path / 'b.safetensors')
    assert set(coverage.loaded) == set(model.state_dict()) and not coverage.unused
    checkpoints.save_spark(model, tmp_path / 'c.pth', {'arch': arch})
    back = torch.load(tmp_path / 'c.pth', weights_only=True, mmap=True)['module']
    assert all(
        torch.equal(back[name], value)
        for name, value in tensors.items()
        if name not in ('imn_m', 'imn_s', 'norm_black')
    )
