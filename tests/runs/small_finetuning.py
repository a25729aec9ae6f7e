"""Fine-tuning at a size for tests: images, the words of a command, what a run leaves behind."""

import numpy as np
from PIL import Image

from spark_bench import commands
from spark_bench.evaluation.accuracy import Predictions

CLASSES, TRAIN, VAL = 6, 8, 3


def write_images(root, train=TRAIN, val=VAL, noise=30):
    """Write six classes that differ in colour, ``train`` and ``val`` noisy images of each; return ``root``."""
    rng = np.random.default_rng(0)
    for split, count in (('train', train), ('val', val)):
        for number in range(CLASSES):
            folder = root / split / f'class{number}'
            folder.mkdir(parents=True)
            colour = np.array([number * 40, 250 - number * 40, 30 * (number % 3)])
            for i in range(count):
                noisy = colour + rng.integers(-noise, noise, (8, 8, 3))
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).resize((72, 64)).save(folder / f'{i}.png')
    return root


def words(images, folder, *extra, recipe=None, settings=()):
    chosen = [f'pretrain/configs/{recipe}.py'] if recipe else []
    return [
        'finetune',
        *chosen,
        '--data-root',
        str(images),
        '--work-dir',
        str(folder / 'work'),
        '--results',
        str(folder / 'results'),
        '--threads',
        '1',
        '--workers',
        '0',
        *extra,
        # Of two values for a key, the later one.
        *(['--cfg-options', *{word.partition('=')[0]: word for word in settings}.values()] if settings else []),
    ]


def small(side=32, *more):
    """Settings that make an ImageNet recipe fit a handful of images: two updates an epoch."""
    return [
        f'train_dataloader.dataset.transform.input_size={side}',
        f'evaluation_dataloader.dataset.transform.input_size={side}',
        'global_batch=24',
        'param_scheduler.0.warmup=1',
        *more,
    ]


def predictions_of(folder, name='predictions'):
    with np.load(folder / 'work' / f'{name}.npz') as stored:
        return Predictions(stored['labels'], stored['classes'], stored['scores'])


def refused(capsys, arguments, *expected):
    assert commands.main([str(word) for word in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(word in error for word in expected), error
