"""Pretraining: pictures in, an encoder's weights and a record out."""

import os

import numpy as np

from pretrain.ablations import get_ablation
from spark_bench import checkpoints
from spark_bench.data.images.sources import open_pictures, spread
from spark_bench.engine import processes
from spark_bench.engine.batches import batch_key, fit_batch
from spark_bench.engine.overrides import set_epochs, set_speed, set_workers
from spark_bench.engine.reconstruction import SHOWN_PICTURES, load_pictures, reconstruct
from spark_bench.engine.resume import bad_pictures
from spark_bench.engine.runs import Run, load_config
from spark_bench.errors import InputError, RunError
from spark_bench.files import write_atomically
from spark_bench.models.backbones import pyramid_channels


def run(options):
    """Pretrain once, unless the record of this very run exists; return the record.

    The work directory then holds ``encoder.safetensors`` (the encoder in timm's names), ``spark.safetensors`` (the
    whole model), the config, the logs, ``reconstructions.npz`` and, where pictures were skipped,
    ``bad_pictures.txt``. In several processes, the first alone writes.

    Raises:
        InputError, RunError: see :mod:`spark_bench.errors`.
    """
    processes.join(options.launcher)
    try:
        this, source = _prepare(options)
        record = processes.from_main(lambda: _finished(this))
    except (InputError, RunError) as error:
        # Every process finds what is wrong at the start; one line is enough.
        error.told = not processes.is_main_process()
        raise
    if record is None:
        record = _train(this, source)
    processes.leave()
    return record


def _train(this, source):
    runner = this.train()
    bad = bad_pictures(runner)
    return processes.from_main(lambda: _finish(this, runner, source, bad))


def check_recipe(options):
    """Raise :class:`InputError` for what can be refused without data."""
    cfg = _fitted_config(options)
    fit_batch(cfg, options)
    _apply_options(cfg, options)


def _fitted_config(options):
    """The config with what follows from architecture and ablation."""
    cfg = load_config(options)
    cfg.model.arch = options.arch or cfg.model.arch
    cfg.model.ablation = options.ablation or cfg.model.ablation
    pyramid_channels(cfg.model.arch)
    side, given = cfg.model.get('input_size', 224), cfg.train_dataloader.dataset.get('input_size')
    if given not in (None, side):
        raise InputError(f'model.input_size is {side}, but train_dataloader.dataset.input_size is {given}: change both '
                         'with --cfg-options')
    set_epochs(cfg, max(1, round(cfg.train_cfg.max_epochs * get_ablation(cfg.model.ablation).schedule_scale)))
    return cfg


def _prepare(options):
    """``(run, pictures)``: everything that can be refused before training."""
    source = open_pictures(options.data_root)
    cfg = _fitted_config(options)
    global_batch = fit_batch(cfg, options)
    if len(source) < global_batch:
        raise InputError(f'{options.data_root} holds {len(source)} pictures, fewer than one batch of '
                         f'{global_batch}: lower it with --cfg-options {batch_key(cfg)}=…')
    batch_size = cfg.train_dataloader.pop('batch_size') if 'global_batch' in cfg else None
    _apply_options(cfg, options)
    this = Run('pretrain', options, cfg, cfg.model.arch, source.fingerprint())
    # From here on places, and what only decides how fast it goes.
    if batch_size is not None:
        cfg.train_dataloader.batch_size = batch_size
    else:
        cfg.train_dataloader.batch_size = global_batch // processes.get_world_size() // cfg.train_cfg.accumulate
    cfg.model.channels_last = cfg.get('channels_last', False)
    cfg.train_dataloader.dataset.root = str(options.data_root)
    cfg.train_dataloader.sampler.update(seed=options.seed, global_batch=global_batch)
    return this, source


def _apply_options(cfg, options):
    set_speed(cfg, options)
    set_workers(cfg.train_dataloader, options.workers)
    if options.bad_pictures is not None:
        cfg.train_dataloader.dataset.bad_pictures = options.bad_pictures
    if options.picture_interval is not None:
        for hook in cfg.custom_hooks:
            if hook.type == 'TensorBoardHook':
                hook.picture_interval = options.picture_interval


def _finished(this):
    """The record, where both it and the weights that the next step needs are there."""
    record = this.existing()
    return record if (this.work_dir / 'encoder.safetensors').is_file() else None


def _finish(this, runner, source, bad):
    """Write weights, reconstructions and the record, which is returned."""
    model = getattr(runner.model, 'module', runner.model)
    artifacts = _save_weights(this, model)
    artifacts['reconstructions'] = this.work_dir / 'reconstructions.npz'
    pixels = load_pictures(model, runner.train_dataloader.dataset, spread(source, SHOWN_PICTURES))
    np.savez_compressed(artifacts['reconstructions'], **reconstruct(model, pixels))
    curve = runner.message_hub.get_scalar('train/loss').data[0]
    last = max(1, len(curve) // 10)
    metrics = {'loss': float(curve[-last:].mean())}
    if runner.train_dataloader.dataset.skips:
        artifacts['bad_pictures'] = this.work_dir / 'bad_pictures.txt'
        write_atomically(artifacts['bad_pictures'], b''.join(os.fsencode(name) + b'\n' for name in bad))
        metrics['skipped_pictures'] = len(bad)
        runner.logger.info(f'{len(bad)} of {len(source)} pictures could not be read and were passed over'
                           + (f'; their names are in {artifacts["bad_pictures"]}' if bad else ''))
    return this.write_record(
        runner, metrics,
        dataset={'name': this.data_name, 'sha256': this.data_sha256, 'root': str(this.options.data_root),
                 'train_images': len(source), 'val_images': 0},
        artifacts=artifacts)


def _save_weights(this, model):
    """Write the encoder in timm's names and the whole model; return their paths by name."""
    cfg = this.cfg
    paths = {'encoder': this.work_dir / 'encoder.safetensors', 'spark': this.work_dir / 'spark.safetensors'}
    common = {'arch': this.arch, 'method': this.options.method, 'config_hash': this.config_hash,
              'setup_hash': this.setup_hash}
    checkpoints.save(model.spark, paths['spark'], {
        'format': 'spark', **common, 'input_size': str(cfg.model.input_size), 'mask_ratio': str(cfg.model.mask_ratio),
        'ablation': cfg.model.ablation, 'decoder_width': str(cfg.model.get('decoder_width', 768)),
        'patch_size': str(model.spark.patch_size), 'epochs': str(cfg.train_cfg.max_epochs)})
    checkpoints.save(model.spark.encoder.pyramid.network, paths['encoder'], {'format': 'timm', **common})
    return paths
