"""Pretraining models in files: the advice of ``inspect`` can be carried out, and a cut decoder is noticed."""

import re
import shlex

import pytest
import torch

import pretrain
import spark_bench
from pretrain import build_spark
from spark_bench import checkpoints, commands
from spark_bench.checkpoints.convert import convert
from spark_bench.checkpoints.inspect import as_text, inspect
from spark_bench.errors import InputError

PLACE = {'spark_bench': spark_bench, 'pretrain': pretrain}


def save(path, arch='test_resnet', ablation='spark', metadata=None, **settings):
    settings = {'input_size': 64, 'decoder_width': 64, **settings}
    model = build_spark(arch, ablation=ablation, **settings)
    said = {'arch': arch, 'ablation': ablation, **settings} if metadata is None else metadata
    checkpoints.save(model, path, {name: str(value) for name, value in said.items()})
    return model


@pytest.mark.parametrize('ablation', ['spark', 'no_hierarchy', 'black_mosaic', 'ape', 'loss_on_all'])
@pytest.mark.parametrize(
    'stated, container',
    [
        (True, '.safetensors'),
        (False, '.pth'),
        pytest.param(False, '.safetensors', marks=pytest.mark.slow),
        pytest.param(True, '.pth', marks=pytest.mark.slow),
    ],
)
def test_the_line_for_spark_with_decoder_works_as_printed(ablation, stated, container, tmp_path, monkeypatch):
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    path = folder / f'a{container}'
    model = save(folder / 'a.safetensors', ablation=ablation, metadata=None if stated else {'input_size': 64})
    if container == '.pth':
        said = {'arch': 'test_resnet', 'ablation': ablation} if stated else {}
        torch.save({**said, 'input_size': 64, 'model': model.state_dict()}, path)
    report = inspect(path)
    line = re.search(r'SparK with decoder: (.*)', as_text(report))[1]
    coverage = eval(line, PLACE)
    assert set(coverage.loaded) == set(model.state_dict()) and not coverage.unused and not report['notes']


@pytest.mark.parametrize(
    'settings',
    [
        dict(input_size=128),
        dict(decoder_width=32),
        dict(input_size=128, patch_size=64),
        dict(mask_ratio=0.75),
        dict(input_size=224, decoder_width=768),
    ],
)
def test_every_setting_of_the_model_comes_back(settings, tmp_path):
    model = save(tmp_path / 'a.safetensors', **settings)
    call = re.search(r'pretrain.build_spark\(.*?\)', as_text(inspect(tmp_path / 'a.safetensors')))[0]
    again = eval(call, PLACE)
    for name in ('grid', 'mask_ratio', 'patch_size'):
        assert getattr(again, name) == getattr(model, name)
    assert {name: value.shape for name, value in again.state_dict().items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }


def test_the_commands_that_inspect_prints_can_be_parsed_as_a_shell_would(tmp_path):
    from spark_bench.commands import build_parser

    path = tmp_path / 'my weights; $HOME.safetensors'
    save(path)
    printed = [text.partition(': ')[2] for text in inspect(path)['initialises'] if 'spark-bench' in text]
    assert len(printed) == 2
    for command in printed:
        args = build_parser().parse_args(shlex.split(command)[1:])
        assert args.weights == str(path) and args.arch == 'test_resnet'


def test_a_cut_decoder_is_noticed_and_the_encoder_is_still_of_use(tmp_path):
    model = save(tmp_path / 'a.safetensors')
    state = {name: value for name, value in model.state_dict().items() if name != 'decoder.dec.1.conv.0.weight'}
    torch.save({'model': state, 'arch': 'test_resnet'}, tmp_path / 'cut.pth')
    report = inspect(tmp_path / 'cut.pth')
    assert report['converts_to'] == ['timm'] and not report['problems']
    assert 'no whole decoder: decoder.dec.1.conv.0.weight' in report['notes'][0]
    assert not any('SparK with decoder' in text for text in report['initialises'])
    for to in ('spark', 'safetensors'):
        with pytest.raises(InputError, match='no whole decoder: decoder.dec.1.conv.0.weight'):
            convert(tmp_path / 'cut.pth', to)
    checkpoints.load(pretrain.encoder.create_network('test_resnet'), tmp_path / 'cut.pth')
    with pytest.raises(InputError, match=r'decoder\.dec\.1\.conv\.0\.weight'):
        checkpoints.load(build_spark('test_resnet', 64, decoder_width=64), tmp_path / 'cut.pth')


def test_metadata_is_read_alike_from_every_container(tmp_path, capsys):
    save(tmp_path / 'a.safetensors')
    convert(tmp_path / 'a.safetensors', 'spark', tmp_path / 'authors.pth')
    for name in ('a.safetensors', 'authors.pth'):
        said = checkpoints.read_metadata(tmp_path / name)
        assert (said['arch'], said['input_size']) == ('test_resnet', '64'), name
    # mmengine keeps it in a dict beside the weights.
    torch.save(
        {
            'meta': {'arch': 'test_resnet', 'epoch': 3, 'cfg': 'x' * 5000},
            'state_dict': {
                f'backbone.{name}': value
                for name, value in build_spark('test_resnet', 64, decoder_width=64)
                .encoder.pyramid.network.state_dict()
                .items()
            },
        },
        tmp_path / 'mm.pth',
    )
    assert checkpoints.read_metadata(tmp_path / 'mm.pth') == {'arch': 'test_resnet', 'epoch': '3'}
    assert commands.main(['inspect', str(tmp_path / 'mm.pth')]) == 0
    assert 'arch=test_resnet' in capsys.readouterr().out
