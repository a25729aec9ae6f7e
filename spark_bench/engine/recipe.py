"""The part of a config that is the recipe: what is computed, apart from where and how fast."""

# Keys that say where and how a run happens, not what it computes: they stay out of its hash.
_PLACES = ('work_dir', 'load_from', 'resume', 'launcher', 'log_level', 'custom_imports', 'vis_backends', 'visualizer',
           'env_cfg', 'log_processor', 'channels_last', 'batch_limit')
_LOADING = ('num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory')
_WATCHING = ('LoggerHook', 'ResumePointHook', 'EstimateHook', 'TensorBoardHook', 'ProgressHook')


def what_is_computed(recipe: dict) -> dict:
    """The part of a config that decides the numbers."""
    recipe = {key: value for key, value in recipe.items() if key not in _PLACES}
    for key, value in recipe.items():
        if key.endswith('_dataloader') and isinstance(value, dict):
            recipe[key] = {name: setting for name, setting in value.items() if name not in _LOADING}
    hooks = [*recipe.pop('default_hooks', {}).values(), *recipe.pop('custom_hooks', [])]
    recipe['hooks'] = [hook for hook in hooks if hook is not None and hook['type'] not in _WATCHING]
    return recipe


def what_trains(recipe: dict) -> dict:
    """The part of a recipe of detection that decides the weights."""
    kept = {key: value for key, value in recipe.items() if not key.startswith('test_')}
    return kept | {'model': {key: value for key, value in recipe['model'].items() if key != 'test_cfg'}}
