"""``spark-bench convert`` and ``inspect``: exact round trips, nothing overwritten, problems said."""

import json
import re

import pytest
import timm
import torch
from sampling import all_but

from pretrain.encoder import create_network
from spark_bench import checkpoints, commands
from spark_bench.checkpoints import architectures
from spark_bench.checkpoints.convert import convert
from spark_bench.checkpoints.inspect import inspect
from spark_bench.errors import InputError

NAMES = [
    'resnet18',
    'resnet34',
    'resnet50',
    'resnet101',
    'resnet152',
    'resnet200',
    'resnet50c',
    'resnet50d',
    'resnext50_32x4d',
    'wide_resnet50_2',
    'test_resnet',
    'test_convnext',
    *(
        f'convnext_{size}'
        for size in ('atto', 'femto', 'pico', 'nano', 'tiny', 'small', 'base', 'large', 'xlarge', 'xxlarge')
    ),
    *(f'convnextv2_{size}' for size in ('atto', 'femto', 'pico', 'nano', 'tiny', 'base', 'large', 'huge')),
    'swin_tiny_patch4_window7_224',
    'swin_small_patch4_window7_224',
    'swin_base_patch4_window12_384',
    'swin_large_patch4_window7_224',
    'vit_tiny_patch16_224',
    'vit_small_patch16_384',
    'vit_base_patch16_224',
    'vit_large_patch16_224',
    'vit_huge_patch14_224',
]


@pytest.mark.parametrize(
    'arch', all_but([name for name in NAMES if re.search('(swin|vit)_.*(large|huge)|net200|xxlarge', name)], NAMES)
)
def test_every_architecture_is_told_from_its_tensors(arch):
    with torch.device('meta'):
        shapes = {name: tuple(value.shape) for name, value in timm.create_model(arch).state_dict().items()}
    family = next(family for family in ('convnext', 'swin', 'vit', 'res') if family in arch).replace('res', 'resnet')
    family = 'resnet' if 'res' in arch else family
    assert architectures.detect(family, shapes) == arch and not any(architectures.differences(arch, shapes, family))


@pytest.fixture
def timm_file(randomise, tmp_path):
    def write(arch, metadata=None):
        path = tmp_path / f'{arch}.safetensors'
        checkpoints.save(randomise(timm.create_model(arch)), path, metadata or {'arch': arch, 'method': 'spark'})
        return path

    return write


@pytest.mark.parametrize(
    'arch, to',
    [
        ('convnext_atto', 'official'),
        ('convnext_atto', 'mmpretrain'),
        ('convnextv2_atto', 'official'),
        ('convnextv2_atto', 'mmpretrain'),
        ('test_convnext', 'official'),
        ('resnet18', 'mmpretrain'),
        ('swin_tiny_patch4_window7_224', 'mmpretrain'),
        ('vit_tiny_patch16_224', 'mmpretrain'),
    ],
)
@pytest.mark.parametrize('suffix', all_but(['.pth'], ['.pth', '.safetensors']))
def test_round_trips_are_exact_to_the_bit(arch, to, suffix, timm_file, tmp_path):
    source = timm_file(arch)
    convert(source, to, tmp_path / f'there{suffix}')
    convert(tmp_path / f'there{suffix}', 'timm', tmp_path / 'back.safetensors')
    before, after = checkpoints.read_tensors(source), checkpoints.read_tensors(tmp_path / 'back.safetensors')
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    metadata = checkpoints.read_metadata(tmp_path / 'back.safetensors')
    if suffix == '.safetensors':
        assert metadata['method'] == 'spark' and metadata['converted_from'] == to


def test_written_files_load_into_the_libraries_themselves_strictly(timm_file, tmp_path):
    from mmdet.models.backbones import ResNet as DetectorResNet
    from mmdet.models.backbones import SwinTransformer as DetectorSwin
    from mmpretrain.models.backbones import ConvNeXt

    cases = [
        ('convnext_atto', 'mmpretrain', ConvNeXt('atto')),
        ('resnet18', 'mmdet', DetectorResNet(18)),
        ('swin_tiny_patch4_window7_224', 'mmdet', DetectorSwin()),
    ]
    for arch, to, network in cases:
        output, written, left_out = convert(timm_file(arch), to)
        assert output == tmp_path / f'{arch}.{to}.pth'
        state = torch.load(output, weights_only=True)['state_dict']
        state = {name.removeprefix('backbone.'): value for name, value in state.items() if name.startswith('backbone.')}
        missing, unexpected = network.load_state_dict(state, strict=False)
        assert not unexpected
        assert all(name.startswith('norm') or name.endswith('relative_position_index') for name in missing)
        if to == 'mmpretrain':
            assert not missing and not left_out


def test_nothing_is_overwritten_unless_asked(timm_file, tmp_path):
    source = timm_file('test_convnext')
    output = tmp_path / 'out.pth'
    output.write_bytes(b'precious')
    with pytest.raises(InputError, match='out.pth exists: give --force'):
        convert(source, 'mmdet', output)
    assert output.read_bytes() == b'precious'
    convert(source, 'mmpretrain', tmp_path / 'other.pth')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['other.pth', 'out.pth', 'test_convnext.safetensors']


@pytest.mark.parametrize(
    'arch, to, reason',
    [
        (
            'swin_tiny_patch4_window7_224',
            'official',
            'official names are those of ConvNeXt.*possible: --to timm, mmdet',
        ),
        ('vit_tiny_patch16_224', 'mmdet', 'mmdet has no plain ViT'),
        ('resnet18', 'spark', 'encoder only'),
        ('seresnet50', 'mmpretrain', 'no place for'),
        ('resnet50_gn', 'mmdet', 'no batch norms'),
        ('mobilenetv3_small_050', 'official', 'not of a format'),
    ],
)
def test_impossible_conversions_say_why(arch, to, reason, timm_file, tmp_path):
    with pytest.raises(InputError, match=reason) as error:
        convert(timm_file(arch), to)
    assert '\n' not in str(error.value) and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    'damage, reason',
    [
        (lambda s: s.pop('stages.2.blocks.1.norm.bias'), r'not a complete convnext_atto: stages.2.blocks.1.norm.bias'),
        (lambda s: s.update({'stem.1.bias': torch.full((40,), float('nan'))}), 'not finite'),
    ],
)
def test_a_broken_file_is_not_laundered(damage, reason, timm_file, tmp_path):
    state = checkpoints.read_tensors(timm_file('convnext_atto'))
    damage(state)
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(InputError, match=reason):
        convert(tmp_path / 'a.pth', 'official')
    assert inspect(tmp_path / 'a.pth')['problems']


def test_inspect_tells_format_architecture_parts_and_uses(timm_file, capsys):
    path = timm_file('convnext_atto')
    assert commands.main(['inspect', str(path), '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    network = timm.create_model('convnext_atto')
    assert report['format'] == 'timm' and report['arch'] == 'convnext_atto' and report['problems'] == []
    assert report['parameters'] == sum(value.numel() for value in network.parameters())
    head = sum(value.numel() for name, value in network.named_parameters() if name.startswith('head.'))
    assert report['parts']['head']['parameters'] == head
    assert report['metadata'] == {'arch': 'convnext_atto', 'method': 'spark'}
    assert report['dtypes'] == {'float32': len(network.state_dict())}
    assert 'official' in report['converts_to'] and 'spark' not in report['converts_to']
    assert commands.main(['inspect', str(path)]) == 0
    assert 'convnext_atto' in capsys.readouterr().out


def test_inspect_says_what_is_wrong(tmp_path, capsys):
    state = create_network('resnet18').state_dict()
    state['layer1.0.bn1.bias'][0] = float('nan')
    del state['layer4.1.conv2.weight']
    state['layer2.0.extra.weight'] = torch.ones(2)
    torch.save({'state_dict': state, 'arch': 'resnet50'}, tmp_path / 'a.pth')
    assert commands.main(['inspect', str(tmp_path / 'a.pth')]) == 1
    shown = capsys.readouterr().out
    for what in ('layer4.1.conv2.weight', 'layer2.0.extra.weight', 'layer1.0.bn1.bias', "says arch 'resnet50'"):
        assert what in shown


def test_inspect_of_something_else(tmp_path):
    torch.save({'weird.weight': torch.ones(3), 'scalar': torch.tensor(1.0)}, tmp_path / 'a.pth')
    report = inspect(tmp_path / 'a.pth')
    assert report['format'] == 'unknown' and report['problems'] and not report['converts_to']


def test_command_line_converts_and_reports(timm_file, capsys):
    path = timm_file('convnext_atto')
    assert commands.main(['convert', str(path), '--to', 'mmdet']) == 0
    shown = capsys.readouterr().out
    assert 'convnext_atto.mmdet.pth' in shown and 'left out (4): head.fc.bias' in shown
    assert commands.main(['convert', str(path), '--to', 'mmdet']) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and 'exists' in error
