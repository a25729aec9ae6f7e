"""The guide for a network of one's own: its code runs as it stands."""

import re
from pathlib import Path

GUIDE = Path(__file__).parents[2] / 'docs' / 'your-own-network.md'


def test_the_code_of_the_guide_runs(capsys):
    blocks = re.findall(r'```python\n(.*?)```', GUIDE.read_text(), re.S)
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(compile(block, str(GUIDE), 'exec'), names)
    assert float(re.search(r'tensor\(([\d.]+)', capsys.readouterr().out).group(1)) > 0
