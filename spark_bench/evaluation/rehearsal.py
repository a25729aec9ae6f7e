"""The evaluation tried on two images before the first update: what would fail after days of training fails now."""

import contextlib
from collections.abc import Iterator

import torch
from mmengine.runner import Runner

from spark_bench.errors import InputError
from spark_bench.training.resume import random_states, set_random_states


@torch.no_grad()
def rehearse(runner: Runner, sizes: dict) -> None:
    """Detect on two images of the test split, and throw the results away; no state changes.

    Args:
        runner: built and not yet trained.
        sizes: from ``file_name`` to (width, height), in the order of the data set; the images tried are the first
            and the longest for its height, or the tallest for its width.

    Raises:
        InputError: naming the image, and what its evaluation ends with.
    """
    loop, model = runner.test_loop, runner.model
    dataset, names = loop.dataloader.dataset, list(sizes)
    ratios = [max(size) / min(size) for size in sizes.values()]
    states, training = random_states(), model.training
    model.eval()
    try:
        for index in sorted({0, max(range(len(ratios)), key=ratios.__getitem__)}):
            with blame_evaluation(names[index], 'model.test_cfg and test_dataloader'):
                batch = loop.dataloader.collate_fn([dataset[index]])
                loop.evaluator.process(data_samples=model.test_step(batch), data_batch=batch)
    finally:
        for metric in loop.evaluator.metrics:
            metric.results.clear()
        model.train(training)
        set_random_states(states)


@contextlib.contextmanager
def blame_evaluation(images: str, keys: str) -> Iterator[None]:
    """Say of whatever is raised within that the evaluation is at fault.

    Args:
        images: what was tried.
        keys: of the config, where the fault may be.

    Raises:
        InputError: in place of any other exception.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it would end the run behind its training
        reason = ' '.join(str(error).split())[:300]
        raise InputError(
            f'the evaluation fails, tried on {images} before the training ({type(error).__name__}: '
            f'{reason}): look at {keys}, in the config and in --cfg-options, and at what was tried '
            '(--debug shows where)'
        ) from error
