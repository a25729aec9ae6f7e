"""A file is loaded as what it is, whole: names that come near another network's, and files that look like others."""

import json
import os
import shutil
import struct

import pytest
import timm
import torch
from safetensors.torch import save

from pretrain.networks import full_name
from spark_bench import checkpoints, commands
from spark_bench.checkpoints import published
from spark_bench.checkpoints.classes import classes_of
from spark_bench.checkpoints.formats import network_adapter
from spark_bench.checkpoints.loading import load
from spark_bench.checkpoints.writing import save_safetensors
from spark_bench.errors import InputError, RunError
from spark_bench.models.detection_backbones import SparKResNet
from spark_bench.models.layer_depth import resnet_classifier_layer, resnet_layer


@pytest.mark.parametrize(
    'own, larger',
    [
        ('convnext_mini_s', ('convnext_tiny', dict(dims=(16, 32, 64, 128)))),
        ('vit_mini', ('vit_tiny_patch16_224', dict(img_size=96, embed_dim=128, depth=12, num_heads=4))),
    ],
)
def test_a_deeper_network_does_not_load_into_a_small_one(tmp_path, own, larger):
    deep = timm.create_model(larger[0], num_classes=0, **larger[1])
    checkpoints.save(deep, tmp_path / 'deep.safetensors', {})
    with pytest.raises(InputError, match='unknown to the network'):
        load(timm.create_model(own, num_classes=0), tmp_path / 'deep.safetensors')
    network = timm.create_model(own, num_classes=0)
    checkpoints.save(network, tmp_path / 'own.safetensors', {'arch': own})
    assert not load(timm.create_model(own, num_classes=0), tmp_path / 'own.safetensors').notes


@pytest.mark.parametrize('said', ['vit_tiny', 'vit_tiny_patch16_224', 'vit_tiny_patch16_224.augreg_in21k'])
def test_a_short_name_and_timms_own_are_one_network(tmp_path, said):
    assert full_name('vit_tiny') == 'vit_tiny_patch16_224' and full_name('vit_mini') == 'vit_mini'
    network = timm.create_model('vit_tiny', num_classes=0, depth=2)
    checkpoints.save(network, tmp_path / 'w.safetensors', {'arch': said})
    assert not load(timm.create_model('vit_tiny', num_classes=0, depth=2), tmp_path / 'w.safetensors').notes


@pytest.mark.parametrize('outputs', [(0, 1, 2, 3), (1, 2, 3), (2, 3)])
def test_a_norm_beside_other_outputs_norms_is_none_of_a_classifier(outputs):
    adapter = network_adapter('swin', 'mmpretrain')
    names = [f'norm{index}.weight' for index in outputs]
    assert set(adapter.canonical_names(names).values()) == {f'norms.{index}.weight' for index in outputs}
    assert set(adapter.canonical_names(['norm3.weight']).values()) == {'norm.weight'}


def test_every_stem_of_a_resnet_is_the_first_layer():
    depths = (3, 4, 6, 3)
    for rule in (resnet_layer, resnet_classifier_layer):
        last = rule('', depths)[0]
        for name in (
            'conv1.weight',
            'bn1.bias',
            'gn1.weight',
            'maxpool.0.weight',
            'layer0.conv1.weight',
            'stem.0.bias',
        ):
            assert rule(name, depths)[0] == 0, name
        for name in ('fc.weight', 'head.fc.weight', 'last_linear.bias'):
            assert rule(name, depths)[0] == last > rule('layer4.0.conv1.weight', depths)[0], name


def test_plugins_that_stochastic_depth_would_leave_out_are_refused():
    plugins = [dict(cfg=dict(type='ContextBlock', ratio=1 / 16), position='after_conv3')]
    with pytest.raises(InputError, match='plugins or a drop_path_rate'):
        SparKResNet('resnet50', drop_path_rate=0.1, plugins=plugins)
    assert SparKResNet('resnet50', plugins=plugins).plugins


def test_a_header_whose_length_begins_as_a_zip_does_is_read(tmp_path):
    tensors = timm.create_model('test_resnet').state_dict()
    bare = len(save(tensors, {'pad': ''})) - sum(value.nbytes for value in tensors.values()) - 8
    wanted = int.from_bytes(b'PK', 'little')
    whole = save(tensors, {'pad': 'x' * (wanted - bare)})
    assert whole[:2] == b'PK' and struct.unpack('<Q', whole[:8])[0] == wanted
    path = tmp_path / 'w.safetensors'
    path.write_bytes(whole)
    assert load(timm.create_model('test_resnet'), path).loaded == tuple(tensors)


def test_a_page_in_place_of_published_weights_is_not_kept(tmp_path, monkeypatch):
    page = tmp_path / 'quota.html'
    page.write_text('<!DOCTYPE html><html>Quota exceeded</html>')
    entry = dict(name='spark', arch='resnet50', file='r50.pth', url=page.as_uri(), sha256=None, source='')
    monkeypatch.setattr(published, 'read_index', lambda: [entry])
    for _ in range(2):
        with pytest.raises(RunError, match=r'what file://.*quota.html gives is a web page.*download it by hand to'):
            published.find_published('spark', 'resnet50', tmp_path / 'cache', download=True)
    assert not any(path.suffix == '.pth' for path in (tmp_path / 'cache').rglob('*'))


def test_other_bytes_than_the_published_are_told_with_where_to_put_the_right_ones(tmp_path, monkeypatch):
    other = tmp_path / 'other.pth'
    torch.save({'a.weight': torch.ones(3)}, other)
    entry = dict(name='spark', arch='resnet50', file='r50.pth', url=other.as_uri(), sha256='0123abcd', source='')
    monkeypatch.setattr(published, 'read_index', lambda: [entry])
    with pytest.raises(RunError) as caught:
        published.find_published('spark', 'resnet50', tmp_path / 'cache', download=True)
    assert f'download it by hand to {tmp_path}/cache/weights/r50.pth' in str(caught.value)
    assert 'expected 0123abcd' in str(caught.value) and '.tmp' not in str(caught.value)
    assert not any(path.is_file() for path in (tmp_path / 'cache').rglob('*'))


@pytest.mark.parametrize('arch', ['mobilenetv3_small_050', 'test_efficientnet', 'resnet18'])
def test_an_encoder_fills_a_classifier_but_for_its_head(tmp_path, arch):
    encoder = timm.create_model(arch, num_classes=0)
    checkpoints.save(encoder, tmp_path / 'encoder.safetensors', {'arch': arch})
    classifier = timm.create_model(arch, num_classes=10)
    load(classifier, tmp_path / 'encoder.safetensors')
    state = classifier.state_dict()
    assert all(torch.equal(state[name], value) for name, value in encoder.state_dict().items())


def test_the_names_of_any_number_of_classes_are_converted(tmp_path):
    classes = [f'class number {number}' for number in range(10 * 12)]
    network = timm.create_model('test_resnet', num_classes=len(classes))
    save_safetensors(network.state_dict(), tmp_path / 'c.safetensors', {'classes': json.dumps(classes)})
    for to in ('c.pth', 'd.safetensors'):
        words = ['convert', str(tmp_path / 'c.safetensors'), '--to', 'timm', '--output', str(tmp_path / to)]
        assert commands.main(words) == 0 and list(classes_of(tmp_path / to)) == classes


def test_a_part_of_five_folds_is_no_part_of_five_files(tmp_path):
    network = timm.create_model('test_resnet')
    checkpoints.save(network, tmp_path / 'resnet-fold-1-of-5.safetensors', {})
    load(timm.create_model('test_resnet'), tmp_path / 'resnet-fold-1-of-5.safetensors')


def test_what_inspect_writes_is_json(tmp_path, capsys):
    state = timm.create_model('test_resnet').state_dict()
    torch.save({'state_dict': state, 'best_loss': float('inf'), 'metric': float('nan')}, tmp_path / 'w.pth')
    commands.main(['inspect', str(tmp_path / 'w.pth'), '--json'])

    def refuse(word):
        raise AssertionError(word)

    json.loads(capsys.readouterr().out, parse_constant=refuse)


def test_a_file_whose_end_was_never_filled_is_no_network(tmp_path):
    network = timm.create_model('test_resnet', num_classes=0)
    checkpoints.save(network, tmp_path / 'whole.safetensors', {'arch': 'test_resnet'})
    content = (tmp_path / 'whole.safetensors').read_bytes()
    (tmp_path / 'half.safetensors').write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    assert not load(timm.create_model('test_resnet', num_classes=0), tmp_path / 'whole.safetensors').notes
    with pytest.raises(InputError, match='half.safetensors .* tensors zero throughout, as a copy'):
        load(timm.create_model('test_resnet', num_classes=0), tmp_path / 'half.safetensors')


@pytest.mark.parametrize('change', ['8 bits', 'expanded'])
def test_plain_tensors_are_read_however_torch_has_saved_them(change, tmp_path):
    state = timm.create_model('test_resnet', num_classes=0).state_dict()
    if change == '8 bits':
        state = {
            name: value.to(torch.float8_e4m3fn) if value.is_floating_point() else value for name, value in state.items()
        }
    else:
        name = next(name for name, value in state.items() if name.endswith('bias'))
        state[name] = torch.zeros(1).expand(state[name].shape)
    torch.save(state, tmp_path / 'a.pth')
    read = checkpoints.read_tensors(tmp_path / 'a.pth')
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name].float(), value.float()) for name, value in state.items())


@pytest.mark.parametrize('arch', ['test_efficientnet', 'mobilenetv3_small_050'])
def test_files_of_names_that_no_format_has_are_what_somebody_says(arch, tmp_path, capsys):
    """``load`` takes them, which knows the network."""
    network = timm.create_model(arch)
    torch.save(network.state_dict(), tmp_path / 'a.pth')
    load(timm.create_model(arch, num_classes=0), tmp_path / 'a.pth')
    file, output = str(tmp_path / 'a.pth'), tmp_path / 'b.safetensors'
    assert commands.main(['inspect', file]) == 1 and 'name that with --arch' in capsys.readouterr().out
    assert commands.main(['inspect', file, '--arch', arch]) == 0 and arch in capsys.readouterr().out
    assert commands.main(['convert', file, '--to', 'timm', '--output', str(output), '--arch', arch]) == 0
    read = checkpoints.read_tensors(output)
    assert read.keys() == network.state_dict().keys()
    for other in ('resnet18', 'convnext_atto'):
        assert commands.main(['inspect', file, '--arch', other]) == 1
        assert f'--arch {other}: its tensors are not those' in capsys.readouterr().out
        assert commands.main(['convert', file, '--to', 'timm', '--arch', other, '--force']) == 2


def test_nobody_can_take_a_network_for_another(tmp_path, capsys):
    checkpoints.save(timm.create_model('test_resnet', num_classes=0), tmp_path / 'a.safetensors', {})
    assert commands.main(['inspect', str(tmp_path / 'a.safetensors'), '--arch', 'resnet18']) == 1
    assert '--arch resnet18: its tensors are those of test_resnet' in capsys.readouterr().out


@pytest.mark.parametrize('suffix', [b'.pth', b'.safetensors'])
def test_a_name_that_is_no_utf8_is_told_and_not_called_damage(tmp_path, suffix, capsys):
    plain, odd = tmp_path / f'plain{suffix.decode()}', os.fsdecode(os.fsencode(tmp_path) + b'/lat\xfc' + suffix)
    network = timm.create_model('test_resnet', num_classes=0)
    if suffix == b'.pth':
        torch.save({'state_dict': network.state_dict()}, plain)
    else:
        checkpoints.save(network, plain, {'arch': 'test_resnet'})
    shutil.copy(plain, odd)
    assert commands.main(['inspect', odd]) == 2
    told = capsys.readouterr().err
    assert 'this name is no UTF-8' in told and 'rename it' in told and 'copy it again' not in told
    assert commands.main(['convert', str(plain), '--to', 'timm', '--output', odd, '--force']) == 2
    assert 'this name is no UTF-8' in capsys.readouterr().err


def test_a_link_stays_one_and_is_not_replaced_unasked(tmp_path, capsys):
    checkpoints.save(
        timm.create_model('test_resnet', num_classes=0), tmp_path / 'own.safetensors', {'arch': 'test_resnet'}
    )
    (tmp_path / 'disk').mkdir()
    link, target = tmp_path / 'link.pth', tmp_path / 'disk/real.pth'
    link.symlink_to(target)  # which is not there yet
    words = ['convert', str(tmp_path / 'own.safetensors'), '--to', 'timm', '--output', str(link)]
    assert commands.main(words) == 2 and 'give --force' in capsys.readouterr().err
    assert commands.main([*words, '--force']) == 0
    assert (
        link.is_symlink() and target.is_file() and [path.name for path in (tmp_path / 'disk').iterdir()] == ['real.pth']
    )
    assert len(checkpoints.read_tensors(link)) == len(checkpoints.read_tensors(tmp_path / 'own.safetensors'))
