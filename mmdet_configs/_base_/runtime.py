"""What every recipe of detection runs with: this project's hooks in place of mmdet's."""

_base_ = 'mmdet::_base_/default_runtime.py'

default_hooks = dict(
    _delete_=True,
    runtime_info=dict(type='RuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='ResumePointHook'),
)
custom_hooks = [dict(type='EstimateHook'), dict(type='ProgressHook')]
custom_imports = dict(imports=['spark_bench'])
