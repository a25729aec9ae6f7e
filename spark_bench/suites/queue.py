"""Which cells of a suite have a job at Slurm: told by a file beside the jobs' logs and by Slurm's queue."""

import json
import shutil
import subprocess

from spark_bench.errors import InputError
from spark_bench.records.store import write_text_atomically

_NAME = 'submitted.json'


def remember(folder, jobs):
    """Add to the file which job a cell was submitted as.

    Args:
        folder: of the jobs' logs.
        jobs: name of a cell → id of its job, such as ``12_0``.
    """
    write_text_atomically(folder / _NAME, json.dumps(_submitted(folder) | jobs, indent=1) + '\n')


def queued(folder):
    """The cells whose jobs wait or run: name → id. Empty where nothing was submitted or Slurm is not here.

    Raises:
        InputError: where the file is broken, or Slurm does not answer.
    """
    jobs = _submitted(folder)
    if not jobs or shutil.which('squeue') is None:
        return {}
    arrays = ','.join(dict.fromkeys(job.partition('_')[0] for job in jobs.values()))
    asked = subprocess.run(['squeue', '--noheader', '--array', '--format=%i', f'--jobs={arrays}'], capture_output=True,
                           text=True, check=False)
    # Slurm forgets jobs some minutes after their end, and says so of a single one.
    if asked.returncode and 'Invalid job id' not in asked.stderr:
        raise InputError(f'squeue: {asked.stderr.strip() or f"exit status {asked.returncode}"}; which cells are '
                         'queued is not known: try again')
    alive = set(asked.stdout.split())
    return {name: job for name, job in jobs.items() if job in alive}


def _submitted(folder):
    path = folder / _NAME
    try:
        jobs = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f'{path}: {error}; take it away once `squeue` shows no job of this suite') from error
    if not isinstance(jobs, dict) or not all(isinstance(job, str) for job in jobs.values()):
        raise InputError(f'{path} does not name a job for each cell; take it away once `squeue` shows no job of this '
                         'suite')
    return jobs
