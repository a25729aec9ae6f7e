"""The evaluation tried on two images before the first update: what would fail after days of training fails now."""

import contextlib
from collections.abc import Iterator

import torch
from mmengine.runner import Runner
from timm.utils import unwrap_model
from torch.nn import functional as F

from pretrain.networks import evaluating
from spark_bench.errors import InputError
from spark_bench.models.shapes import taking_small_images
from spark_bench.training.resume import undisturbed

# Shorter side of the images that a CPU tries, which would take half a minute for whole ones. SSD takes none below 300,
# and DINO finds its 900 queries among the places of the maps.
_SIDE = 320
# Of each image, so many proposals reach the heads there, in place of a thousand.
_PROPOSALS = 100


@torch.no_grad()
def rehearse(runner: Runner, sizes: dict) -> None:
    """Detect on two images of the test split, and throw the results away; no state changes.

    A CPU detects on smaller ones, with fewer proposals; a GPU on whole ones, as these must fit its memory.

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
    try:
        with evaluating(model), undisturbed():
            for index in sorted({0, max(range(len(ratios)), key=ratios.__getitem__)}):
                with blame_evaluation(names[index], 'model.test_cfg and test_dataloader'):
                    batch = loop.dataloader.collate_fn([dataset[index]])
                    with _small_enough(model, batch):
                        loop.evaluator.process(data_samples=model.test_step(batch), data_batch=batch)
    finally:
        for metric in loop.evaluator.metrics:
            metric.results.clear()


@contextlib.contextmanager
def _small_enough(model, batch):
    """Within, ``batch`` is one that the device of ``model`` detects on in seconds."""
    if next(model.parameters()).is_cuda:
        yield
        return
    for number, (image_3HW, sample) in enumerate(zip(batch['inputs'], batch['data_samples'], strict=True)):
        height, width = image_3HW.shape[-2:]
        scale = min(1, _SIDE / min(height, width))
        size = (round(height * scale), round(width * scale))
        batch['inputs'][number] = F.interpolate(image_3HW[None], size)[0]
        sample.set_metainfo(dict(img_shape=size))
        if 'scale_factor' in sample:
            across, down = sample.scale_factor
            sample.set_metainfo(dict(scale_factor=(across * size[1] / width, down * size[0] / height)))
    bare = unwrap_model(model)
    limits = getattr(getattr(bare, 'rpn_head', None), 'test_cfg', None) or {}
    most = limits.get('max_per_img', 0)
    if most > _PROPOSALS:
        limits['max_per_img'] = _PROPOSALS
    try:
        with taking_small_images(bare):
            yield
    finally:
        if most > _PROPOSALS:
            limits['max_per_img'] = most


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
