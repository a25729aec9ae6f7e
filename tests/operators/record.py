"""Record what mmcv's compiled operators give, for the tests of those that stand in for them.

    python tests/operators/record.py [cpu|cuda]

Needs an mmcv that was compiled (for cuda, with its CUDA operators); writes compiled_cpu.npz or compiled_cuda.npz beside
this file, and says which cases the operators refuse.
"""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import cases  # noqa: E402

from spark_bench import operators  # noqa: E402


def main(device='cpu'):
    if not operators.are_compiled():
        sys.exit('record: this mmcv has no compiled operators: install one that has')
    recorded = {}
    for case in (cases.CPU_CASES if device == 'cpu' else cases.GPU_CASES).values():
        for variant in case.variants:
            try:
                outputs = cases.compute(case, variant, device)
            except RuntimeError as error:
                print(f'{case.name}, {variant}: {str(error).splitlines()[0]}')
                continue
            recorded |= {f'{case.name}/{variant}/{name}': tensor.numpy() for name, tensor in outputs.items()}
    for case in (cases.CPU_CASES['roi_align-many-7-0'], cases.CPU_CASES['deform_conv-3-1-1-1-1-1']):
        try:
            cases.compute(case, 'rounded', device, torch.bfloat16)
            print(f'{case.name}: bfloat16 is taken')
        except RuntimeError as error:
            print(f'{case.name}, bfloat16: {str(error).splitlines()[0]}')
    path = Path(__file__).with_name(f'compiled_{device}.npz')
    np.savez_compressed(path, **recorded)
    print(f'{len(recorded)} arrays, {path.stat().st_size / 1e3:.0f} kB: {path}')


if __name__ == '__main__':
    main(*sys.argv[1:])
