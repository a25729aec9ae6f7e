"""Networks of every library, from files of every format: equal dense features, every tensor accounted for."""

import warnings

import pytest
import timm
import torch
import torchvision
from sampling import all_but

from pretrain.encoder import FeaturePyramid, create_network
from spark_bench import checkpoints
from spark_bench.errors import InputError

CONVNEXTS = {'atto': ((2, 2, 6, 2), (40, 80, 160, 320)), 'tiny': ((3, 3, 9, 3), (96, 192, 384, 768))}


@pytest.fixture
def image():
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))


def maps_of(network, image_B3HW):
    """The four maps of a backbone of any library, before any norm on the output."""
    with torch.no_grad():
        if hasattr(network, 'forward_intermediates'):
            return FeaturePyramid(network)(image_B3HW)
        if hasattr(network, 'features'):
            maps, x = [], image_B3HW
            for i, layer in enumerate(network.features):
                x = layer(x)
                maps += [x] if i % 2 else []
            return maps
        if hasattr(network, 'fc'):
            x = network.maxpool(network.relu(network.bn1(network.conv1(image_B3HW))))
            maps = []
            for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
                x = layer(x)
                maps.append(x)
            return maps
        if hasattr(network, 'downsample_layers'):
            for i in range(4):
                setattr(network, f'norm{i}', torch.nn.Identity())
        return network(image_B3HW)


def evaluating(network):
    network.eval()  # OpenMMLab's return nothing
    return network


def assert_same(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        assert (a - b).abs().max() <= 1e-5 * max(1, float(b.abs().max()))


def mm_convnext(arch, **options):
    from mmpretrain.models.backbones import ConvNeXt

    options = {'out_indices': (0, 1, 2, 3), 'gap_before_final_norm': False, **options}
    return evaluating(ConvNeXt(arch, **options))


@pytest.mark.parametrize('size', CONVNEXTS)
def test_official_convnext_file_initialises_timm_mmpretrain_and_torchvision(size, official, image, tmp_path):
    state = official.state(official.shapes(*CONVNEXTS[size]))
    torch.save({'model': state}, tmp_path / 'official.pth')
    expected = official.features(state, image)
    networks = [create_network(f'convnext_{size}').eval(), mm_convnext(size), mm_convnext(size, linear_pw_conv=False)]
    networks += [torchvision.models.convnext_tiny().eval()] if size == 'tiny' else []
    for network in networks:
        coverage = checkpoints.load(network, tmp_path / 'official.pth')
        assert coverage.arch == f'convnext_{size}' and coverage.format == 'official'
        assert len(coverage.loaded) == len(state) and not coverage.unused
        assert all(name.startswith(('head.', 'norm', 'classifier.')) for name in coverage.fresh)
        assert_same(maps_of(network, image), expected)


def test_detection_convnext_keeps_its_output_norms_fresh(official, tmp_path):
    torch.save(official.state(official.shapes(*CONVNEXTS['atto'])), tmp_path / 'a.pth')
    coverage = checkpoints.load(mm_convnext('atto'), tmp_path / 'a.pth')
    assert set(coverage.fresh) == {f'norm{i}.{p}' for i in range(4) for p in ('weight', 'bias')}


def test_convnext_v2_of_meta(official, image, tmp_path):
    depths, widths = CONVNEXTS['atto']
    state = official.state(official.shapes(depths, widths, second=True))
    state |= {
        'norm.weight': torch.ones(320),
        'norm.bias': torch.ones(320),
        'head.weight': torch.ones(1000, 320),
        'head.bias': torch.ones(1000),
    }
    torch.save({'model': state}, tmp_path / 'a.pth')
    network = timm.create_model('convnextv2_atto').eval()
    coverage = checkpoints.load(network, tmp_path / 'a.pth')
    assert len(coverage.loaded) == len(state) and not coverage.fresh and coverage.arch == 'convnextv2_atto'
    assert_same(maps_of(network, image), official.features(state, image))
    second = mm_convnext('atto', use_grn=True, layer_scale_init_value=0)
    checkpoints.load(second, tmp_path / 'a.pth')
    assert_same(maps_of(second, image), official.features(state, image))


@pytest.mark.parametrize('depth', [18, pytest.param(50, marks=pytest.mark.slow)])
def test_resnet_files_of_every_library_initialise_every_library(depth, randomise, image, tmp_path):
    from mmdet.models.backbones import ResNet as DetectorResNet
    from mmpretrain.models.backbones import ResNet

    makers = {
        'timm': lambda: timm.create_model(f'resnet{depth}'),
        'mmpretrain': lambda: ResNet(depth, out_indices=(0, 1, 2, 3)),
        'torchvision': lambda: getattr(torchvision.models, f'resnet{depth}')(),
        'mmdet': lambda: DetectorResNet(depth),
    }
    for seed, (library, make) in enumerate(makers.items()):
        source = randomise(make(), seed)
        state = source.state_dict()
        if library in ('mmdet', 'mmpretrain'):
            state = {f'backbone.{name}': value for name, value in state.items()}
            state['neck.convs.0.weight'] = torch.ones(1)
            contents = {'meta': {'epoch': 3}, 'state_dict': state}
        else:
            contents = state
        torch.save(contents, tmp_path / 'a.pth')
        for other in makers:
            network = evaluating(makers[other]())
            coverage = checkpoints.load(network, tmp_path / 'a.pth')
            assert coverage.arch == f'resnet{depth}'
            assert set(coverage.loaded) | set(coverage.fresh) == set(network.state_dict())
            assert all(name.startswith('fc.') for name in coverage.fresh)
            assert_same(maps_of(network, image), maps_of(source, image))


@pytest.mark.parametrize('library', ['mmpretrain', 'mmdet'])
def test_deep_stem_resnets_of_openmmlab(library, randomise, image, tmp_path):
    from mmdet.models.backbones import ResNet as DetectorResNet
    from mmpretrain.models.backbones import ResNetV1c

    source = randomise(
        ResNetV1c(depth=50, out_indices=(0, 1, 2, 3)) if library == 'mmpretrain' else DetectorResNet(50, deep_stem=True)
    )
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in source.state_dict().items()}}, tmp_path / 'a.pth')
    network = create_network('resnet50c').eval()
    coverage = checkpoints.load(network, tmp_path / 'a.pth')
    assert coverage.arch == 'resnet50c' and not coverage.fresh and not coverage.unused
    assert_same(maps_of(network, image), maps_of(source, image))


def test_torchvision_convnext_file_initialises_timm(randomise, image, tmp_path):
    source = randomise(torchvision.models.convnext_tiny())
    torch.save(source.state_dict(), tmp_path / 'a.pth')
    network = timm.create_model('convnext_tiny').eval()
    coverage = checkpoints.load(network, tmp_path / 'a.pth')
    assert coverage.format == 'torchvision' and not coverage.fresh and not coverage.unused
    with torch.no_grad():
        assert_same([network(image)], [source(image)])
    assert_same(maps_of(network, image), maps_of(source, image))


@pytest.mark.parametrize('to', all_but(['mmpretrain'], ['mmdet', 'mmpretrain']))
def test_swin_of_microsoft_timm_and_openmmlab(to, randomise, image, tmp_path):
    from mmdet.models.backbones.swin import SwinTransformer as DetectorSwin
    from mmdet.models.backbones.swin import swin_converter
    from mmpretrain.models.backbones import SwinTransformer

    network = timm.create_model('swin_tiny_patch4_window7_224', img_size=224)
    randomise(network)
    # Microsoft's names: downsampling one stage earlier, tables of positions kept.
    official = {name: value for name, value in network.state_dict().items() if not name.startswith('head.')}
    for i in (1, 2, 3):
        for name in [name for name in official if name.startswith(f'layers.{i}.downsample.')]:
            official[name.replace(f'layers.{i}.', f'layers.{i - 1}.')] = official.pop(name)
    reference = swin_converter(official)
    official['layers.0.blocks.0.attn.relative_position_index'] = torch.zeros(49, 49, dtype=torch.long)
    official['layers.0.blocks.1.attn_mask'] = torch.zeros(64, 49, 49)
    torch.save({'model': official}, tmp_path / 'swin.pth')
    target = DetectorSwin() if to == 'mmdet' else SwinTransformer('tiny', out_indices=(0, 1, 2, 3))
    coverage = checkpoints.load(evaluating(target), tmp_path / 'swin.pth')
    assert coverage.format == 'official' and coverage.arch == 'swin_tiny_patch4_window7_224'
    assert all(name.startswith('norm') or name.endswith('relative_position_index') for name in coverage.fresh)
    loaded = target.state_dict()
    for name in coverage.loaded:
        assert torch.equal(loaded[name], reference[f'backbone.{name}']), name
    back = timm.create_model('swin_tiny_patch4_window7_224', num_classes=0)
    assert not checkpoints.load(back, tmp_path / 'swin.pth').fresh
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in back.state_dict().items())
    if to == 'mmpretrain':
        blank = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            expected = back.eval().forward_intermediates(blank, intermediates_only=True)[:3]
            found = evaluating(SwinTransformer('tiny', out_indices=(0, 1, 2)))
            checkpoints.load(found, tmp_path / 'swin.pth')
            for i in range(3):
                setattr(found, f'norm{i}', torch.nn.Identity())
            assert_same(found(blank), [map_BChw.contiguous() for map_BChw in expected])


def test_simmim_prefix_and_mask_token(randomise, tmp_path):
    network = randomise(timm.create_model('swin_tiny_patch4_window7_224', num_classes=0))
    state = {}
    for name, value in network.state_dict().items():
        part = name.split('.')
        if '.downsample.' in name:
            part[1] = str(int(part[1]) - 1)
        state[f'encoder.{".".join(part)}'] = value
    state |= {'encoder.mask_token': torch.zeros(1, 1, 96), 'decoder.0.weight': torch.zeros(3072, 768, 1, 1)}
    torch.save({'model': state, 'optimizer': {'state': {}, 'param_groups': [1]}, 'epoch': 100}, tmp_path / 'a.pth')
    fresh = timm.create_model('swin_tiny_patch4_window7_224', num_classes=0)
    coverage = checkpoints.load(fresh, tmp_path / 'a.pth')
    assert coverage.format == 'SimMIM' and not coverage.fresh
    assert coverage.unused == ('decoder.0.weight', 'encoder.mask_token', 'optimizer')


def test_mae_file_initialises_timm_and_mmpretrain(randomise, tmp_path):
    from mmpretrain.models.backbones import VisionTransformer

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        target = evaluating(VisionTransformer('b', img_size=224, out_type='cls_token'))
    source = randomise(timm.create_model('vit_base_patch16_224', num_classes=0))
    torch.save({'model': {**source.state_dict(), 'mask_token': torch.zeros(1, 1, 512)}}, tmp_path / 'mae.pth')
    coverage = checkpoints.load(target, tmp_path / 'mae.pth')
    assert coverage.format == 'MAE' and coverage.arch == 'vit_base_patch16_224' and not coverage.fresh
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert_same(target(image), [source(image)])


@pytest.mark.parametrize(
    'wrap',
    [
        'module.',
        '_orig_mod.',
        'backbone.',
        'encoder.',
        'model.',
        'module.backbone.',
        '_orig_mod.module.',
        'model.encoder.',
    ],
)
def test_prefixes_of_the_wild(wrap, official, tmp_path):
    state = official.state(official.shapes(*CONVNEXTS['atto']))
    torch.save({'state_dict': {wrap + name: value for name, value in state.items()}}, tmp_path / 'a.pth')
    coverage = checkpoints.load(create_network('convnext_atto'), tmp_path / 'a.pth')
    assert len(coverage.loaded) == len(state) and not coverage.unused


def test_our_own_backbone_and_whole_detectors(randomise, tmp_path):
    from spark_bench.models.backbones import SparKTimm

    source = randomise(SparKTimm('convnext_atto'))
    state = {f'backbone.{name}': value for name, value in source.state_dict().items()}
    torch.save({'state_dict': {**state, 'roi_head.bbox_head.fc_cls.weight': torch.ones(3)}}, tmp_path / 'detector.pth')
    target = SparKTimm('convnext_atto')
    coverage = checkpoints.load(target, tmp_path / 'detector.pth')
    assert coverage.unused == ('roi_head.bbox_head.fc_cls.weight',) and not coverage.fresh
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())


def test_a_pruned_network_of_no_special_family_takes_the_file_of_the_whole(randomise, tmp_path):
    whole = randomise(timm.create_model('mobilenetv3_small_050'))
    torch.save(whole.state_dict(), tmp_path / 'a.pth')
    network = FeaturePyramid(create_network('mobilenetv3_small_050')).network
    coverage = checkpoints.load(network, tmp_path / 'a.pth')
    assert set(coverage.loaded) == set(network.state_dict()) and not coverage.fresh
    assert {name.split('.')[0] for name in coverage.unused} == {'conv_head', 'classifier'}


def test_half_precision_is_cast_up_and_said(official, tmp_path):
    state = official.state(official.shapes(*CONVNEXTS['atto']))
    torch.save({name: value.bfloat16() for name, value in state.items()}, tmp_path / 'a.pth')
    network = create_network('convnext_atto')
    coverage = checkpoints.load(network, tmp_path / 'a.pth')
    assert coverage.cast == len(state) and 'changed in dtype' in str(coverage)
    assert network.stem[0].weight.dtype == torch.float32
    assert torch.equal(network.stem[0].weight, state['downsample_layers.0.0.weight'].bfloat16().float())


@pytest.mark.parametrize(
    'damage, named',
    [
        (lambda s: s.pop('stages.2.3.gamma'), r'1 tensors missing.*stages\.2\.blocks\.3\.gamma'),
        (lambda s: s.update({'stages.2.3.delta': torch.ones(2)}), r'1 tensors unknown.*stages\.2\.3\.delta'),
        (lambda s: s.update({'stages.0.0.pwconv1.weight': torch.ones(40, 160)}), r'of another shape.*\(40, 160\)'),
        (lambda s: s['stages.1.0.gamma'].fill_(float('inf')), r'not finite.*stages\.1\.blocks\.0\.gamma'),
        (lambda s: s.update({'stages.1.0.gamma': torch.ones(80, dtype=torch.int64)}), 'another kind of number'),
        (lambda s: s.update({'encoder.' + k: v for k, v in s.items()}), 'holds 2 networks'),
    ],
)
def test_what_does_not_fit_is_refused_and_the_network_untouched(damage, named, official, tmp_path):
    state = official.state(official.shapes(*CONVNEXTS['atto']))
    damage(state)
    torch.save(state, tmp_path / 'a.pth')
    network = create_network('convnext_atto')
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError, match=named) as error:
        checkpoints.load(network, tmp_path / 'a.pth')
    assert '\n' not in str(error.value) and str(tmp_path / 'a.pth') in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_another_family_or_size_is_named(official, tmp_path):
    torch.save(official.state(official.shapes(*CONVNEXTS['atto'])), tmp_path / 'a.pth')
    with pytest.raises(InputError, match='does not fit ResNet: it holds a convnext_atto'):
        checkpoints.load(create_network('resnet18'), tmp_path / 'a.pth')
    with pytest.raises(InputError, match='missing from the file'):
        checkpoints.load(create_network('convnext_tiny'), tmp_path / 'a.pth')


def test_an_arch_that_contradicts_the_tensors_is_said(tmp_path):
    checkpoints.save(create_network('test_resnet'), tmp_path / 'a.safetensors', {'arch': 'resnet50'})
    coverage = checkpoints.load(create_network('test_resnet'), tmp_path / 'a.safetensors')
    assert coverage.notes == ("the file says arch 'resnet50', its tensors are those of test_resnet",)


def test_moving_average_beside_the_weights_is_left_out(official, tmp_path):
    state = official.state(official.shapes(*CONVNEXTS['atto']))
    torch.save({**state, **{'ema.' + name: value + 1 for name, value in state.items()}}, tmp_path / 'a.pth')
    network = create_network('convnext_atto')
    coverage = checkpoints.load(network, tmp_path / 'a.pth')
    assert len(coverage.unused) == len(state) and all(name.startswith('ema.') for name in coverage.unused)
    assert torch.equal(network.stem[0].weight, state['downsample_layers.0.0.weight'])
