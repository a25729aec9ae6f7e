"""What the operators are tried on: inputs that any machine makes alike, and how a case is computed."""

from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import torch

# Float32 as it is; under bfloat16 autocast; bfloat16 numbers in float32; float64.
VARIANTS = ('float32', 'autocast', 'rounded', 'float64')


@dataclass(frozen=True)
class Case:
    """One call of an operator.

    Attributes:
        operator: path of the function below ``mmcv.ops``.
        inputs: arrays, by the names of the operator's arguments and in their order; float ones get gradients.
        options: the arguments after them.
        integral: the outputs are kept boxes and indices, without gradients.
        variants: those that mmcv's operator takes.
    """

    name: str
    operator: str
    inputs: dict
    options: tuple = ()
    integral: bool = False
    variants: tuple = VARIANTS


def compute(case, variant, device='cpu', dtype=None):
    """Outputs and gradients of a case by mmcv's operator, whichever it is, as a dict of tensors on the CPU.

    Args:
        dtype: compute in this type instead of the variant's own.
    """
    import mmcv.ops

    dtype = dtype or (torch.float64 if variant == 'float64' else torch.float32)
    tensors = {}
    for name, array in case.inputs.items():
        tensor = torch.from_numpy(array)
        if tensor.is_floating_point():
            if variant == 'rounded':
                tensor = tensor.bfloat16()
            tensor = tensor.to(device, dtype).requires_grad_(not case.integral and name != 'rois')
        tensors[name] = tensor.to(device)
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=variant == 'autocast'):
        found = attrgetter(case.operator)(mmcv.ops)(*tensors.values(), *case.options)
    found = found if isinstance(found, tuple) else (found,)
    outputs = {f'output{i}': tensor for i, tensor in enumerate(found)}
    if case.operator == 'nms':  # equal scores are taken in the order that torch sorts them in
        outputs['order'] = tensors['scores'].sort(descending=True).indices
    if not case.integral:
        [output] = found
        # A gradient with as many values as the output, none of them equal.
        ramp = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).cos().to(output).reshape(output.shape)
        (output * ramp).sum().backward()
        outputs |= {f'grad_{name}': tensor.grad for name, tensor in tensors.items() if tensor.grad is not None}
    return {name: tensor.detach().cpu() for name, tensor in outputs.items()}


def boxes(random, count, size=100.0):
    corners = random.uniform(0, size, (count, 2))
    return np.concatenate([corners, corners + random.uniform(1, size / 2, (count, 2))], axis=1).astype(np.float32)


def nms_cases():
    random = np.random.RandomState(0)
    sets = {f'{count}-boxes': (boxes(random, count), random.uniform(0, 1, count)) for count in (0, 1, 2, 60, 200)}
    sets['equal-scores'] = (boxes(random, 60), np.full(60, 0.5))
    sets['few-scores'] = (boxes(random, 90), random.randint(1, 4, 90) / 4)
    sets['twins'] = (np.repeat(boxes(random, 20), 3, axis=0), random.uniform(0, 1, 60))
    # Neighbours of a row overlap by IoU 1/3 and 1/9 and so on, the thresholds themselves.
    row = np.arange(12)[:, None] * np.float32(5) + np.array([0, 0, 10, 10], np.float32)
    sets['at-the-threshold'] = (row.astype(np.float32), np.linspace(0.9, 0.1, 12))
    sets['no-area'] = (np.concatenate([boxes(random, 5), np.zeros((3, 4), np.float32)]), np.linspace(0.1, 0.9, 8))
    for name, (corners, scores) in sets.items():
        inputs = {'boxes': corners, 'scores': scores.astype(np.float32)}
        for offset in (0, 1):
            for threshold in (0.1, 1 / 3, 0.7):
                yield Case(
                    f'nms-{name}-{offset}-{threshold:.1f}', 'nms', inputs, (threshold, offset), True, VARIANTS[:2]
                )
        for method in ('naive', 'linear', 'gaussian'):
            yield Case(
                f'soft-{name}-{method}',
                'soft_nms',
                inputs,
                (0.3, 0.5, 0.05, method, int(method == 'linear')),
                True,
                VARIANTS[:2],
            )


def roi_cases():
    random = np.random.RandomState(1)
    rois = np.concatenate([random.randint(0, 2, (9, 1)).astype(np.float32), boxes(random, 9)], axis=1)
    sets = {
        'many': rois,
        'none': rois[:0],
        'one': rois[:1],
        'outside': np.array(
            [
                [0, -300, -300, -200, -200],
                [1, 90, 90, 400, 400],
                [0, -20, 5, 30, 15],
                [1, 500, 500, 600, 600],
                [0, 10, 10, 10, 10],
            ],
            np.float32,
        ),
    }
    for name, chosen in sets.items():
        inputs = {'input': random.randn(2, 3, 13, 11).astype(np.float32), 'rois': chosen}
        for size, scale, samples, aligned in (
            (7, 0.125, 0, True),
            (14, 0.125, 2, True),
            ((3, 5), 0.25, 0, False),
            (2, 0.0625, 3, True),
        ):
            yield Case(
                f'roi_align-{name}-{size}-{samples}', 'roi_align', inputs, (size, scale, samples, 'avg', aligned)
            )


def deformable_cases():
    random = np.random.RandomState(2)

    def draw(*shape):
        return random.randn(*shape).astype(np.float32)

    # Kernel, stride, padding, dilation, groups, offset groups.
    for kernel, stride, padding, dilation, groups, sets in (
        (3, 1, 1, 1, 1, 1),
        (3, 2, 1, 1, 2, 1),
        (3, 1, 2, 2, 1, 2),
        (1, 1, 0, 1, 1, 1),
    ):
        side = (6 + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        # Up to a few pixels, so that some points lie outside the map; in bfloat16 too none lies upon a pixel, where the
        # derivative by its place has two sides and the libraries take different ones.
        offset = np.floor(24 * draw(2, sets * 2 * kernel**2, side, side)) / 8 + np.float32(1 / 16)
        inputs = {'input': draw(2, 4, 6, 6), 'offset': offset, 'weight': draw(6, 4 // groups, kernel, kernel)}
        name = f'{kernel}-{stride}-{padding}-{dilation}-{groups}-{sets}'
        geometry = (stride, padding, dilation, groups, sets)
        yield Case(f'deform_conv-{name}', 'deform_conv2d', inputs, geometry)
        mask = random.uniform(0, 1, (2, sets * kernel**2, side, side)).astype(np.float32)
        masked = {'input': inputs['input'], 'offset': offset, 'mask': mask, 'weight': inputs['weight']}
        yield Case(f'modulated-{name}', 'modulated_deform_conv2d', masked, (None, *geometry))
        yield Case(f'modulated-bias-{name}', 'modulated_deform_conv2d', masked | {'bias': draw(6)}, geometry)


def attention_cases():
    """Compiled for GPUs alone."""
    random = np.random.RandomState(3)
    shapes = np.array([[7, 5], [4, 3], [1, 2]])
    starts = np.array([0, 35, 47])
    for queries in (0, 1, 6):
        inputs = {
            'value': random.randn(2, 49, 2, 4).astype(np.float32),
            'shapes': shapes,
            'starts': starts,
            # Beyond 0 to 1 they lie outside the maps.
            'locations': random.uniform(-0.3, 1.3, (2, queries, 2, 3, 4, 2)).astype(np.float32),
            'weights': random.uniform(0, 1, (2, queries, 2, 3, 4)).astype(np.float32),
        }
        yield Case(
            f'attention-{queries}', 'multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply', inputs, (64,)
        )


def focal_cases():
    """Compiled for GPUs alone."""
    random = np.random.RandomState(4)
    for rows in (0, 1, 12):
        inputs = {'input': (8 * random.randn(rows, 5)).astype(np.float32), 'target': random.randint(0, 6, rows)}
        for gamma, alpha in ((2.0, 0.25), (0.0, 0.5), (1.5, 0.9)):
            yield Case(
                f'focal-{rows}-{gamma}',
                'sigmoid_focal_loss',
                inputs,
                (gamma, alpha, None, 'none'),
                variants=VARIANTS[:3],
            )  # its float64 takes the exponential in float32


CPU_CASES = {case.name: case for make in (nms_cases, roi_cases, deformable_cases) for case in make()}
GPU_CASES = CPU_CASES | {case.name: case for make in (attention_cases, focal_cases) for case in make()}
