"""Weights as people have them: ``inspect``, ``convert`` and ``load`` say the same of every file, and every tensor is
accounted for."""

import json
import pickle
import re

import numpy as np
import pytest
import timm
import torch
import torchvision
from foreign_files import SMALL, SOUND, UNSOUND, detectron2, state_of, under
from sampling import all_but

from pretrain.encoder import create_network
from spark_bench import checkpoints, commands
from spark_bench.checkpoints.contents import open_checkpoint
from spark_bench.errors import InputError


def write(contents, path):
    torch.save(contents, path)
    return path


def verdicts(path, arch, capsys, *words):
    """``{command: (accepted, what it said)}`` of the three."""
    said = {}
    out = str(path.parent / 'out.safetensors')
    for command, more in (('inspect', ()), ('convert', ('--to', 'timm', '--output', out))):
        status = commands.main([command, str(path), *more, *words])
        said[command] = status == 0, ''.join(capsys.readouterr())
    network = timm.create_model(arch, num_classes=0)
    try:
        said['load'] = True, checkpoints.load(network, path, *words[1:])
    except InputError as error:
        said['load'] = False, str(error)
    return said, network


@pytest.mark.parametrize('name', all_but(['swin detector', 'numbered', 'hugging face convnext v2', 'fcmae'], SOUND))
def test_a_sound_file_passes_all_three_with_every_tensor_accounted_for(name, tmp_path, capsys):
    contents, arch = SOUND[name]
    contents = (
        {**contents, 'arch': arch}
        if 'state_dict' in contents or 'model' in contents
        else {'model': contents, 'arch': arch}
        if arch.startswith('mobile')
        else contents
    )
    path = write(contents, tmp_path / 'a.pth')
    said, network = verdicts(path, arch, capsys)
    assert {command: accepted for command, (accepted, _) in said.items()} == dict.fromkeys(said, True), said
    expected = {name: value for name, value in state_of(arch).items() if name in network.state_dict()}
    coverage = said['load'][1]
    kept = {name for name in expected if name not in coverage.fresh}
    assert all(torch.equal(network.state_dict()[name], expected[name]) for name in kept)
    assert not any(
        re.match(r'conv1|layer|stages|stem|blocks|patch_embed', name) and 'num_batches' not in name
        for name in coverage.fresh
    )
    # Each tensor of the file is loaded or listed, by load and by convert.
    tensors = open_checkpoint(path).file.tensors
    entries = len(open_checkpoint(path).file.left_out)
    assert len(coverage.loaded) + len(coverage.unused) == len(tensors) + entries
    _, written, left_out = _converted(path, tmp_path)
    assert written + len(left_out) == len(tensors) + entries
    # What was written is timm's network, and nothing else.
    out = tmp_path / 'out.safetensors'
    assert set(checkpoints.read_tensors(out)) <= set(timm.create_model(arch).state_dict())
    again = checkpoints.load(timm.create_model(arch, num_classes=0), out)
    assert set(again.unused) <= {
        'fc.weight',
        'fc.bias',
        'head.fc.weight',
        'head.fc.bias',
        'classifier.weight',
        'classifier.bias',
    }
    assert not open_checkpoint(out).faults


def _converted(path, folder):
    from spark_bench.checkpoints.convert import convert

    return convert(path, 'timm', folder / 'second.safetensors')


@pytest.mark.parametrize('name', UNSOUND)
def test_an_unsound_file_is_refused_by_all_three_for_one_reason(name, tmp_path, capsys):
    contents, reason = UNSOUND[name]
    path = write(contents, tmp_path / 'a.pth')
    said, _ = verdicts(path, 'test_resnet', capsys)
    assert {command: accepted for command, (accepted, _) in said.items()} == dict.fromkeys(said, False), said
    assert all(re.search(reason, what) for _, what in said.values()), said
    assert sorted(file.name for file in tmp_path.iterdir()) == ['a.pth'] and 'unexpected' not in said['convert'][1]


@pytest.mark.parametrize('arch', ['resnet18', 'resnet50'])
def test_modules_of_torchvision_in_a_sequence_fill_the_same_network(arch, tmp_path):
    torch.manual_seed(1)
    source = getattr(torchvision.models, arch)()
    torch.save(torch.nn.Sequential(*list(source.children())[:-1]).state_dict(), tmp_path / 'a.pth')
    network = timm.create_model(arch, num_classes=0).eval()
    assert not checkpoints.load(network, tmp_path / 'a.pth').unused
    source.fc = torch.nn.Identity()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(image), source.eval()(image))


def test_a_real_detector_of_torchvision(tmp_path):
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    backbone = resnet_fpn_backbone(backbone_name='resnet18', weights=None)
    torch.save(under('backbone.', backbone.state_dict()), tmp_path / 'a.pth')
    network = timm.create_model('resnet18', num_classes=0)
    coverage = checkpoints.load(network, tmp_path / 'a.pth')
    assert {name.split('.')[1] for name in coverage.unused} == {'fpn'}
    assert torch.equal(network.layer3[0].conv1.weight, backbone.body.layer3[0].conv1.weight)


@pytest.mark.parametrize('name', ['two networks', 'two networks in dicts'])
def test_the_option_chooses_one_of_several_networks(name, tmp_path, capsys):
    path = write(UNSOUND[name][0], tmp_path / 'a.pth')
    assert commands.main(['inspect', str(path)]) == 2
    refusal = capsys.readouterr().err
    count = len(SMALL)
    assert refusal.count(f'({count} of {count} tensors of test_resnet)') == 2, refusal
    listed = re.findall(r"'((?:student|teacher)\.[\w.]*)' \(", refusal)
    assert len(listed) == 2
    for prefix, added in zip(sorted(listed), (0, 1), strict=True):
        for words in (prefix, prefix.rstrip('.'), prefix.split('.')[0]):
            out = tmp_path / 'out.safetensors'
            out.unlink(missing_ok=True)
            said, network = verdicts(path, 'test_resnet', capsys, '--key-prefix', words)
            assert all(accepted for accepted, _ in said.values()), said
            assert torch.equal(network.bn1.bias, SMALL['bn1.bias'] + added)
            assert torch.equal(checkpoints.read_tensors(out)['bn1.bias'], SMALL['bn1.bias'] + added)
    assert commands.main(['inspect', str(path), '--key-prefix', 'studnet']) == 2
    assert re.search(r"no network under 'studnet.'.*'student\.", capsys.readouterr().err)


def test_the_option_reaches_averages_and_slow_copies(tmp_path):
    contents = {'model': SMALL, 'model_ema': {name: value + 1 for name, value in SMALL.items()}}
    path = write(contents, tmp_path / 'a.pth')
    network = timm.create_model('test_resnet', num_classes=0)
    for prefix, added in ((None, 0), ('model_ema', 1), ('model_ema.', 1), ('model.', 0)):
        checkpoints.load(network, path, prefix)
        assert torch.equal(network.bn1.bias, SMALL['bn1.bias'] + added), prefix
    path = write(SOUND['moco'][0], path)
    assert checkpoints.load(network, path, 'module.encoder_k').loaded == checkpoints.load(network, path).loaded


def test_a_teacher_of_another_architecture_is_not_passed_over(tmp_path):
    path = write({**under('student.', SMALL), **under('teacher.', state_of('test_convnext'))}, tmp_path / 'a.pth')
    with pytest.raises(InputError, match="(?s)'teacher.' .*of test_convnext.*'student.' .*of test_resnet"):
        open_checkpoint(path)


@pytest.mark.parametrize('protocol', all_but([4, 5], [2, 4, 5]))
@pytest.mark.parametrize('backbone', ['', 'backbone.bottom_up.'])
def test_a_pickle_of_arrays_as_detectron2_writes_it(protocol, backbone, tmp_path, capsys):
    state = state_of('resnet18')
    arrays = {
        name: np.asfortranarray(value.numpy()) if value.dim() == 4 else value.numpy()
        for name, value in under(backbone, detectron2(state)).items()
    }
    arrays[f'{backbone}stem.conv1.norm.bias'] = arrays[f'{backbone}stem.conv1.norm.bias'].astype('>f8')
    contents = {'model': arrays, '__author__': 'torchvision', 'matching_heuristics': True}
    (tmp_path / 'R-18.pkl').write_bytes(pickle.dumps(contents, protocol=protocol))
    assert commands.main(['inspect', str(tmp_path / 'R-18.pkl'), '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['format'] == 'detectron2' and 'BGR' in report['notes'][0]
    network = timm.create_model('resnet18', num_classes=0)
    coverage = checkpoints.load(network, tmp_path / 'R-18.pkl')
    assert all(
        torch.equal(value, state[name]) for name, value in network.state_dict().items() if 'num_batches' not in name
    )
    assert 'BGR' in str(coverage)


def test_inspect_names_where_the_network_stands_and_all_that_is_left_out(tmp_path, capsys):
    path = write(SOUND['simsiam'][0], tmp_path / 'a.pth')
    assert commands.main(['inspect', str(path)]) == 0
    shown = capsys.readouterr().out
    assert "under 'encoder.'" in shown and 'encoder.fc.0.bias' in shown
    assert commands.main(['convert', str(path), '--to', 'timm']) == 0
    assert 'predictor.0.weight' in capsys.readouterr().out


@pytest.mark.parametrize('arch', ['vit_mini', 'vit_tiny_patch16_224'])
def test_a_vit_that_pools_patches_is_that_vit(arch, tmp_path, capsys):
    """As MAE's fine-tunings leave it, and ours: its norm stands behind the pooling."""
    network = create_network(arch, 0.0, 10, 'avg')
    assert 'fc_norm.weight' in network.state_dict()
    path = write({'model': network.state_dict(), 'arch': arch}, tmp_path / 'a.pth')
    said, _ = verdicts(path, arch, capsys)
    assert {command: accepted for command, (accepted, _) in said.items()} == dict.fromkeys(said, True), said
