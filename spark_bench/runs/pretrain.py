"""Pretraining by any method: images in, an encoder's weights and a record out."""

import os

import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner
from timm.utils import unwrap_model

from spark_bench import checkpoints
from spark_bench.checkpoints.writing import save_safetensors
from spark_bench.data.images.labelled import fingerprint, open_labelled
from spark_bench.data.images.sources import open_images
from spark_bench.errors import InputError
from spark_bench.evaluation.accuracy import evaluations
from spark_bench.files import write_atomically
from spark_bench.models.methods import get_method
from spark_bench.models.pretraining import PretrainingModel, pretrainer_of
from spark_bench.records.schema import Record
from spark_bench.runs.inputs import Start
from spark_bench.runs.options import PretrainOptions
from spark_bench.runs.overrides import set_length, set_workers, unit_of
from spark_bench.runs.run import Run
from spark_bench.training.reconstruction import load_images, reconstruct
from spark_bench.training.resume import bad_images


class Pretraining(Run[PretrainOptions]):
    """One pretraining.

    The work directory then holds ``encoder.safetensors`` (the encoder in timm's names), the whole model
    (``spark.safetensors``, or by the name of the method), the config, the logs, ``reconstructions.npz`` where the
    method reconstructs and, where images were skipped, ``bad_images.txt``.
    """

    task, needed = 'pretrain', ('loss',)
    Options = PretrainOptions

    def start(self, options: PretrainOptions, cfg: Config) -> Start:
        """Nothing: its method is the recipe's, or the one that is asked for."""
        self.kind = pretrainer_of(cfg, options.config)
        self.embedded = self.kind.data
        return Start(options.weights, _method(self.kind, cfg, options))

    def open_data(self) -> str:
        if self.kind.labelled:
            train, val = open_labelled(self.options.data_root)
            self.source, self.class_names = train.source, train.classes
            return fingerprint(train, val)
        self.source, self.class_names = open_images(self.options.data_root), ()
        return self.source.fingerprint()

    def classes(self) -> int:
        return len(self.class_names)

    @classmethod
    def fit_recipe(cls, cfg: Config, options: PretrainOptions, classes: int = 2) -> None:
        kind = pretrainer_of(cfg, options.config)
        method = _method(kind, cfg, options)
        cfg.model.arch = options.arch or cfg.model.arch
        if kind.labelled:
            cfg.model.num_classes = classes
        kind.check(cfg)
        _check_dataset(kind, cfg)
        unit, scale = unit_of(cfg), get_method(method).schedule_scale
        length = cfg.train_cfg[unit] * scale
        if length != round(length):
            raise InputError(
                f'{method} trains for {scale:g} of the recipe, which is no whole number of its {cfg.train_cfg[unit]} '
                f'{unit.removeprefix("max_")}: give another train_cfg.{unit}'
            )
        set_length(cfg, round(length), unit)
        if cfg.train_dataloader.dataset.get('fraction') is not None:
            raise InputError(
                f'config {options.config}: train_dataloader.dataset.fraction: a pretraining takes all images: take it '
                'out, and give a folder of fewer'
            )
        super().fit_recipe(cfg, options, classes)
        if not kind.accumulates and cfg.train_cfg.accumulate > 1:
            raise InputError(
                f'{method} cannot sum the gradients of {cfg.train_cfg.accumulate} batches for an update, '
                'its slow copy moves with every batch: leave --batch-size and --accumulate away, start '
                'more processes, or lower global_batch with --cfg-options'
            )
        if options.bad_images is not None:
            if kind.labelled:
                raise InputError(
                    f'--bad-images has no meaning for {method}, which stops at an image that cannot be '
                    'read: leave it away'
                )
            cfg.train_dataloader.dataset.bad_images = options.bad_images
        if options.image_interval is not None:
            if options.image_interval and kind.reconstruct is PretrainingModel.reconstruct:
                raise InputError(
                    f'--image-interval has no meaning for {method}, which reconstructs nothing: leave it away'
                )
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
            dataset = self.cfg.train_dataloader.dataset
            side = dataset.get('input_size') or dataset.get('transform', {}).get('input_size')
            # No part of the recipe, as no weight depends on it; ahead of what writes down what it measures.
            self.cfg.custom_hooks = [
                dict(
                    type='ProbeHook',
                    root=self.options.probe_data,
                    interval=self.options.probe_interval,
                    arch=self.arch,
                    input_size=side or self.kind.side(self.cfg.model),
                    workers=self.cfg.train_dataloader.num_workers,
                ),
                *self.cfg.custom_hooks,
            ]

    def existing(self) -> Record | None:
        """The record, where both it and the weights that the next step needs are there."""
        record, encoder = super().existing(), self.work_dir / 'encoder.safetensors'
        if not encoder.is_file() or checkpoints.read_metadata(encoder).get('config_hash') != self.identity.hash:
            return None
        if record is not None and self.options.probe is not None:
            self.warn_unmeasured(record, '--probe', 'top1_knn' in record.curves)
        return record

    def predict(self, runner: Runner) -> None:
        """Agree on the images that were passed over."""
        self.bad = bad_images(runner)

    def finish(self, runner: Runner) -> Record:
        model, dataset = unwrap_model(runner.model), runner.train_dataloader.dataset
        artifacts = self._save_weights(model)
        if model.shown_side is not None:
            artifacts['reconstructions'] = self.work_dir / 'reconstructions.npz'
            images = reconstruct(model, load_images(model, dataset))
            np.savez_compressed(artifacts['reconstructions'], **images)  # type: ignore[arg-type]
        curve = runner.message_hub.get_scalar('train/loss').data[0]
        metrics = {'loss': float(curve[-max(1, runner.max_iters // 10) :].mean())}
        if getattr(dataset, 'skips', False):
            artifacts['bad_images'] = self.work_dir / 'bad_images.txt'
            write_atomically(artifacts['bad_images'], b''.join(os.fsencode(name) + b'\n' for name in self.bad))
            metrics['skipped_images'] = len(self.bad)
            runner.logger.info(
                f'{len(self.bad)} of {len(self.source)} images could not be read and were passed over'
                + (f'; their names are in {artifacts["bad_images"]}' if self.bad else '')
            )
        probed = [[entry['epoch'], entry['knn']] for entry in evaluations(runner)]
        return self.write_training_record(
            runner,
            metrics,
            {'train_images': len(self.source), 'val_images': 0},
            artifacts,
            **({'top1_knn': probed} if probed else {}),
        )

    def _save_weights(self, model) -> dict:
        """Write the encoder in timm's names and the whole model; return their paths by name."""
        encoder = model.encoder()
        paths = {name: self.work_dir / f'{name}.safetensors' for name in ('encoder', model.file)}
        common = {
            'arch': self.arch,
            'method': self.options.method,
            'config_hash': self.identity.hash,
            'setup_hash': self.setup_hash,
        }
        checkpoints.save(
            model.trained,
            paths[model.file],
            {
                **model.settings(),
                **common,
                unit_of(self.cfg).removeprefix('max_'): str(self.cfg.train_cfg[unit_of(self.cfg)]),
            },
        )
        save_safetensors(encoder, paths['encoder'], {'format': 'timm', **common})
        return paths


def _method(kind: type[PretrainingModel], cfg: Config, options: PretrainOptions) -> str:
    """The method that options and recipe name, settled in the recipe; raises InputError where they do not agree."""
    if None not in (options.method, options.ablation) and options.method != options.ablation:
        raise InputError(f'--method {options.method} and --ablation {options.ablation} are two methods: give one')
    asked = options.method or options.ablation
    if asked is not None:
        get_method(asked)
    return kind.settle(cfg.model, asked)


def _check_dataset(kind, cfg):
    """Refuse a data set that gives the model other images than it takes. Raises InputError naming the key."""
    dataset, place = cfg.train_dataloader.dataset, 'train_dataloader.dataset'
    if (dataset.get('type') == 'ClassImages') != kind.labelled:
        raise InputError(
            f'{place}.type is {dataset.get("type")}: {kind.methods[0]} learns from '
            f'{"ClassImages" if kind.labelled else "Images"}'
        )
    side, given = kind.side(cfg.model), dataset.get('input_size')
    if side is not None and given not in (None, side):
        raise InputError(
            f'model.input_size is {side}, but {place}.input_size is {given}: change both with --cfg-options'
        )
    views = (dataset.get('views') or {}).get('type', 'spark')
    if kind.views and views not in kind.views:
        raise InputError(f'{place}.views.type is {views!r}: {kind.methods[0]} takes {" or ".join(kind.views)}')
