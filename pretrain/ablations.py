"""The ablations of the paper by name, and what each one changes. Knows no torch: the command line reads it."""

from dataclasses import dataclass

from pretrain.errors import InputError


@dataclass(frozen=True)
class Ablation:
    """What one row of the ablation table changes against SparK itself.

    Attributes:
        summary: one line for a person.
        sparse_encoder: the encoder computes visible patches only.
        mask_tokens: masked positions of the densified maps hold a learnt token.
        hierarchy: all four scales reach the decoder, not the deepest alone.
        position_embedding: a fixed 2-D sin-cos embedding is added to every densified map.
        loss_on_all: the loss averages over all patches, not the masked ones alone.
        schedule_scale: factor on the number of pretraining epochs.
        pretrains: False for the baseline that skips pretraining.
    """

    summary: str
    sparse_encoder: bool = True
    mask_tokens: bool = True
    hierarchy: bool = True
    position_embedding: bool = False
    loss_on_all: bool = False
    schedule_scale: float = 1.0
    pretrains: bool = True


ABLATIONS = {
    'spark': Ablation('masked pretraining with sparse convolution and a hierarchical decoder'),
    'no_sparse': Ablation(
        'an ordinary dense encoder on the image with its masked pixels set to zero', sparse_encoder=False
    ),
    'black_mosaic': Ablation(
        'the blacked-out image through a dense encoder, without mask tokens', sparse_encoder=False, mask_tokens=False
    ),
    'no_hierarchy': Ablation('only the deepest feature map reaches the decoder', hierarchy=False),
    'ape': Ablation(
        'absolute position embedding added to every feature map that reaches the decoder', position_embedding=True
    ),
    'loss_on_all': Ablation('the loss over visible patches too, not the masked ones alone', loss_on_all=True),
    'half_schedule': Ablation('half the epochs of pretraining', schedule_scale=0.5),
    'scratch': Ablation('no pretraining', pretrains=False),
}


def get_ablation(name: str) -> Ablation:
    """Return the :class:`Ablation` called ``name``; raise :class:`InputError` for any other name."""
    if name not in ABLATIONS:
        raise InputError(f'unknown ablation {name!r}: choose one of {", ".join(ABLATIONS)}')
    return ABLATIONS[name]
