"""The plan that --dry-run prints: hours and disk against reported costs, whole models and the files of a run."""

import re
from dataclasses import replace

import pytest
import torch
from sampling import all_but

from pretrain import build_spark
from spark_bench import commands
from spark_bench.models.complexity import inspect_network
from spark_bench.suites.costs import estimate
from spark_bench.suites.definition import load_suite, shipped_suites
from spark_bench.suites.plan import Places

GB = 1e9


def test_estimates_come_near_the_costs_that_the_authors_report():
    """ResNet-50: 48 hours on 32 A100 for 800 epochs; ConvNeXt-B: about 4,000 GPU-hours for 1,600."""
    cells = {cell.name: cell for cell in load_suite('scaling').cells}
    assert 0.7 < estimate(cells['pretrain/resnet50/spark/0']).gpu_hours / (2 * 48 * 32) < 1.4
    assert 0.7 < estimate(cells['pretrain/convnext_base/spark/0']).gpu_hours / 4000 < 1.4
    halves = {cell.method: estimate(cell).gpu_hours for cell in load_suite('ablation').cells if cell.kind == 'pretrain'}
    assert halves['half_schedule'] == pytest.approx(halves['spark'] / 2)


def test_larger_images_cost_more_and_only_spark_has_its_decoder():
    spec = next(cell for cell in load_suite('scaling').cells if cell.name == 'pretrain/resnet50/spark/0')
    spec = replace(spec, gmacs=None)
    larger = replace(spec, overrides={**spec.overrides, 'train_dataloader.dataset.input_size': 448})
    other = replace(spec, method='supervised', recipe='pretrain/configs/small_supervised.py', overrides={})
    assert estimate(larger).gpu_hours == pytest.approx(4 * estimate(spec).gpu_hours)
    # 4.1 · 10^9 multiply-adds on 224 pixels, and no decoder.
    hours = 6 * 4.1e9 * (96 / 224) ** 2 * spec.images / 20e12 / 3600
    assert estimate(other).gpu_hours == pytest.approx(hours, rel=0.02)


@pytest.mark.parametrize('arch', ['resnet50', 'convnext_base'])
def test_disk_of_pretraining_is_that_of_the_whole_model_with_its_optimizer(arch):
    with torch.device('meta'):
        model = build_spark(arch, input_size=224, mask_ratio=0.6, ablation='spark', engine='packed')
    whole, encoder = (sum(value.numel() * 4 for value in part.parameters()) / GB for part in (model, model.encoder))
    cost = estimate(next(cell for cell in load_suite('scaling').cells if cell.name == f'pretrain/{arch}/spark/0'))
    assert cost.kept_gb == pytest.approx(whole + encoder, rel=0.1)
    # A checkpoint holds weights and two moments; two are kept while a third is written.
    assert cost.peak_gb == pytest.approx(3 * 3 * whole + whole + encoder, rel=0.1)


def test_disk_is_about_that_of_the_files_that_a_run_leaves(finished):
    folder, _ = finished
    suite = load_suite(str(folder / 'small.py'))
    places = Places({}, str(folder / 'work'), str(folder / 'results'))
    for spec in suite.cells:
        files = places.work_dir_of(spec).glob('*.safetensors')
        # (This recipe keeps no EMA, which would be half of it.)
        assert sum(path.stat().st_size for path in files) / GB == pytest.approx(
            estimate(spec).kept_gb / (2 if spec.kind == 'classification' else 1), rel=0.3
        ), spec.name


@pytest.mark.parametrize('name', all_but(('mini', 'scaling', 'transformers'), shipped_suites()))
def test_the_plan_of_a_shipped_suite_names_every_cell_in_full_and_adds_up(name, tmp_path, capsys):
    assert commands.main(['run', name, '--dry-run', '--results', str(tmp_path), '--work-dir', str(tmp_path)]) == 0
    plan = capsys.readouterr().out
    rows = re.findall(r'^  (\S+)  .* ([\d,.]+) (GPU|CPU) +([\d,.]+) (GB|MB)  $', plan, re.M)
    assert [row[0] for row in rows] == [cell.name for cell in load_suite(name).cells] and '…' not in plan
    hours = sum(float(row[1].replace(',', '')) for row in rows)
    unit = {'GPU': 'an A100', 'CPU': 'a CPU core'}[rows[0][2]]
    total = re.search(rf'^to do: ([\d,.]+) hours of {unit} .*; ([\d,.]+) (GB|MB) stay on disk', plan, re.M)
    assert float(total[1].replace(',', '')) == pytest.approx(hours, rel=0.05)
    kept = sum(estimate(cell).kept_gb for cell in load_suite(name).cells)
    assert float(total[2].replace(',', '')) * {'GB': 1, 'MB': 1e-3}[total[3]] == pytest.approx(kept, rel=0.05)


def test_an_architecture_in_place_of_the_suites_has_estimates_of_its_own(capsys):
    own = {cell.method: cell for cell in load_suite('ablation', 'convnext_base').cells if cell.kind == 'pretrain'}
    published = {cell.arch: cell for cell in load_suite('scaling').cells if cell.task == 'pretrain'}
    assert estimate(own['spark']).gpu_hours == pytest.approx(estimate(published['convnext_base']).gpu_hours, rel=0.02)
    assert {cell.weight for cell in load_suite('demo', 'resnet18').cells} == {None}
    assert commands.main(['run', 'ablation', '--arch', 'resnet5', '--dry-run']) == 2
    assert "'resnet5'" in capsys.readouterr().err


@pytest.mark.parametrize('arch, side', [('vit_base_patch16_384', 384), ('vit_mini', 96), ('resnet50', 224)])
def test_a_network_of_one_size_is_estimated_at_that(arch, side):
    spec = next(cell for cell in load_suite('scaling').cells if cell.kind == 'classification')
    overrides = {'train_dataloader.dataset.transform.input_size': side}
    spec = replace(spec, arch=arch, gmacs=None, overrides=overrides)
    counted = inspect_network(arch)['multiply_adds']
    assert estimate(spec).gpu_hours == pytest.approx(6 * counted * spec.images / 20e12 / 3600)


def test_a_narrower_decoder_costs_less():
    cell = next(cell for cell in load_suite('scaling').cells if cell.name == 'pretrain/resnet50/spark/0')
    widths = [replace(cell, overrides={'model.decoder_width': width}) for width in (768, 384, 128)]
    hours = [estimate(cell).gpu_hours for cell in widths]
    alone = inspect_network('resnet50')['multiply_adds'] / 1e9
    assert hours[0] == estimate(cell).gpu_hours and hours[0] > hours[1] > hours[2]
    # At a sixth of the width the decoder of 10.1 GMACs is a 36th, the densify layers of 2.2 are a sixth.
    assert hours[2] / hours[0] == pytest.approx((alone + 10.1 / 36 + 2.2 / 6) / (alone + 10.1 + 2.2), rel=0.02)
