"""SparK through torch.compile: one graph for all masks, and the numbers of the reference engine in eager mode."""

import copy

import pytest
import timm
import torch
from timm.models.resnet import Bottleneck, ResNet
from torch._dynamo.testing import CompileCounterWithBackend

from pretrain import build_spark, random_mask
from pretrain.encoder import FeaturePyramid

pytestmark = pytest.mark.skipif(not hasattr(torch.compiler, 'set_stance'), reason='--compile asks for torch 2.6')


def small_resnet50(attention=None):
    network = ResNet(
        Bottleneck, [1, 1, 1, 1], num_classes=0, channels=[8, 16, 24, 32], block_args=dict(attn_layer=attention)
    )
    return FeaturePyramid(network)


NETWORKS = {
    'test_resnet': lambda: 'test_resnet',
    'test_convnext': lambda: 'test_convnext',
    'bottlenecks': small_resnet50,
    'squeeze_excite': lambda: small_resnet50('se'),
    'efficientnet': lambda: FeaturePyramid(timm.create_model('test_efficientnet', num_classes=0)),
}


def build(network, engine='packed'):
    """SparK in float64, where rounding tips no ReLU over; no scale is zero, which would hide a branch."""
    torch.manual_seed(0)
    model = build_spark(NETWORKS[network](), 64, engine=engine, decoder_width=32, drop_path_rate=0.0).double()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model


def measured(model, image, active):
    """The loss and reconstruction of a step, its gradients, and the statistics behind it."""
    model.zero_grad()
    loss, painted = model(image, active, return_reconstruction=True)
    loss.backward()
    return {
        'loss': loss.detach(),
        'painted': painted.detach(),
        **{name: parameter.grad.clone() for name, parameter in model.named_parameters()},
        **{name: buffer.clone() for name, buffer in model.named_buffers()},
    }


def worst(ours, theirs):
    assert ours.keys() == theirs.keys()
    return max(
        ((ours[name] - theirs[name]).double().norm() / theirs[name].double().norm().clamp(min=1e-6)).item()
        for name in ours
    )


def compiled(model, backend):
    """A compiled copy of ``model``, and the counter of its graphs."""
    counter, model = CompileCounterWithBackend(backend), copy.deepcopy(model)
    torch.compiler.reset()
    model.compile(fullgraph=True, dynamic=False, backend=counter)
    return model, counter


def images_and_masks(count):
    draw = torch.Generator().manual_seed(1)
    for _ in range(count):
        yield torch.randn(3, 3, 64, 64, dtype=torch.float64, generator=draw), random_mask(3, 2, 0.5, draw)


@pytest.mark.parametrize(
    'network, backend',
    [
        ('test_convnext', 'eager'),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ('test_resnet', 'eager'),
                ('efficientnet', 'eager'),
                ('bottlenecks', 'eager'),
                ('bottlenecks', 'aot_eager'),
                ('squeeze_excite', 'eager'),
                ('test_convnext', 'aot_eager'),
            )
        ),
    ],
)
def test_one_graph_computes_what_eager_mode_and_the_reference_do_for_every_mask(network, backend):
    plain, reference = build(network), build(network, 'reference')
    ours, counter = compiled(plain, backend)
    for image, active in images_and_masks(3):
        got = measured(ours, image, active)
        assert worst(got, measured(plain, image, active)) < 1e-12
        assert worst(got, measured(reference, image, active)) < 1e-9
    assert counter.frame_count == 1


@pytest.mark.slow
@pytest.mark.parametrize('precision', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('network', ['bottlenecks', 'test_convnext'])
def test_what_is_chosen_by_precision_compiles_too(network, precision):
    plain = build(network).float().to(memory_format=torch.channels_last)
    ours, counter = compiled(plain, 'aot_eager')
    with torch.autocast('cpu', precision, enabled=precision != torch.float32):
        for image, active in images_and_masks(2):
            image = image.float().contiguous(memory_format=torch.channels_last)
            got, wanted = measured(ours, image, active), measured(plain, image, active)
            assert got['loss'].item() == pytest.approx(wanted['loss'].item(), rel=1e-5)
            assert worst(got, wanted) < 1e-3
    assert counter.frame_count == 1


@pytest.mark.slow
def test_the_map_that_a_gpu_fills_and_projects_compiles_too():
    """torch 2.11 decomposed no backward pass of a map whose masked positions are written over."""
    plain = build('bottlenecks').to(memory_format=torch.channels_last)
    plain.decoder.stepwise = True
    reference, (ours, counter) = build('bottlenecks', 'reference'), compiled(plain, 'aot_eager_decomp_partition')
    for image, active in images_and_masks(2):
        image = image.contiguous(memory_format=torch.channels_last)
        got = measured(ours, image, active)
        assert worst(got, measured(plain, image, active)) < 1e-9
        assert worst(got, measured(reference, image, active)) < 1e-9
    assert counter.frame_count == 1


@pytest.mark.slow
def test_a_copy_of_a_compiled_model_computes_with_its_own_weights():
    plain = build('test_convnext')
    ours, _ = compiled(plain, 'eager')
    [(image, active)] = images_and_masks(1)
    before = ours(image, active)
    other = copy.deepcopy(ours)
    for parameter in other.parameters():
        parameter.data.mul_(1.1)
    plain.load_state_dict(other.state_dict(), strict=True)
    assert other(image, active).item() == pytest.approx(plain(image, active).item(), rel=1e-12)
    assert other(image, active).item() != before.item()
