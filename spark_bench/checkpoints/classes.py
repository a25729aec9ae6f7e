"""What the outputs of a trained detector or classifier stand for: names, kept in the file beside the weights."""

import json
from pathlib import Path

from spark_bench.checkpoints.contents import open_checkpoint
from spark_bench.checkpoints.files.reading import read_file
from spark_bench.checkpoints.naming import CLASSIFIERS
from spark_bench.errors import InputError, printable

_SHOWN = 4


def classes_of(path: Path | str) -> tuple[str, ...] | None:
    """The names of the classes that a file was trained on, in the order of its outputs; None where it does not tell.

    Args:
        path: ``detector.safetensors`` or ``classifier.safetensors`` of a work directory, which keep them in their
            header, or a ``.pth`` of OpenMMLab, which keeps them under ``meta`` (``dataset_meta`` since version 3 of
            mmdet, ``CLASSES`` before).

    Raises:
        InputError: where the file cannot be read.
    """
    classes = read_file(path).metadata.get('classes')
    try:
        names = json.loads(classes)
    except (TypeError, ValueError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def outputs_of(path: Path | str, key_prefix: str | None = None) -> int | None:
    """How many classes a file's classifier tells apart, by the rows of its last matrix; None where it has none.

    Raises:
        InputError: where the file cannot be read.
    """
    contents = open_checkpoint(path, key_prefix)
    heads = [shape for name, shape in contents.shapes('head').items() if name.endswith('weight') and len(shape) > 1]
    if contents.naming.family is None:
        names = contents.naming.canonical
        heads = [
            tuple(contents.file.tensors[name].shape)
            for name, target in names.items()
            if target.startswith(CLASSIFIERS) and target.endswith('weight')
        ]
    return heads[-1][0] if heads else None


def demand_distinct(classes: tuple[str, ...], path: Path | str) -> None:
    """Raise InputError where a name stands for two outputs: which of them the data mean, nobody can tell."""
    twice = sorted({name for name in classes if classes.count(name) > 1}) if len(set(classes)) < len(classes) else []
    if twice:
        raise InputError(
            f'{path} names {len(twice)} classes twice ({shown(twice)}): its outputs cannot be told apart '
            'by name, and only a file of distinct names can be evaluated'
        )


def shown(classes: list[str] | tuple[str, ...]) -> str:
    """The first names of classes, quoted, for a message."""
    names = [printable(repr(name))[:60] for name in classes[:_SHOWN]]
    return ', '.join(names) + (' …' if len(classes) > _SHOWN else '')
