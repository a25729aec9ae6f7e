"""Fine-tuned weights: the EMA, the best and the last ones, and the predictions that they make."""

from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.metrics import top_k_accuracy_score
from small_finetuning import CLASSES, VAL, predictions_of, small, words
from small_recipes import ROOT, record_of

from spark_bench import commands
from spark_bench.checkpoints import read_metadata
from spark_bench.training.ema import WeightEmaHook


def test_ema_is_the_weighted_sum_of_all_weights_it_has_seen():
    torch.manual_seed(0)
    model = timm.create_model('test_resnet', num_classes=3)

    runner = SimpleNamespace(model=model, max_iters=100)
    hook = WeightEmaHook(0.9)
    hook.before_train(runner)
    names = ['conv1.0.weight', 'fc.bias', 'layer4.0.bn1.running_var']
    expected = {name: model.state_dict()[name].double().clone() for name in names}
    for number in range(5):
        with torch.no_grad():
            for name in names:
                model.state_dict()[name].add_(number + 1)
        hook.after_train_iter(runner, number)
        expected = {name: 0.9 * value + 0.1 * model.state_dict()[name].double() for name, value in expected.items()}
    for name in names:
        assert torch.allclose(hook.model.state_dict()[name].double(), expected[name], rtol=1e-5, atol=1e-6), name


def test_ema_of_a_run_is_that_of_its_weights_after_each_update(images, tmp_path, monkeypatch):
    seen = []
    update = WeightEmaHook.after_train_iter

    def watch(self, runner, *arguments, **kwargs):
        seen.append({name: value.double().clone() for name, value in runner.model.backbone.state_dict().items()})
        return update(self, runner, *arguments, **kwargs)

    start = WeightEmaHook.before_train

    def begin(self, runner):
        seen.append({name: value.double().clone() for name, value in runner.model.backbone.state_dict().items()})
        return start(self, runner)

    monkeypatch.setattr(WeightEmaHook, 'before_train', begin)
    monkeypatch.setattr(WeightEmaHook, 'after_train_iter', watch)
    assert (
        commands.main(
            words(
                images,
                tmp_path,
                '--weights',
                'scratch',
                '--epochs',
                '2',
                '--arch',
                'test_resnet',
                recipe='finetune_resnet50_300e',
                settings=small(32, 'custom_hooks.0.decay=0.8'),
            )
        )
        == 0
    )
    stored, last = (load_file(tmp_path / f'work/classifier{suffix}.safetensors') for suffix in ('_ema', ''))
    assert len(seen) == 5
    for name, value in stored.items():
        if value.is_floating_point():
            expected = seen[0][name]
            for weights in seen[1:]:
                expected = 0.8 * expected + 0.2 * weights[name]
            assert torch.allclose(value.double(), expected, rtol=1e-4, atol=1e-6), name
        assert torch.equal(last[name].double(), seen[-1][name])
    with safe_open(tmp_path / 'work/classifier_ema.safetensors', 'pt') as file:
        assert file.metadata()['arch'] == 'test_resnet' and file.metadata()['method'] == 'scratch'


@pytest.fixture(scope='module')
def learnt(images, tmp_path_factory):
    """A run that learns: the demo's recipe with an EMA."""
    folder = tmp_path_factory.mktemp('learnt')
    hooks = '[dict(type="WeightEmaHook", decay=0.5), dict(type="AccuracyHook"), dict(type="ProgressHook")]'
    config = folder / 'learn.py'
    config.write_text(f"_base_ = '{ROOT}/pretrain/configs/demo_finetune.py'\ncustom_hooks = {hooks}\n")
    arguments = words(images, folder, '--weights', 'scratch', '--epochs', '8', settings=['global_batch=12'])
    assert commands.main([arguments[0], str(config), *arguments[1:]]) == 0
    return folder, config


def test_top1_and_top5_are_scikit_learns_on_the_dumped_predictions(learnt):
    folder, _ = learnt
    metrics = record_of(folder)['metrics']
    for name, key in (('predictions_ema', 'top1_last_ema'), ('predictions', 'top1_last_raw')):
        found = predictions_of(folder, name)
        scores = np.full((len(found.labels), CLASSES), -np.inf)
        np.put_along_axis(scores, found.classes, found.scores.astype(float), axis=1)
        scores[np.isneginf(scores)] = scores[~np.isneginf(scores)].min() - 1
        assert metrics[key] == pytest.approx(100 * top_k_accuracy_score(found.labels, scores, k=1), abs=1e-9)
        if name == 'predictions_ema':
            assert metrics['top1'] == metrics[key]
            assert metrics['top5'] == pytest.approx(100 * top_k_accuracy_score(found.labels, scores, k=5), abs=1e-9)
    assert metrics['top1'] > 100 / CLASSES + 20  # it did learn
    assert sorted(found.labels.tolist()) == sorted(list(range(CLASSES)) * VAL)


def test_the_best_weights_are_those_of_the_best_epoch(learnt, tmp_path):
    folder, config = learnt
    record = record_of(folder)
    for name in ('raw', 'ema'):
        curve = record['curves'][f'top1_{name}']
        assert [epoch for epoch, _ in curve] == list(range(1, 9))
        best = max(value for _, value in curve)
        assert record['metrics'][f'top1_best_{name}'] == best
        assert record['metrics'][f'epoch_best_{name}'] == next(epoch for epoch, value in curve if value == best)
        assert record['metrics'][f'top1_last_{name}'] == curve[-1][1]


def test_a_fine_tuned_network_works_in_timm_as_it_is(learnt, images):
    folder, _ = learnt
    network = timm.create_model('test_resnet', num_classes=CLASSES).eval()
    network.load_state_dict(load_file(folder / 'work/classifier.safetensors'))
    found = predictions_of(folder)
    with Image.open(sorted(images.glob('val/*/*'))[0]) as image:
        pixels = torch.from_numpy(np.array(image.resize((72, 64)).crop((4, 0, 68, 64)))).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        logits = network(((pixels - mean) / std).permute(2, 0, 1)[None])[0]
    assert logits[found.classes[0]].numpy() == pytest.approx(found.scores[0], abs=1e-4)


def test_scores_that_are_no_numbers_are_not_scored(tmp_path, images, capsys):
    assert commands.main(words(images, tmp_path, '--weights', 'scratch', '--epochs', '1')) == 0
    broken = tmp_path / 'broken.safetensors'
    weights = load_file(tmp_path / 'work/classifier.safetensors')
    save_file(
        {name: value * 1e30 if name.endswith('weight') else value for name, value in weights.items()},
        broken,
        read_metadata(tmp_path / 'work/classifier.safetensors'),
    )
    evaluation = ['evaluate', '--protocol', 'finetune', '--data-root', str(images), '--weights', str(broken)]
    assert commands.main([*evaluation, '--work-dir', str(tmp_path / 'other')]) == 1
    assert 'the scores of image 0 of the split are not finite' in capsys.readouterr().err
