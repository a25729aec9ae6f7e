"""The package imports beside newer versions of packages that it does not ask for itself."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from mmengine.config import Config, utils

from spark_bench.compatibility import hide_evaluation_notice
from spark_bench.configs import read_config
from spark_bench.errors import InputError
from spark_bench.places import shipped


@pytest.mark.slow
@pytest.mark.parametrize('version, left_out', [('5.17.0', True), ('4.53.0', False)])
def test_only_a_transformers_that_mmpretrain_does_not_know_costs_its_multimodal_models(version, left_out, tmp_path):
    (tmp_path / 'transformers').mkdir()
    (tmp_path / 'transformers/__init__.py').write_text('')
    information = tmp_path / f'transformers-{version}.dist-info'
    information.mkdir()
    (information / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: transformers\nVersion: {version}\n')
    # mmpretrain is not imported whole where it would want to use the empty package.
    script = 'import sys, spark_bench; ' + (
        'import mmpretrain.models; from mmpretrain.utils.dependency import WITH_MULTIMODAL; print(WITH_MULTIMODAL)'
        if left_out
        else 'print("mmpretrain.utils.dependency" not in sys.modules)'
    )
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith('False' if left_out else 'True')


def test_no_run_is_told_that_its_metrics_are_not_computed():
    from mmdet.evaluation.metrics import faster_coco_metric as module

    source = Path(module.__file__)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        hide_evaluation_notice()
        warnings.warn('faster_coco_eval is not installed, metrics will not be computed.', stacklevel=1)
        warnings.warn('something else', stacklevel=1)
    assert [str(each.message) for each in told] == ['something else']
    assert "'faster_coco_eval is not installed" in source.read_text()  # that is still what it says


def test_base_configs_are_found_without_a_look_at_model_cards_and_recipes_of_the_library_with_it(tmp_path, monkeypatch):
    recipe = tmp_path / 'recipe.py'
    recipe.write_text("_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'\n")
    expected = Config.fromfile(shipped('mmdet_configs/demo/mask-rcnn_demo.py')).model.rpn_head.type
    found, looked = utils._get_cfg_metainfo, []
    monkeypatch.setattr(utils, '_get_cfg_metainfo', lambda *given: looked.append(given) or found(*given))
    assert read_config(recipe).model.rpn_head.type == expected and not looked
    recipe.write_text("_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'\n")
    assert read_config(recipe).model.type == 'MaskRCNN' and len(looked) == 1
    recipe.write_text("_base_ = 'mmdet::_base_/models/no_such.py'\n")
    with pytest.raises(InputError, match='recipe.py cannot be read.*no_such'):
        read_config(recipe)
