"""Pretraining: pictures in, an encoder's weights and a record out."""

import numpy as np
import torch

from pretrain.ablations import get_ablation
from pretrain.masking import expand_mask, random_mask
from spark_bench import checkpoints
from spark_bench.data.pictures import find_pictures, fingerprint, read_picture
from spark_bench.engine.runs import Run, load_config, set_epochs
from spark_bench.errors import InputError
from spark_bench.models.backbones import pyramid_channels

# Reconstructions are made of these many pictures, with masks from a fixed seed: the same for every method.
SHOWN_PICTURES = 6
SHOWN_SEED = 2023


def run(options):
    """Pretrain once, unless the record of this very run exists; return the record.

    The work directory then holds ``encoder.safetensors`` (the encoder in timm's names), the config, the logs
    and ``reconstructions.npz``.

    Raises:
        InputError, RunError: see :mod:`spark_bench.errors`.
    """
    files = find_pictures(options.data_root)
    cfg = load_config(options)
    cfg.model.arch = options.arch or cfg.model.arch
    cfg.model.ablation = options.ablation or cfg.model.ablation
    pyramid_channels(cfg.model.arch)
    set_epochs(cfg, max(1, round(cfg.train_cfg.max_epochs * get_ablation(cfg.model.ablation).schedule_scale)))
    if len(files) < cfg.train_dataloader.batch_size:
        raise InputError(f'{options.data_root} holds {len(files)} pictures, fewer than one batch of '
                         f'{cfg.train_dataloader.batch_size}: lower train_dataloader.batch_size with --cfg-options')
    this = Run('pretrain', options, cfg, cfg.model.arch, fingerprint(options.data_root, files))
    encoder = this.work_dir / 'encoder.safetensors'
    record = this.existing()
    # What comes after needs the weights: where only the record is left, they are made again.
    if record is not None and encoder.is_file():
        return record
    cfg.train_dataloader.dataset.root = str(options.data_root)
    runner = this.train()
    checkpoints.save(runner.model.spark.encoder.pyramid.network, encoder, {
        'format': 'timm', 'arch': this.arch, 'method': options.method, 'config_hash': this.config_hash})
    pictures = this.work_dir / 'reconstructions.npz'
    np.savez_compressed(pictures, **reconstruct(runner.model, files))
    curve = runner.message_hub.get_scalar('train/loss').data[0]
    last = max(1, len(curve) // 10)
    return this.write_record(
        runner, {'loss': float(curve[-last:].mean())},
        dataset={'name': this.data_name, 'sha256': this.data_sha256, 'root': str(options.data_root),
                 'train_images': len(files), 'val_images': 0},
        artifacts={'encoder': encoder, 'reconstructions': pictures})


@torch.no_grad()
def reconstruct(model, files):
    """Reconstruct a few pictures with fixed masks.

    Args:
        model: :class:`~spark_bench.models.pretrainer.SparKPretrainer`.
        files: picture paths; evenly spaced ones are taken.

    Returns:
        dict of uint8 arrays (n, H, W, 3): ``original``, ``masked``, ``reconstruction``, ``pasted``.
    """
    spark = model.spark.eval()
    side = spark.grid * spark.encoder.stride
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, min(SHOWN_PICTURES, len(files))).astype(int)]
    pixels = np.stack([np.asarray(read_picture(path).resize((side, side))) for path in chosen])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    normalised = model.data_preprocessor({'inputs': list(images)}, False)['inputs']
    generator = torch.Generator().manual_seed(SHOWN_SEED)
    active = random_mask(len(images), spark.grid, spark.mask_ratio, generator, normalised.device)
    visible = expand_mask(active, side, side)
    prediction = spark.predict(normalised, active)
    pasted = spark.paint(normalised, prediction, active)
    reconstruction = spark.paint(normalised, prediction, torch.zeros_like(active))
    preprocessor = model.data_preprocessor

    def to_pixels(batch):
        batch = batch * preprocessor.std + preprocessor.mean
        return batch.round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()

    return {'original': pixels, 'masked': to_pixels(normalised * visible), 'reconstruction': to_pixels(reconstruction),
            'pasted': to_pixels(pasted)}
