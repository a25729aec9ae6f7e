"""Reconstructions of a few fixed pictures with fixed masks: the same for every method and every epoch."""

import numpy as np
import torch

from pretrain.masking import expand_mask, random_mask

SHOWN_PICTURES = 6
SHOWN_SEED = 2023


def load_pictures(model, dataset, indices):
    """The chosen pictures at the model's input size, uint8 (n, H, W, 3).

    Args:
        model: :class:`~spark_bench.models.pretrainer.SparKPretrainer`, perhaps wrapped for several processes.
        dataset: :class:`~spark_bench.data.pictures.Pictures`.
        indices: numbers of pictures.
    """
    spark = getattr(model, 'module', model).spark
    side = spark.grid * spark.encoder.stride
    return np.stack([np.asarray(dataset.read(index)[0].resize((side, side))) for index in indices])


@torch.no_grad()
def reconstruct(model, pixels):
    """Reconstruct pictures, leaving the model's mode, its statistics and all random generators as they are.

    Args:
        model: see :func:`load_pictures`.
        pixels: uint8 (n, H, W, 3).

    Returns:
        dict of uint8 arrays (n, H, W, 3): ``original``, ``masked``, ``reconstruction``, ``pasted``.
    """
    model = getattr(model, 'module', model)
    spark, training = model.spark, model.spark.training
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    preprocessor = model.data_preprocessor
    normalised = preprocessor({'inputs': list(images)}, False)['inputs']
    generator = torch.Generator().manual_seed(SHOWN_SEED)
    active = random_mask(len(images), spark.grid, spark.mask_ratio, generator, normalised.device)
    visible = expand_mask(active, *images.shape[-2:])
    spark.eval()
    try:
        prediction = spark.predict(normalised, active)
    finally:
        spark.train(training)
    pasted = spark.paint(normalised, prediction, active)
    reconstruction = spark.paint(normalised, prediction, torch.zeros_like(active))

    def to_pixels(batch):
        batch = batch * preprocessor.std + preprocessor.mean
        return batch.round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()

    return {'original': pixels, 'masked': to_pixels(normalised * visible), 'reconstruction': to_pixels(reconstruction),
            'pasted': to_pixels(pasted)}
