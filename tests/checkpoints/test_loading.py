"""Loading weights: everything accounted for, nothing unpickled, broken files named."""

import os
import pickle

import pytest
import timm
import torch

from spark_bench import checkpoints
from spark_bench.errors import InputError


@pytest.fixture
def network():
    return timm.create_model('test_resnet', num_classes=0)


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(1)
    path = tmp_path / 'encoder.safetensors'
    checkpoints.save(timm.create_model('test_resnet', num_classes=0), path, {'arch': 'test_resnet'})
    return path


def test_saved_weights_come_back_exactly(network, file):
    coverage = checkpoints.load(network, file)
    saved = checkpoints.read_tensors(file)
    assert set(coverage.loaded) == set(saved) == set(network.state_dict())
    assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items())
    assert checkpoints.read_metadata(file) == {'arch': 'test_resnet'}


@pytest.mark.parametrize(
    'wrap',
    [
        lambda s: s,
        lambda s: {'state_dict': s},
        lambda s: {'model': s, 'epoch': 3},
        lambda s: {'module.' + k: v for k, v in s.items()},
    ],
)
def test_wrapped_torch_files_are_read(network, tmp_path, wrap):
    full = timm.create_model('test_resnet').state_dict()
    torch.save(wrap(full), tmp_path / 'a.pth')
    coverage = checkpoints.load(network, tmp_path / 'a.pth')
    assert coverage.unused == ('fc.bias', 'fc.weight')
    assert torch.equal(network.conv1[0].weight, full['conv1.0.weight'])


@pytest.mark.parametrize(
    'damage, named',
    [
        (lambda s: s.pop('bn1.bias'), 'bn1.bias'),
        (lambda s: s.update({'stem.9.weight': torch.ones(2)}), 'stem.9.weight'),
        (lambda s: s.update({'bn1.bias': torch.ones(3)}), r'bn1.bias \(3,\)'),
        (lambda s: s.update({'bn1.bias': torch.full((32,), float('nan'))}), 'not finite .bn1.bias'),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_leaves_the_network_alone(network, tmp_path, damage, named):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = timm.create_model('test_resnet', num_classes=0).state_dict()
    damage(state)
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(InputError, match=named):
        checkpoints.load(network, tmp_path / 'a.pth')
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_file_that_would_run_code_is_refused_unrun(tmp_path):
    torch.save({'state_dict': Bomb(tmp_path / 'ran')}, tmp_path / 'a.pth')
    (tmp_path / 'b.pth').write_bytes(pickle.dumps(Bomb(tmp_path / 'ran')))
    for name in ('a.pth', 'b.pth'):
        with pytest.raises(InputError, match=name):
            checkpoints.read_tensors(tmp_path / name)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_any_truncation_or_noise_is_one_line_naming_the_file(file, tmp_path, suffix):
    if suffix == '.pth':
        torch.save(checkpoints.read_tensors(file), tmp_path / 'whole.pth')
        file = tmp_path / 'whole.pth'
    whole = file.read_bytes()
    broken = tmp_path / f'broken{suffix}'
    samples = [whole[: len(whole) * k // 40] for k in range(40)]
    samples += [bytes(os.urandom(n)) for n in (1, 10, 1000)] + [b'{}', b'\x80\x02N.']
    for sample in samples:
        broken.write_bytes(sample)
        with pytest.raises(InputError) as error:
            checkpoints.read_tensors(broken)
        assert str(broken) in str(error.value) and '\n' not in str(error.value)


def test_absent_and_empty_files_are_named(tmp_path):
    with pytest.raises(InputError, match='nowhere.pth'):
        checkpoints.read_tensors(tmp_path / 'nowhere.pth')
    torch.save({}, tmp_path / 'empty.pth')
    torch.save({'epoch': 3}, tmp_path / 'stray.pth')
    for name in ('empty.pth', 'stray.pth'):
        with pytest.raises(InputError, match=name):
            checkpoints.read_tensors(tmp_path / name)


def test_a_failed_save_leaves_nothing_behind(network, tmp_path):
    with pytest.raises(TypeError):
        checkpoints.save(network, tmp_path / 'a.safetensors', {'arch': 3})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'arch',
    [
        'deit_tiny_distilled_patch16_224',
        'hiera_tiny_224',
        'legacy_seresnet18',
        'cait_xxs24_224',
        'vit_small_patch14_reg4_dinov2',
        'convnext_atto_ols',
    ],
)
@pytest.mark.parametrize('says_arch', [True, pytest.param(False, marks=pytest.mark.slow)])
def test_what_has_one_name_in_file_and_network_is_one_tensor(arch, says_arch, tmp_path):
    # Parts that are rare in their family: a second classifier, blocks of a class token, a classifier by another name.
    whole, other = (timm.create_model(arch, num_classes=5) for _ in range(2))
    for parameter in whole.parameters():
        torch.nn.init.normal_(parameter)
    checkpoints.save(whole, tmp_path / 'w.safetensors', {'arch': arch} if says_arch else {})
    coverage = checkpoints.load(other, tmp_path / 'w.safetensors')
    assert not coverage.fresh and not coverage.unused
    assert all(
        torch.equal(one, two) for one, two in zip(whole.state_dict().values(), other.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize('key_prefix', ['module', 'module.'])
def test_a_prefix_of_all_names_may_be_named(key_prefix, tmp_path):
    network = timm.create_model('resnet18')
    torch.save({f'module.{name}': value for name, value in network.state_dict().items()}, tmp_path / 'w.pth')
    assert len(checkpoints.load(timm.create_model('resnet18'), tmp_path / 'w.pth', key_prefix).loaded) == 122


def test_networks_beside_figures_and_settings_are_found(tmp_path):
    network = timm.create_model('test_resnet')
    weights = network.state_dict()
    for number, contents in enumerate(
        (
            {'net': weights, 'acc': torch.tensor(93.0)},
            {'teacher': {'backbone': weights}, 'center': torch.zeros(1, 8)},
            {'model': {'name': 'test_resnet', 'depth': 1}, 'weights': weights, 'torch': torch.__version__},
        )
    ):
        path = tmp_path / f'{number}.pth'
        torch.save(contents, path)
        coverage = checkpoints.load(timm.create_model('test_resnet'), path)
        assert len(coverage.loaded) == len(weights) and not coverage.fresh


def test_tags_are_no_other_networks_and_what_tensors_do_not_tell_is_said(tmp_path):
    network = timm.create_model('resnet18', num_classes=0)
    path = tmp_path / 'a.pth'
    for said, note in (('resnet18.a1_in1k', False), ('resnet18', False), ('resnetblur18', True)):
        torch.save({'arch': said, 'state_dict': network.state_dict()}, path)
        found = str(checkpoints.load(network, path))
        assert (f"says arch '{said}'" in found) == note and 'resnet18.' not in found.replace(str(path), ''), found
    for style, note in (('caffe', True), ('pytorch', False)):
        config = f"model = dict(backbone=dict(type='ResNet', depth=18, style='{style}'))\n" + 1000 * '#'
        torch.save({'state_dict': network.state_dict(), 'meta': {'cfg': config}}, path)
        assert ('BGR' in str(checkpoints.load(network, path))) == note
