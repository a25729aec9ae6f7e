"""Pretraining: images in, an encoder's weights and a record out."""

import os

import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner
from timm.utils import unwrap_model

from pretrain.ablations import get_ablation
from spark_bench import checkpoints
from spark_bench.data.images.sources import open_images
from spark_bench.errors import InputError
from spark_bench.evaluation.accuracy import evaluations
from spark_bench.files import write_atomically
from spark_bench.models.backbones import pyramid_channels
from spark_bench.records.schema import Record
from spark_bench.runs.inputs import Start
from spark_bench.runs.options import PretrainOptions
from spark_bench.runs.overrides import set_length, set_workers
from spark_bench.runs.run import Run
from spark_bench.training.reconstruction import load_images, reconstruct
from spark_bench.training.resume import bad_images


class Pretraining(Run[PretrainOptions]):
    """One pretraining.

    The work directory then holds ``encoder.safetensors`` (the encoder in timm's names), ``spark.safetensors`` (the
    whole model), the config, the logs, ``reconstructions.npz`` and, where images were skipped,
    ``bad_images.txt``.
    """

    task, embedded, needed = 'pretrain', 'unlabelled', ('loss',)
    Options = PretrainOptions

    def start(self, options: PretrainOptions, cfg: Config) -> Start:
        """Nothing: its method is the ablation."""
        ablation = options.ablation or cfg.model.ablation
        get_ablation(ablation)
        return Start(options.weights, options.method or ablation)

    def open_data(self) -> str:
        self.source = open_images(self.options.data_root)
        return self.source.fingerprint()

    @classmethod
    def fit_recipe(cls, cfg: Config, options: PretrainOptions, classes: int = 0) -> None:
        cfg.model.arch = options.arch or cfg.model.arch
        cfg.model.ablation = options.ablation or cfg.model.ablation
        pyramid_channels(cfg.model.arch)
        side, given = cfg.model.get('input_size', 224), cfg.train_dataloader.dataset.get('input_size')
        if given not in (None, side):
            raise InputError(f'model.input_size is {side}, but train_dataloader.dataset.input_size is {given}: change '
                             'both with --cfg-options')
        set_length(cfg, max(1, round(cfg.train_cfg.max_epochs * get_ablation(cfg.model.ablation).schedule_scale)))
        super().fit_recipe(cfg, options, classes)
        if options.bad_images is not None:
            cfg.train_dataloader.dataset.bad_images = options.bad_images
        if options.image_interval is not None:
            for hook in cfg.custom_hooks:
                if hook.type == 'TensorBoardHook':
                    hook.image_interval = options.image_interval

    def images_to_learn_from(self) -> int:
        return len(self.source)

    def place(self) -> None:
        super().place()
        self.cfg.model.channels_last = self.cfg.get('channels_last', False)
        self.cfg.train_dataloader.dataset.root = self.options.data_root
        set_workers(self.cfg.train_dataloader, self.options.workers)
        if self.options.probe is not None:
            # No part of the recipe, as no weight depends on it; ahead of what writes down what it measures.
            self.cfg.custom_hooks = [
                dict(type='ProbeHook', root=self.options.probe_data, interval=self.options.probe_interval,
                     arch=self.arch, input_size=self.cfg.model.get('input_size', 224),
                     workers=self.cfg.train_dataloader.num_workers),
                *self.cfg.custom_hooks]

    def existing(self) -> Record | None:
        """The record, where both it and the weights that the next step needs are there."""
        record = super().existing()
        return record if (self.work_dir / 'encoder.safetensors').is_file() else None

    def predict(self, runner: Runner) -> None:
        """Agree on the images that were passed over."""
        self.bad = bad_images(runner)

    def finish(self, runner: Runner) -> Record:
        model, dataset = unwrap_model(runner.model), runner.train_dataloader.dataset
        artifacts = self._save_weights(model)
        artifacts['reconstructions'] = self.work_dir / 'reconstructions.npz'
        images = reconstruct(model, load_images(model, dataset))
        np.savez_compressed(artifacts['reconstructions'], **images)  # type: ignore[arg-type]
        curve = runner.message_hub.get_scalar('train/loss').data[0]
        metrics = {'loss': float(curve[-max(1, len(curve) // 10):].mean())}
        if dataset.skips:
            artifacts['bad_images'] = self.work_dir / 'bad_images.txt'
            write_atomically(artifacts['bad_images'], b''.join(os.fsencode(name) + b'\n' for name in self.bad))
            metrics['skipped_images'] = len(self.bad)
            runner.logger.info(f'{len(self.bad)} of {len(self.source)} images could not be read and were passed over'
                               + (f'; their names are in {artifacts["bad_images"]}' if self.bad else ''))
        probed = [[entry['epoch'], entry['knn']] for entry in evaluations(runner)]
        return self.write_training_record(
            runner, metrics, {'train_images': len(self.source), 'val_images': 0}, artifacts,
            **({'top1_knn': probed} if probed else {}))

    def _save_weights(self, model) -> dict:
        """Write the encoder in timm's names and the whole model; return their paths by name."""
        cfg = self.cfg
        paths = {'encoder': self.work_dir / 'encoder.safetensors', 'spark': self.work_dir / 'spark.safetensors'}
        common = {'arch': self.arch, 'method': self.options.method, 'config_hash': self.identity.hash,
                  'setup_hash': self.setup_hash}
        checkpoints.save(model.spark, paths['spark'], {
            'format': 'spark', **common, 'input_size': str(cfg.model.input_size),
            'mask_ratio': str(cfg.model.mask_ratio), 'ablation': cfg.model.ablation,
            'decoder_width': str(cfg.model.get('decoder_width', 768)), 'patch_size': str(model.spark.patch_size),
            'epochs': str(cfg.train_cfg.max_epochs)})
        checkpoints.save(model.spark.encoder.pyramid.network, paths['encoder'], {'format': 'timm', **common})
        return paths
