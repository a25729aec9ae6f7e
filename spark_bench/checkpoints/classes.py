"""What the outputs of a trained detector or classifier stand for: names, kept in the file beside the weights."""

import json
from pathlib import Path

from spark_bench.checkpoints.reading import read_file


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
