"""``spark-bench inspect --arch``: counts against published figures, torchvision's own and mmengine's counter."""

import json
from functools import cache

import pytest
import timm
import torch
import torchvision
from mmengine.analysis import FlopAnalyzer

from spark_bench import commands
from spark_bench.errors import InputError
from spark_bench.models import complexity
from spark_bench.models.complexity import as_text, inspect_network

# Parameters in millions, cost in billions, as SparK's paper gives them.
PUBLISHED = {
    ('resnet50', 224): ('26', '4.1'),
    ('resnet101', 224): ('45', '7.9'),
    ('resnet152', 224): ('60', '11.6'),
    ('resnet200', 224): ('65', '15.1'),
    ('convnext_small', 224): ('50', '8.7'),
    ('convnext_base', 224): ('89', '15.4'),
    ('convnext_large', 224): ('198', '34.4'),
    ('convnext_large', 384): ('198', '101.0'),
}


@cache
def counted(arch, size):
    return inspect_network(arch, size)


@pytest.mark.parametrize('arch, size', PUBLISHED)
def test_the_published_figures_come_out_in_the_convention_of_each_family(arch, size):
    report = counted(arch, size)
    convention = 'operations' if arch.startswith('resnet') else 'multiply_adds'
    assert (f'{report["parameters"] / 1e6:.0f}', f'{report[convention] / 1e9:.1f}') == PUBLISHED[arch, size]


def test_no_convention_alone_gives_all_published_figures():
    """The documentation says so: which rows each of the two conventions misses."""

    def missed(convention):
        return [row for row, (_, cost) in PUBLISHED.items() if f'{counted(*row)[convention] / 1e9:.1f}' != cost]

    assert missed('multiply_adds') == [(f'resnet{depth}', 224) for depth in (101, 152, 200)]
    assert missed('operations') == [('convnext_large', 384)]


@pytest.mark.parametrize(
    'arch, name',
    [
        ('resnet50', 'ResNet50'),
        ('resnet101', 'ResNet101'),
        ('resnet152', 'ResNet152'),
        ('convnext_small', 'ConvNeXt_Small'),
        ('convnext_base', 'ConvNeXt_Base'),
        ('convnext_large', 'ConvNeXt_Large'),
    ],
)
def test_multiply_adds_are_those_that_torchvision_states(arch, name):
    stated = getattr(torchvision.models, f'{name}_Weights').IMAGENET1K_V1.meta
    report = counted(arch, 224)
    assert report['parameters'] == stated['num_params']
    assert round(report['multiply_adds'] / 1e9, 3) == stated['_ops']


@pytest.mark.parametrize('arch', ['test_resnet', 'test_convnext', 'resnet18', 'resnet50'])
def test_both_counts_agree_with_mmengines_counter_on_the_real_network(arch):
    network, image_13HW = timm.create_model(arch).eval(), torch.zeros(1, 3, 64, 64)
    counts = FlopAnalyzer(network, (image_13HW,)).unsupported_ops_warnings(False).tracer_warnings('none').by_operator()
    # It passes over activations, and what blocks do themselves: the sum, and ConvNeXt's layer scale.
    each = {'ReLU': 1, 'GELUTanh': 1, 'BasicBlock': 1, 'Bottleneck': 1, 'ConvNeXtBlock': 2}
    others = []
    for module in network.modules():
        module.register_forward_hook(
            lambda module, _, output: others.append(each.get(type(module).__name__, 0) * output.numel())
        )
    with torch.no_grad():
        network(image_13HW)
    report = inspect_network(arch, 64)
    assert report['multiply_adds'] == counts['conv'] + counts['linear']
    norms = counts['batch_norm'] + counts['layer_norm']
    assert report['operations'] - report['multiply_adds'] == norms + sum(others) > norms > 0


def test_operations_are_those_of_a_network_counted_by_hand(monkeypatch):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.BatchNorm2d(8)
            self.group, self.head = torch.nn.GroupNorm(2, 8), torch.nn.Linear(8, 1000)

        def forward(self, image_B3HW):
            map_BChw = self.group(self.norm(self.conv(image_B3HW)).relu())
            return self.head((map_BChw + map_BChw.clone()).mean((2, 3)))

    monkeypatch.setattr(complexity.timm, 'create_model', lambda *args, **options: Net())
    report = inspect_network('resnet18', 20)
    products, elements = 8 * 3 * 9 * 100 + 8000, 8 * 100
    assert report['parameters'] == 8 * 27 + 8 + 16 + 16 + 9000
    assert report['multiply_adds'] == products
    assert report['operations'] == products + elements * (2 + 1 + 5 + 1)


def test_the_command_prints_text_and_json(capsys):
    assert commands.main(['inspect', '--arch', 'resnet50', '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {**counted('resnet50', 224), 'arch': 'resnet50', 'input_size': 224, 'classes': 1000}
    assert commands.main(['inspect', '--arch', 'convnext_large', '--input-size', '384']) == 0
    shown = capsys.readouterr().out
    assert shown.strip() == as_text(counted('convnext_large', 384))
    assert '384 × 384' in shown and '198 M (197,767,336)' in shown and '101.0 G' in shown


@pytest.mark.parametrize('arch, side', [('vit_base_patch16_384', 384), ('swin_mini', 96), ('resnet50', 224)])
def test_without_a_size_a_network_is_counted_at_the_one_that_it_takes(arch, side):
    assert inspect_network(arch)['input_size'] == side


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--arch', 'resnet51'], ['resnet51', 'did you mean', 'resnet50']),
        (['--arch', 'vit_base_patch16_384', '--input-size', '224'], ['224 pixels', '384', '--input-size']),
        (['--arch', 'resnet51', 'file.pth'], ['resnet51', 'did you mean', 'resnet50']),
        (['--input-size', '64', 'file.pth'], ['--arch']),
        ([], ['give a FILE', '--arch']),
        (['--arch', 'resnet50', '--input-size', '0'], ['--input-size']),
    ],
)
def test_wrong_use_is_one_line(arguments, words, capsys):
    try:
        status = commands.main(['inspect', *arguments])
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and error.count('\n') == 1
    for word in words:
        assert word in error


def test_nothing_is_drawn_and_what_does_not_fit_is_refused():
    before = torch.get_rng_state()
    inspect_network('resnet18')
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(InputError, match='vit_base_patch16_224.*100 pixels'):
        inspect_network('vit_base_patch16_224', 100)
