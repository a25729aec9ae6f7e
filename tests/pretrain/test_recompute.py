"""Maps that are made again for the backward pass: to the bit what they were, and far fewer of them are kept."""

import pytest
import torch
from torch import nn

from pretrain import build_spark, random_mask
from pretrain.encoder import build_encoder
from pretrain.masking import VisibleLayout
from pretrain.sparse import recompute


def step(arch, precision):
    """The loss of a step with stochastic depth, all gradients, and the statistics behind it."""
    torch.manual_seed(0)
    model = build_spark(arch, 96, decoder_width=32, drop_path_rate=0.3)
    image, active = torch.randn(4, 3, 96, 96), random_mask(4, 3, 0.6)
    with torch.autocast('cpu', precision, enabled=precision != torch.float32):
        loss = model(image, active)
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters()), *model.buffers()]


@pytest.mark.parametrize(
    'arch, precision',
    [
        ('resnet18', torch.bfloat16),
        ('resnet50d', torch.float32),
        ('mobilenetv3_small_100', torch.float32),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ('resnet18', torch.float32),
                ('resnet50d', torch.bfloat16),
                ('efficientnet_b0', torch.float32),
                ('efficientnet_b0', torch.bfloat16),
                ('mobilenetv3_small_100', torch.bfloat16),
            )
        ),
    ],
    ids=str,
)
def test_sums_made_again_change_no_bit(arch, precision, monkeypatch):
    made_again = step(arch, precision)
    monkeypatch.setattr(recompute, 'MOST_SUMS', 0)
    for ours, theirs in zip(made_again, step(arch, precision), strict=True):
        assert torch.equal(ours, theirs)


def kept_bytes(engine):
    """What autograd keeps of a ResNet-50 in the paper's setting, its weights left out."""
    encoder = build_encoder('resnet50', engine)
    layout = VisibleLayout(random_mask(1, 7, 0.6))
    known, kept = {p.untyped_storage().data_ptr() for p in encoder.parameters()}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage, storage.nbytes()  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        maps = encoder.maps(encoder.masked(torch.randn(1, 3, 224, 224), layout), layout)
    assert maps[0].requires_grad
    return sum(size for _, size in kept.values())


def test_less_is_kept_than_the_share_of_visible_patches():
    assert kept_bytes('packed') < 20 / 49 * kept_bytes('reference')


def test_a_shortcut_that_was_changed_is_never_added_again():
    norm, branch = nn.BatchNorm2d(2), torch.randn(3, 2, 1, 1)
    recipe, shortcut = recompute.NormedActivation(norm, branch), torch.randn(3, 2, 1, 1)
    of_sum = recompute.recipe_of_sum(branch, shortcut, recipe, None)
    assert torch.equal(of_sum.make(), norm(branch) + shortcut)
    shortcut.mul_(2)
    with pytest.raises(RuntimeError, match='changed in place'):
        of_sum.make()
