"""The doctor finds what is broken, names the remedy, and never falls over a broken package."""

import builtins
import shutil
import sys
import types
from argparse import Namespace
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement

from spark_bench import operators
from spark_bench.commands import doctor


def rows(checks):
    return {check.name: check for check in checks}


def torchvision_as_mmcv(monkeypatch, **replaced):
    """Put torchvision's RoIAlign and NMS, independent of mmcv's, where the doctor looks for mmcv's."""
    import torchvision.ops

    def roi_align(feature, boxes, size, scale, samples, mode, aligned):
        assert mode == 'avg'
        return torchvision.ops.roi_align(feature, boxes, size, scale, samples, aligned)

    def nms(boxes, scores, threshold):
        kept = torchvision.ops.nms(boxes, scores, threshold)
        return boxes[kept], kept

    module = types.ModuleType('mmcv.ops')
    module.roi_align, module.nms = replaced.get('roi_align', roi_align), replaced.get('nms', nms)
    monkeypatch.setitem(sys.modules, 'mmcv', types.ModuleType('mmcv'))
    monkeypatch.setitem(sys.modules, 'mmcv.ops', module)


def test_the_expected_values_of_the_operators_hold_for_torchvision(monkeypatch):
    torchvision_as_mmcv(monkeypatch)
    assert doctor._check('ops', lambda: doctor._operators('cpu'), 'remedy').ok


def test_operators_that_give_wrong_values_fail(monkeypatch):
    import torch
    import torchvision.ops

    def unaligned(feature, boxes, size, scale, samples, mode, aligned):
        return torchvision.ops.roi_align(feature, boxes, size, scale, samples, False)

    torchvision_as_mmcv(monkeypatch, roi_align=unaligned)
    check = doctor._check('ops', lambda: doctor._operators('cpu'), 'remedy')
    assert not check.ok and 'RoIAlign' in check.detail and check.remedy == 'remedy'

    torchvision_as_mmcv(monkeypatch, nms=lambda boxes, scores, threshold: (boxes, torch.arange(3)))
    check = doctor._check('ops', lambda: doctor._operators('cpu'), 'remedy')
    assert not check.ok and 'NMS' in check.detail


def test_the_installed_mmcv_gives_the_right_values():
    whose = 'compiled with mmcv' if operators.are_compiled() else "torchvision's"
    assert doctor._operators('cpu') == f'{whose}; RoIAlign and NMS give the right values'


@pytest.mark.parametrize(
    'raised', [ImportError('libGL.so.1: cannot open'), RuntimeError('ABI\nmismatch'), SystemExit(3)]
)
def test_a_package_that_fails_to_import_becomes_a_failed_row(monkeypatch, raised):
    real = doctor.importlib.import_module

    def broken(name, *rest):
        if name == 'cv2':
            raise raised
        return real(name, *rest)

    monkeypatch.setattr(doctor, 'PACKAGES', (('cv2', 'opencv-python-headless'), ('rich', 'rich')))
    monkeypatch.setattr(doctor.importlib, 'import_module', broken)
    found = rows(doctor.run_checks())
    check = found['opencv-python-headless']
    assert not check.ok and type(raised).__name__ in check.detail and '\n' not in check.detail
    assert 'make setup' in check.remedy
    assert found['rich'].ok


def test_a_version_outside_the_range_fails(monkeypatch):
    monkeypatch.setattr(doctor, '_wanted_versions', lambda: {'rich': '>=999'})
    check = doctor._check('rich', lambda: doctor._package('rich', 'rich'), 'make setup')
    assert not check.ok and '>=999' in check.detail


def test_a_full_disk_fails_where_it_is_full(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: types.SimpleNamespace(free=1.5e9))
    with pytest.raises(doctor._Unwell, match=r'1\.5 GB free'):
        doctor._disk(tmp_path / 'not' / 'made' / 'yet')


@pytest.mark.parametrize('ok, status', [(True, 0), (False, 1)])
def test_the_exit_status_follows_the_checks(monkeypatch, capsys, ok, status):
    monkeypatch.setattr(
        doctor,
        'run_checks',
        lambda: [
            doctor.Check('one', True, 'fine'),
            doctor.Check('two', ok, 'found [red]this', '' if ok else 'do that'),
        ],
    )
    assert doctor.main(Namespace()) == status
    printed = capsys.readouterr().out
    # Square brackets in what was found are shown, not taken for markup.
    assert 'found [red]this' in printed and ('do that' in printed) is not ok


def test_a_broken_rich_does_not_hide_the_report(monkeypatch, capsys):
    real = builtins.__import__

    def without_rich(name, *rest):
        if name.startswith('rich'):
            raise ImportError('no rich')
        return real(name, *rest)

    monkeypatch.setattr(doctor, 'run_checks', lambda: [doctor.Check('two', False, 'found this', 'do that')])
    monkeypatch.setattr(builtins, '__import__', without_rich)
    assert doctor.main(Namespace()) == 1
    assert 'do that' in capsys.readouterr().out


def test_every_failure_has_a_remedy(monkeypatch):
    """With every probe failing, each row but the merely informative one says what to do."""

    def fail(*_):
        raise OSError('broken')

    probes = ('_python', '_package', '_memory', '_gpu', '_operators', '_coco_masks', '_font', '_photographs')
    for name in (*probes, '_disk'):
        monkeypatch.setattr(doctor, name, fail)
    checks = [check for check in doctor.run_checks() if check.name != 'processor']
    assert len(checks) > 20
    assert all(not check.ok and check.remedy for check in checks)


def test_all_that_is_asked_for_is_looked_at():
    asked = {Requirement(text) for text in requires('spark-bench') if 'extra' not in text}
    assert {item.name.lower() for item in asked} - {'contourpy', 'imaug'} == {
        name.lower() for _, name in doctor.PACKAGES
    }


def test_bounds_of_this_python_count_too(monkeypatch):
    texts = [
        'numpy>=2.0',
        "numpy>=99; python_version >= '3'",
        "numpy>=98; python_version < '3'",
        "rich>=3; extra == 'test'",
    ]
    monkeypatch.setattr('importlib.metadata.requires', lambda name: texts)
    assert doctor._wanted_versions() == {'numpy': '>=2.0,>=99'}
