"""A profile as records, one a contestant: tables, and the ratios of two profiles, are made of them as of any others."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from spark_bench.errors import InputError
from spark_bench.profiling.contestants import MAE_ARCH, has_stock, methods_of_ours
from spark_bench.profiling.measuring import Figure
from spark_bench.records import environment, store
from spark_bench.records.schema import Record, record_path
from spark_bench.runs.recipe import Identity

TASK = 'profile'


def claim_records(results: str, suite: str, archs: Iterable[str], compiled: bool, stock: bool) -> None:
    """See, before anything is measured, that the records of a profile can be written.

    Raises:
        InputError: where one of them exists, or a folder may not be written to.
    """
    rows = [(arch, method) for arch in archs for method in methods_of_ours(compiled)]
    if stock:
        rows += [*((arch, 'mmpretrain') for arch in archs if has_stock(arch)), (MAE_ARCH, 'mae')]
    for arch, method in rows:
        path = record_path(results, 'measured', suite, TASK, arch, method, 0)
        if path.exists():
            raise InputError(f'{path} has an earlier profile: move it away, or choose another --suite')
        store.check_writable(results, 'measured', suite, TASK, arch, method, 0)


def write_records(
    results: str,
    suite: str,
    figures: Iterable[Figure],
    settings: Mapping[str, Any],
    started: datetime,
    data_root: str | None,
) -> list[Path]:
    """Write a record of each figure; of MAE, which is measured beside every network, the first.

    Args:
        settings: what was computed: equal ones make profiles of one configuration, wherever they were measured.
        started: when the profile was begun, in UTC.
        data_root: of the images; None for noise.
    """
    figures = list(figures)
    paths: dict[tuple[str, str], Path] = {}
    plain_s = {figure.arch: figure.seconds['step'] for figure in figures if figure.method == 'reference'}
    for figure in figures:
        row = figure.arch, figure.method
        if row not in paths:
            record = _record(suite, figure, plain_s.get(figure.arch), settings, started, data_root)
            paths[row] = store.write(record, results)
    return list(paths.values())


def metrics_of(figure: Figure, batch_size: int, plain_s: float | None) -> dict[str, float | None]:
    """The figure as metrics of a record: seconds, GB (10⁹ bytes), and 10⁹ multiply-adds a second.

    ``plain_s`` are the seconds that a step of the plain definition took in the same run, which ``speed_up`` is over.
    """
    encoder = figure.encoder_peak_bytes
    return {
        'images_per_s': batch_size / figure.seconds['step'],
        'speed_up': None if plain_s is None else plain_s / figure.seconds['step'],
        **{f'{name}_s': value for name, value in figure.seconds.items()},
        **{
            f'{part.replace(" ", "_")}_{way}_s': value
            for part, values in figure.parts.items()
            for way, value in zip(('forward', 'backward'), values, strict=True)
        },
        'peak_gb': figure.peak_bytes / 1e9,
        'encoder_peak_gb': None if encoder is None else encoder / 1e9,
        'gmacs': figure.macs / 1e9,
        'traffic_gb': None if figure.bytes is None else figure.bytes / 1e9,
        'matrix_gmacs_per_s': figure.matrix_rate / 1e9,
        'bandwidth_gb_per_s': figure.bandwidth / 1e9,
        'matrix_share': figure.matrix_share,
        'bandwidth_share': figure.bandwidth_share,
        'loss': figure.value,
    }


def _record(suite, figure, plain_s, settings, started, data_root):
    recipe = {**settings, 'arch': figure.arch, 'method': figure.method}
    data = 'noise' if data_root is None else str(data_root)
    identity = Identity(TASK, recipe, data, None, None).hash
    return Record(
        origin='measured',
        suite=suite,
        task=TASK,
        arch=figure.arch,
        method=figure.method,
        seed=0,
        metrics=metrics_of(figure, settings['batch_size'], plain_s),
        config_hash=identity,
        setup_hash=identity,
        recipe=recipe,
        config=f'spark-bench profile {figure.arch}',
        dataset={
            'name': Path(data).resolve().name or 'images',
            'sha256': None,
            'root': data,
            'train_images': 0,
            'val_images': 0,
        },
        environment=environment.collect_environment(),
        started_at=started.isoformat(timespec='seconds'),
        wall_time_s=round((datetime.now(timezone.utc) - started).total_seconds(), 2),
    )
