"""Features of frozen networks, and the probes through the command line: on made images, and on CIFAR-10's."""

import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from small_finetuning import write_images
from together import together

from spark_bench import commands
from spark_bench.checkpoints import published, save
from spark_bench.data.classification import ClassImages
from spark_bench.errors import InputError, RunError
from spark_bench.probes import features
from spark_bench.probes.features import Extractor, build_backbone, cached_features
from spark_bench.records import load_all
from spark_bench.tables import table_of_suite

CIFAR10 = (
    Path(os.environ.get('SPARK_BENCH_TEST_DATA', Path(__file__).parents[3] / 'shared' / 'data')) / 'cifar10_jpg.zip'
)
CLASSES, TRAIN, VAL = 6, 10, 3
TRANSFORM = dict(type='evaluation', input_size=64, crop_ratio=0.95)


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Six classes that differ in colour, of noisy images."""
    return write_images(tmp_path_factory.mktemp('classes'), TRAIN, VAL, noise=90)


@pytest.fixture(scope='module')
def cifar10(tmp_path_factory):
    """A few hundred images of CIFAR-10: 30 of each class to learn from, 15 to evaluate on."""
    if not CIFAR10.is_file():
        pytest.skip(f'{CIFAR10} is absent: set SPARK_BENCH_TEST_DATA to a folder with it')
    root = tmp_path_factory.mktemp('cifar10')
    taken = {}
    with zipfile.ZipFile(CIFAR10) as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith('.jpg')):
            split, label, own = Path(name).parts[-3:]
            taken[split, label] = taken.get((split, label), 0) + 1
            if taken[split, label] <= (30 if split == 'train' else 15):
                (root / split / label).mkdir(parents=True, exist_ok=True)
                (root / split / label / own).write_bytes(archive.read(name))
    return root


@pytest.fixture(scope='module')
def encoder(tmp_path_factory):
    """A file of a test_resnet whose weights are not those of seed 0."""
    path = tmp_path_factory.mktemp('encoder') / 'encoder.safetensors'
    save(build_backbone('test_resnet', seed=5), path, {'arch': 'test_resnet', 'method': 'no_sparse'})
    return path


def words(protocol, data, folder, *extra):
    return [
        'evaluate',
        '--protocol',
        protocol,
        '--data-root',
        str(data),
        '--input-size',
        '64',
        '--work-dir',
        str(folder / 'work'),
        '--results',
        str(folder / 'results'),
        '--suite',
        'test',
        '--threads',
        '1',
        '--workers',
        '0',
        '--device',
        'cpu',
        *map(str, extra),
    ]


def measured(protocol, data, folder, *extra):
    assert commands.main(words(protocol, data, folder, *extra)) == 0
    return next(record for record in load_all(folder / 'results', 'test') if record.task == protocol)


def arrays_of(folder, split):
    """``(features, labels)`` that a run has left on disk."""
    [part] = (folder / 'work' / 'features').glob(f'{split}-*/*.safetensors')
    stored = load_file(part)
    return stored['features'], stored['labels']


def predictions_of(record):
    with np.load(record.artifacts['predictions']) as stored:
        return stored['labels'], stored['classes']


def refused(capsys, arguments, *named):
    try:
        status = commands.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = stop.code
    lines = [line for line in capsys.readouterr().err.strip().splitlines() if 'OneDL' not in line]
    assert status == 2 and len(lines) == 1 and lines[0].startswith('spark-bench'), lines
    assert all(str(name) in lines[0] for name in named), lines


@pytest.mark.parametrize('arch', ['test_resnet', 'test_convnext', 'regnetx_002'])
def test_features_are_the_average_of_the_last_map(arch, images):
    network = build_backbone(arch)
    dataset = ClassImages(str(images), 'val', TRANSFORM)
    found = Extractor(network, batch_size=5, workers=0).extract(dataset, np.array([7, 0, 3, 11, 2, 17]))
    image = torch.stack([dataset[index]['inputs'] for index in (7, 0, 3, 11, 2, 17)])
    last = network.forward_intermediates(image, norm=False, intermediates_only=True)[-1].mean((2, 3))
    if 'convnext' in arch:  # whose norm is fresh: no scale, no shift
        last = torch.nn.functional.layer_norm(last, last.shape[1:], eps=network.head.norm.eps)
    assert found.dtype == np.float32 and not network.training
    assert np.allclose(found, last.numpy(), atol=1e-5) and found.std() > 1e-2


def test_the_norm_of_a_file_is_used_where_it_holds_one(tmp_path):
    network = timm.create_model('test_convnext', num_classes=3)
    torch.nn.init.constant_(network.head.norm.weight, 2.5)
    save(network, tmp_path / 'whole.safetensors', {'arch': 'test_convnext'})
    assert (build_backbone('test_convnext', str(tmp_path / 'whole.safetensors')).head.norm.weight == 2.5).all()


def test_a_random_network_is_its_seeds_and_disturbs_no_drawing():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, again, other = (build_backbone('test_resnet', seed=seed).conv1[0].weight for seed in (3, 3, 4))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_bfloat16_is_near_and_not_the_same(images):
    dataset, network = ClassImages(str(images), 'val', TRANSFORM), build_backbone('test_resnet')
    exact, rough = (Extractor(network, workers=0, amp=amp).extract(dataset, np.arange(18)) for amp in (False, True))
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.1 * np.abs(exact).max()


def test_workers_change_nothing(images):
    dataset, network = ClassImages(str(images), 'val', TRANSFORM), build_backbone('test_resnet')
    alone, two = (Extractor(network, batch_size=4, workers=n).extract(dataset, np.arange(18)) for n in (0, 2))
    assert np.array_equal(alone, two)


def test_a_killed_extraction_goes_on_with_the_next_part(images, tmp_path, monkeypatch):
    monkeypatch.setattr(features, 'PART', 8)
    dataset, network = ClassImages(str(images), 'val', TRANSFORM), build_backbone('test_resnet')
    asked = []

    class Watched(Extractor):
        def extract(self, dataset, indices):
            asked.append(list(indices))
            if len(asked) == 2:
                raise KeyboardInterrupt
            return super().extract(dataset, indices)

    extractor, order = Watched(network, workers=0), np.arange(18)[::-1]
    with pytest.raises(KeyboardInterrupt):
        cached_features(extractor, dataset, dataset.labels, order, tmp_path / 'cache')
    found, labels = cached_features(extractor, dataset, dataset.labels, order, tmp_path / 'cache')
    assert [indices[0] for indices in asked] == [17, 9, 9, 1], 'the first part is not computed again'
    assert np.array_equal(labels, dataset.labels[::-1])
    assert np.allclose(found, Extractor(network, workers=0).extract(dataset, order), atol=1e-6)
    # A damaged part is computed again, the others are not.
    part = tmp_path / 'cache' / '00000008.safetensors'
    part.write_bytes(part.read_bytes()[:100])
    again, _ = cached_features(extractor, dataset, dataset.labels, order, tmp_path / 'cache')
    assert np.array_equal(again, found) and len(asked) == 5 and asked[-1][0] == 9


def test_features_that_are_not_finite_are_refused(images, tmp_path):
    network = build_backbone('test_resnet')
    network.conv1[0].weight.fill_(torch.inf)
    dataset = ClassImages(str(images), 'val', TRANSFORM)
    with pytest.raises(RunError, match='18 of 18 images have features that are not finite'):
        cached_features(Extractor(network, workers=0), dataset, dataset.labels, np.arange(18), tmp_path / 'cache')
    assert not list(tmp_path.rglob('*.safetensors'))


@pytest.mark.parametrize('workers', [0, 2])
def test_a_damaged_image_is_named(workers, images, tmp_path):
    shutil.copytree(images, tmp_path / 'data')
    bad = tmp_path / 'data' / 'val' / 'class2' / '1.png'
    bad.write_bytes(bad.read_bytes()[:60])
    dataset = ClassImages(str(tmp_path / 'data'), 'val', TRANSFORM)
    with pytest.raises(InputError, match=f'^image {bad} [^\n]*$'):
        Extractor(build_backbone('test_resnet'), workers=workers).extract(dataset, np.arange(18))


def test_probes_of_real_images_are_scikit_learns(cifar10, encoder, tmp_path):
    near = measured('knn', cifar10, tmp_path, '--weights', encoder)
    linear = measured('linear', cifar10, tmp_path, '--weights', encoder)
    (train, labels), (val, truth) = arrays_of(tmp_path, 'train'), arrays_of(tmp_path, 'val')
    assert len(train) == 300 and len(val) == 150
    train, val = train.astype(np.float64), val.astype(np.float64)
    model = KNeighborsClassifier(20, metric='cosine', weights=lambda distance: np.exp((1 - distance) / 0.07))
    expected = model.fit(train, labels).predict(val)
    assert np.array_equal(predictions_of(near)[1][:, 0], expected) and np.array_equal(predictions_of(near)[0], truth)
    assert near.metrics['top1'] == pytest.approx(100 * (expected == truth).mean())
    assert near.metrics['neighbours'] == 20 and 10 < near.metrics['top1'] < near.metrics['top5'] < 100

    scaler = StandardScaler().fit(train)
    model = LogisticRegression(
        C=1 / (linear.metrics['penalty'] * len(train)), tol=1e-8, solver='newton-cholesky', max_iter=1000
    ).fit(scaler.transform(train), labels)
    expected = model.predict(scaler.transform(val))
    assert np.array_equal(predictions_of(linear)[1][:, 0], expected)
    assert linear.metrics['top1'] == pytest.approx(100 * (expected == truth).mean())
    assert linear.metrics['converged'] == 1 and linear.metrics['iterations'] > 0
    assert [near.method, linear.arch, linear.curves['top1_held_out'][0][0]] == ['no_sparse', 'test_resnet', 0.1]


def test_both_probes_share_features_and_a_record_is_measured_once(images, encoder, tmp_path, monkeypatch, capsys):
    near = measured('knn', images, tmp_path, '--weights', encoder)

    def no_more(*args):
        raise AssertionError('computed again')

    monkeypatch.setattr(Extractor, 'extract', no_more)
    linear = measured('linear', images, tmp_path, '--weights', encoder)
    before = {path: path.read_bytes() for path in (tmp_path / 'results').rglob('*.json')}
    monkeypatch.setattr('spark_bench.runs.probe.knn', no_more)
    assert measured('knn', images, tmp_path, '--weights', encoder, '--batch-size', '7') == near
    assert {path: path.read_bytes() for path in (tmp_path / 'results').rglob('*.json')} == before
    assert near.dataset['train_images'] == CLASSES * TRAIN and near.dataset['val_images'] == CLASSES * VAL
    assert near.weights['sha256'] == linear.weights['sha256'] and Path(near.config).is_file()
    smaller = words('knn', images, tmp_path, '--weights', encoder)
    smaller[smaller.index('--input-size') + 1] = '32'
    for other in (['--neighbours', '3'], ['--label-fraction', '0.5'], ['--amp']):
        capsys.readouterr()
        refused(capsys, words('knn', images, tmp_path, '--weights', encoder, *other), 'another configuration')
    refused(capsys, smaller, 'another configuration (transform.input_size 64, now 32)')
    labels = [column.label for column in table_of_suite(load_all(tmp_path / 'results', 'test')).columns]
    assert labels == ['linear top-1', 'k-NN top-1']


def test_other_images_of_the_same_names_and_sizes_are_other_data(tmp_path, capsys):
    data = tmp_path / 'data'
    for split, seed in (('train', 0), ('val', 100)):
        for place, name in enumerate(('dark', 'light')):
            (data / split / name).mkdir(parents=True)
            for i in range(6):
                noise = np.random.default_rng(seed + 10 * place + i).integers(0, 60, (32, 32, 3)) + 190 * place
                Image.fromarray(noise.astype(np.uint8)).save(data / split / name / f'{i}.bmp')
    common = ('--arch', 'test_resnet', '--neighbours', '3')
    assert measured('knn', data, tmp_path, *common).metrics['top1'] == 100
    for i in range(6):
        dark, light = data / f'val/dark/{i}.bmp', data / f'val/light/{i}.bmp'
        contents = dark.read_bytes()
        dark.write_bytes(light.read_bytes())
        light.write_bytes(contents)
    capsys.readouterr()
    refused(capsys, words('knn', data, tmp_path, *common), 'another configuration')
    measured('knn', data, tmp_path, *common, '--method', 'swapped')
    found = {record.method: record.metrics['top1'] for record in load_all(tmp_path / 'results', 'test')}
    assert found == {'scratch': 100, 'swapped': 0}


def test_another_file_of_the_same_training_is_another_configuration(images, tmp_path, capsys):
    for name, seed in (('last', 1), ('best', 2)):
        save(
            build_backbone('test_resnet', seed=seed),
            tmp_path / f'{name}.safetensors',
            {'arch': 'test_resnet', 'method': 'spark', 'config_hash': 'ab12ab12'},
        )
    measured('knn', images, tmp_path, '--weights', tmp_path / 'last.safetensors')
    capsys.readouterr()
    refused(capsys, words('knn', images, tmp_path, '--weights', tmp_path / 'best.safetensors'), 'another configuration')


def test_a_part_of_the_labels_and_a_random_network(images, tmp_path):
    part = measured('knn', images, tmp_path, '--arch', 'test_resnet', '--label-fraction', '0.3')
    assert part.method == 'scratch' and part.weights is None
    assert part.dataset['train_images'] == 3 * CLASSES and part.metrics['neighbours'] == 3 * CLASSES
    assert (np.bincount(arrays_of(tmp_path, 'train')[1]) == 3).all()
    assert (
        measured('knn', images, tmp_path, '--arch', 'test_resnet', '--weights', 'scratch', '--label-fraction', '0.3')
        == part
    )


def test_a_published_file_is_measured_by_its_name_and_fetched_only_when_asked(
    images, encoder, tmp_path, monkeypatch, capsys
):
    entry = dict(
        name='spark',
        arch='test_resnet',
        file='a.safetensors',
        url=encoder.as_uri(),
        source='a test',
        sha256=hashlib.sha256(encoder.read_bytes()).hexdigest(),
    )
    monkeypatch.setattr(published, 'read_index', lambda: [entry])
    named = ['--weights', 'spark', '--arch', 'test_resnet', '--cache-dir', tmp_path / 'cache']
    refused(capsys, words('knn', images, tmp_path, *named), encoder.as_uri(), 'add --download')
    refused(capsys, words('knn', images, tmp_path, *named[:2]), '--weights spark', '--arch', 'test_resnet')
    refused(capsys, words('knn', images, tmp_path, *named[:3], 'test_convnext'), 'test_convnext', 'test_resnet')
    assert not list(tmp_path.iterdir())
    record = measured('knn', images, tmp_path, *named, '--download')
    copied = tmp_path / 'cache' / 'weights' / 'a.safetensors'
    assert record.method == 'spark' and record.weights['path'] == str(copied)
    assert record.weights['sha256'] == entry['sha256'] and copied.read_bytes() == encoder.read_bytes()
    # It is the file that is measured, and now that it is there, it need not be asked for.
    assert measured('linear', images, tmp_path, *named).weights == record.weights
    given = measured('knn', images, tmp_path / 'given', '--weights', encoder)
    assert given.metrics == record.metrics and given.config_hash == record.config_hash and given.method == 'no_sparse'


def test_two_files_of_one_method_share_a_folder_and_keep_their_own(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        file = tmp_path / str(seed) / 'encoder.safetensors'
        file.parent.mkdir()
        save(build_backbone('test_resnet', seed=seed), file, {'arch': 'test_resnet', 'method': 'spark'})
        arguments = words('knn', images, tmp_path, '--weights', file)
        place = arguments.index('--work-dir')
        del arguments[place : place + 2]
        arguments[arguments.index('--results') + 1] = str(tmp_path / f'results{seed}')
        assert commands.main(arguments) == 0
    folder = tmp_path / 'work_dirs/test/probes/test_resnet/spark/0'
    found = {path.parent.name: path.read_bytes() for path in folder.glob('knn-*/predictions.npz')}
    assert len(found) == len(set(found.values())) == 2 and len(list(folder.glob('features/train-*'))) == 2


@pytest.mark.parametrize(
    'protocol, arguments, named',
    [
        ('detection', ['--download'], '--d'),
        ('finetune', ['--download'], '--d'),
        ('knn', ['config.py', '--arch', 'test_resnet'], 'CONFIG'),
        ('knn', ['--bootstrap', '100'], '--bootstrap'),
        ('linear', ['--backend', 'pycocotools'], '--backend'),
        ('linear', ['--neighbours', '5', '--arch', 'test_resnet'], '--neighbours'),
        ('linear', ['--cfg-options', 'a=1'], '--cfg-options'),
        ('detection', ['--label-fraction', '0.1'], '--device'),
        ('knn', [], '--arch'),
        ('knn', ['--arch', 'test_resnot'], 'test_resnet'),
        ('knn', ['--weights', 'nowhere.safetensors'], 'nowhere.safetensors'),
        ('knn', ['--arch', 'test_resnet', '--device', 'abacus'], 'abacus'),
        ('knn', ['--arch', 'test_resnet', '--label-fraction', '1.5'], '1.5'),
        ('sparse', [], 'sparse'),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(protocol, arguments, named, images, tmp_path, capsys):
    refused(capsys, words(protocol, images, tmp_path, *arguments), named)
    assert not (tmp_path / 'results').exists() and not (tmp_path / 'work').exists()


def test_a_detector_is_still_what_evaluate_asks_for(images, capsys):
    refused(capsys, ['evaluate', '--data-root', images], 'trained detector')


def test_one_label_a_class_has_none_to_hold_out(images, tmp_path, capsys):
    refused_words = words('linear', images, tmp_path, '--arch', 'test_resnet', '--label-fraction', '0.01')
    assert commands.main(refused_words) == 2
    assert 'no class has two training images' in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / 'results').exists()


def test_two_processes_give_the_features_and_the_record_of_one(images, encoder, tmp_path):
    both, one = tmp_path / 'both', tmp_path / 'one'
    # 60 images in batches of 8: the processes get 4 batches each, the last of 4 images.
    done = together(words('linear', images, both, '--weights', encoder, '--batch-size', '8'))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('record: ') == 1
    [path] = (both / 'results').rglob('*.json')
    record = measured('linear', images, one, '--weights', encoder, '--batch-size', '8')
    for split in ('train', 'val'):
        for ours, theirs in zip(arrays_of(both, split), arrays_of(one, split), strict=True):
            assert np.array_equal(ours, theirs)
    assert json.loads(path.read_text())['metrics'] == record.metrics
    assert json.loads(path.read_text())['config_hash'] == record.config_hash


def test_a_damaged_image_is_told_once_by_two_processes(images, encoder, tmp_path):
    shutil.copytree(images, tmp_path / 'data')
    bad = tmp_path / 'data' / 'train' / 'class3' / '1.png'
    bad.write_bytes(bad.read_bytes()[:60])
    done = together(words('knn', tmp_path / 'data', tmp_path, '--weights', encoder, '--batch-size', '8'))
    told = [line for line in done.stderr.splitlines() if 'spark-bench: error' in line]
    assert done.returncode != 0 and len(told) == 1 and str(bad) in told[0], done.stderr[-3000:]
    assert not (tmp_path / 'results').exists()
