"""Which SparK model with decoder a file holds: the arguments that build it again."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pretrain.networks import shapes_only
from pretrain.spark import build_spark
from spark_bench.checkpoints.architectures import squeeze
from spark_bench.checkpoints.naming import PRETRAINING
from spark_bench.errors import InputError

if TYPE_CHECKING:
    from spark_bench.checkpoints.contents import Contents

# Ablations whose models differ in their tensors.
_STRUCTURES = ('spark', 'no_hierarchy', 'black_mosaic', 'ape')
_WIDTH = 'decoder.dec.0.up_sample.weight'


def stated_settings(contents: 'Contents') -> dict[str, Any]:
    """What a file says of its pretraining model, in whatever container; the paper's values where it is silent.

    The decoder's width is that of its tensors.

    Returns:
        dict of ``input_size``, ``mask_ratio``, ``ablation`` (None where it is silent), ``decoder_width`` and
        ``patch_size`` (None for the network's stride).

    Raises:
        InputError: for values that make no sense.
    """
    said = contents.file.metadata
    width = contents.shapes('decoder').get(_WIDTH) or (said.get('dense_decoder.width', 768),)
    try:
        settings = dict(
            input_size=int(said.get('input_size', said.get('sparse_encoder.input_size', 224))),
            mask_ratio=float(said.get('mask_ratio', 0.6)),
            ablation=said.get('ablation'),
            decoder_width=int(width[0]),
            patch_size=int(said['patch_size']) if 'patch_size' in said else None,
        )
        if not (settings['input_size'] > 0 and 0 < settings['mask_ratio'] < 1 and settings['decoder_width'] > 0):
            raise ValueError(', '.join(f'{name} {value}' for name, value in settings.items()))
    except (ValueError, OverflowError) as error:
        raise InputError(
            f'the header of {contents.file.path} is not one of a pretraining model ({error}): pretrain again'
        ) from error
    return settings


def spark_settings(contents: 'Contents') -> dict[str, Any]:
    """Arguments of :func:`pretrain.build_spark` for the model that a file with decoder holds, ``arch`` among them.

    Raises:
        InputError: where the decoder is not whole, or the file's values make no sense.
    """
    settings = {'arch': contents.arch, **stated_settings(contents)}
    stated, found = settings['ablation'], contents.shapes('decoder')
    faults = {}
    for ablation in _STRUCTURES if stated is None else (stated,):
        with shapes_only():
            model = build_spark(**{**settings, 'ablation': ablation})
        wanted = {
            name: tuple(value.shape) for name, value in model.state_dict().items() if name.startswith(PRETRAINING)
        }
        faults[ablation] = sorted(
            name
            for name in wanted.keys() | found.keys()
            if not name.endswith('num_batches_tracked')
            and squeeze(wanted.get(name, (0,))) != squeeze(found.get(name, (0,)))
        )
        if not faults[ablation]:
            return {**settings, 'ablation': ablation}
    least = min(faults.values(), key=len)
    raise InputError(
        f'{contents.file.path} holds no whole decoder: {least[0]} is missing, of another shape or of no '
        f'place in it, {len(least)} tensors in all'
    )


def as_call(settings: Mapping[str, Any]) -> str:
    """The call that builds the model, as Python; what the paper has is not repeated."""
    usual = dict(input_size=224, mask_ratio=0.6, ablation='spark', decoder_width=768, patch_size=None)
    words = [f'{name}={value!r}' for name, value in settings.items() if name in usual and value != usual[name]]
    return f'pretrain.build_spark({", ".join([repr(settings["arch"]), *words])})'
