"""A part of a data set's training images held out: to choose values by, so that its val split stays unseen."""

import json
import os
import shutil
from pathlib import Path

from spark_bench.data.coco.annotations import read_annotations
from spark_bench.data.coco.subset import draw_images
from spark_bench.data.detection import check_images, open_split
from spark_bench.data.images.labelled import HELD_OUT
from spark_bench.errors import InputError
from spark_bench.files import new_folder


def hold_out(source: Path | str, output: Path | str, share: float = HELD_OUT, seed: int = 0) -> dict[str, int]:
    """Divide the train split of a folder in COCO layout, and write both parts as train and val of another.

    Classes need no such folder: where ``train/`` itself is given as a data root, a fifth of it is held out.

    Args:
        source: has ``annotations/instances_train*.json``; its val split is not looked at.
        output: folder to make. Images are hard links where the file system has them, else copies.
        share: of the images, held out as :func:`~spark_bench.data.coco.subset.draw_images` draws them.
        seed: of that draw.

    Returns:
        number of images by split.

    Raises:
        InputError: naming the file that is wrong, or the share that leaves nothing.
    """
    split = open_split(source, 'train')
    if os.path.realpath(output).startswith(os.path.join(os.path.realpath(split.images), '')):
        raise InputError(f'--output {output} lies among the images in {split.images}: give a folder elsewhere')
    check_images(split)
    held_out = draw_images({name: split.labels.get(name, ()) for name in split.sizes}, share, seed)
    parts = {'train': split.sizes.keys() - held_out, 'val': held_out}
    if not parts['train']:
        raise InputError(f'--share {share} of the {split.count} images of {split.annotations} leaves none: lower it')
    for name, chosen in parts.items():
        if not any(split.objects.get(file) for file in chosen):
            raise InputError(
                f'{split.annotations}: of --share {share} by --seed {seed} the part {name} has {len(chosen)} images '
                'without an object to learn from: choose another share or seed'
            )
    contents = read_annotations(split.annotations).contents
    with new_folder(output) as folder:
        (folder / 'annotations').mkdir()
        for name, chosen in parts.items():
            images = [entry for entry in contents['images'] if entry['file_name'] in chosen]
            numbers = {entry['id'] for entry in images}
            annotations = [entry for entry in contents['annotations'] if entry['image_id'] in numbers]
            text = json.dumps({**contents, 'images': images, 'annotations': annotations})
            (folder / 'annotations' / f'instances_{name}.json').write_text(text)
            for file in chosen:
                _link(split.images / file, folder / name / file)
    return {name: len(chosen) for name, chosen in parts.items()}


def _link(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
