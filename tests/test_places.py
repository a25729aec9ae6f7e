"""Where generated and fetched files are kept: one rule, which all that looks for them follows."""

import re

import pytest

from spark_bench import commands
from spark_bench.checkpoints.published import find_published
from spark_bench.data import embedded
from spark_bench.errors import InputError
from spark_bench.places import cache_folder


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv('SPARK_BENCH_CACHE', raising=False)
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    assert cache_folder() == tmp_path / 'home' / '.cache' / 'spark_bench'
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    assert cache_folder() == tmp_path / 'xdg' / 'spark_bench'
    monkeypatch.setenv('SPARK_BENCH_CACHE', str(tmp_path / 'own'))
    assert cache_folder() == tmp_path / 'own'
    monkeypatch.setenv('SPARK_BENCH_CACHE', '~/own')
    assert cache_folder() == tmp_path / 'home' / 'own'
    assert cache_folder('~/chosen') == tmp_path / 'home' / 'chosen'


@pytest.mark.parametrize(
    'variable, folder, place',
    [('SPARK_BENCH_CACHE', '{}/c', 'c'), ('SPARK_BENCH_CACHE', '~/c', 'c'), ('XDG_CACHE_HOME', '{}', 'spark_bench')],
)
def test_data_weights_and_the_doctor_look_into_one_cache(capsys, monkeypatch, tmp_path, variable, folder, place):
    for name in ('SPARK_BENCH_CACHE', 'XDG_CACHE_HOME'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv(variable, folder.format(tmp_path))
    place = tmp_path / place
    with pytest.raises(InputError) as caught:
        find_published('supervised', 'resnet50')
    assert str(place / 'weights') in str(caught.value)
    place.write_text('a file in the way')
    with pytest.raises(InputError, match=re.escape(str(place))):
        embedded.prepare('quick')
    monkeypatch.setenv('COLUMNS', '500')
    assert commands.main(['doctor']) == 1
    assert str(place) in capsys.readouterr().out
