"""SimMIM's fine-tuning has timm's schedule, whose cosine runs from the first step."""

import pytest
import torch
from timm.scheduler import CosineLRScheduler

from spark_bench.places import shipped
from spark_bench.runs.inputs import load_config
from spark_bench.training.schedules import WarmupCosine

STEPS = 7  # of an epoch


def test_the_rate_of_simmims_fine_tuning_is_timms_at_every_step():
    [schedule] = load_config(str(shipped('pretrain/configs/finetune_swin-base_100e.py')), {}).param_scheduler
    peak, length, warmup = 5e-3, schedule.end * STEPS, schedule.warmup * STEPS

    def optimizer():
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)

    ours, theirs = optimizer(), optimizer()
    factors = dict(start_factor=schedule.start_factor, end_factor=schedule.end_factor, from_start=schedule.from_start)
    mine = WarmupCosine(ours, warmup=warmup, end=length, by_epoch=False, **factors)
    timms = CosineLRScheduler(
        theirs,
        t_initial=length - 1,  # SimMIM counts one more, so that its last rate is not quite reached
        lr_min=peak * schedule.end_factor,
        warmup_t=warmup,
        warmup_lr_init=peak * schedule.start_factor,
        t_in_epochs=False,
    )
    for step in range(length):
        assert ours.param_groups[0]['lr'] == pytest.approx(theirs.param_groups[0]['lr'], rel=1e-9), step
        if step < length - 1:
            mine.step()
            timms.step_update(step + 1)
            if step + 1 == length - 1:  # beyond its last step timm's begins anew
                theirs.param_groups[0]['lr'] = peak * schedule.end_factor
