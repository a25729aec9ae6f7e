"""The command line: every command loads what it needs when it runs."""

import contextlib
import os
import re
import signal
import sys
import traceback
from dataclasses import fields
from importlib import import_module

from spark_bench.arguments import EXIT_USAGE, build_parser, misplaced
from spark_bench.errors import InputError, RunError, ToldElsewhere, printable
from spark_bench.parsing import contradiction, unfit_name
from spark_bench.places import report_path, shipped
from spark_bench.streams import flush_output, is_pipe_at_its_end, prepare_streams, refuse_closed_output

EXIT_FAILED, EXIT_INTERRUPTED, EXIT_PIPE = 1, 130, 141


def _run_demo(args):
    from spark_bench.suites import demo
    return demo.main(args)


def _run_suite(args):
    from spark_bench.suites import command
    return command.main(args)


def _run_pretrain(args):
    from pretrain.ablations import get_ablation
    get_ablation(args.ablation)
    return _run_task('pretrain', args)


def _run_finetune(args):
    return _run_task('classification', args)


def _run_detect(args):
    return _run_task('detection', args)


def _run_task(task, args):
    from spark_bench.runs import kind_of
    from spark_bench.runs.run import run
    kind = kind_of(task)
    return _tell(run(kind, _options(kind.Options, args)), args.results)


def _options(options, args):
    """The options of a run, from those of the command that have their names."""
    given = {field.name: getattr(args, field.name, None) for field in fields(options)}
    overrides = dict(args.cfg_options)
    if getattr(args, 'epochs', None) is not None:
        overrides['train_cfg.max_epochs'] = args.epochs
    given |= {'config': _config_path(args), 'overrides': overrides,
              'launcher': 'pytorch' if args.launcher == 'torchrun' else args.launcher}
    return options(**{name: value for name, value in given.items() if value is not None})


def _tell(record, results):
    from spark_bench.records.schema import record_path
    if int(os.environ.get('RANK', 0)) == 0:
        print(f'{record.task} {record.arch} {record.method}: {_shown(record.metrics)}\n'
              f'record: {record_path(results, *record.identity)}')
    return 0


def _run_evaluate(args):
    odd = misplaced(args)
    if odd:
        raise InputError(f'{odd} has no meaning for --protocol {args.protocol}: leave it away')
    return {'detection': _evaluate_trained, 'finetune': _evaluate_trained, 'linear': _evaluate_features,
            'knn': _evaluate_features}[args.protocol](args)


def _evaluate_trained(args):
    from spark_bench.runs import detect, finetune
    from spark_bench.runs.evaluation import evaluate
    kind, options = detect.DetectorEvaluation, detect.DetectOptions
    if args.protocol == 'finetune':
        kind, options = finetune.ClassifierEvaluation, finetune.FinetuneOptions
        args.default_config = 'pretrain/configs/demo_finetune.py'
    metrics, folder = evaluate(kind, _options(options, args))
    if int(os.environ.get('RANK', 0)) == 0:
        print(f'{args.weights}: {_shown(metrics)}\nmetrics: {folder}/metrics.json')
    return 0


def _evaluate_features(args):
    from spark_bench.runs import probe
    args.task = args.protocol
    record = probe.run(_options(probe.ProbeOptions, args))
    return 0 if record is None else _tell(record, args.results)


def _shown(metrics):
    """The metrics in a line; recall and sizes are in the files."""
    metrics = {name: value for name, value in metrics.items() if not re.search(r'_ar|_(small|medium|large)$', name)}
    return ', '.join(f'{name} {"–" if value is None else f"{value:.4g}"}' for name, value in metrics.items())


def _config_path(args):
    """The config, from the current folder or else from where the recipes are installed."""
    if args.config is None or not os.path.isfile(args.config) and shipped(args.config).is_file():
        return str(shipped(args.config or args.default_config))
    return args.config


def _run_table(args):
    from spark_bench.records import table
    args.suite, specs = _suite_of(args)
    return table.main(args, specs)


def _suite_of(args):
    """Name of the records and tables of ``--suite``; a word where a file may define others."""
    from spark_bench.records.store import recorded_suites
    from spark_bench.suites.definition import find_suite
    name, specs = find_suite(args.suite, args.results)
    if specs is None and not args.suite.endswith('.py') and name != 'custom' and name in recorded_suites(args.results):
        print(f'spark-bench: note: the table of all records of {printable(name)}; where a file defines its tables, '
              'name that with --suite, as FILE.py', file=sys.stderr)
    return name, specs


def _run_compare(args):
    from spark_bench.records import compare
    return compare.main(args)


def _run_report(args):
    from spark_bench.records import report
    args.suite, specs = _suite_of(args)
    specs = specs or ()
    output = args.output or report_path(args.results, args.suite)
    report.claim_report(output)
    print(report.write_report(args.results, args.suite, output, args.work_dir or 'work_dirs', specs))
    for path in report.write_figures(args.results, args.suite, specs) if args.figures else ():
        print(path)
    return 0


def _run_visualize(args):
    from spark_bench.visualize import patterns, reconstructions
    return (reconstructions if args.kind == 'reconstruct' else patterns).main(args)


def _run_data(args):
    return import_module(f'spark_bench.data.{args.kind}').main(args)


def _run_profile(args):
    from spark_bench import profiling
    return profiling.main(args)


def _run_inspect(args):
    if args.arch is not None:
        if args.key_prefix is not None:
            raise InputError('--key-prefix is of no use without a file')
        from spark_bench.models import complexity
        return complexity.main(args)
    if args.input_size is not None:
        raise InputError('--input-size is of no use with a file: give it with --arch')
    from spark_bench.checkpoints import inspect
    return inspect.main(args)


def _run_convert(args):
    from spark_bench.checkpoints import convert
    return convert.main(args)


def _run_doctor(args):
    from spark_bench import doctor
    return doctor.main(args)


_COMMANDS = {
    'demo': _run_demo, 'run': _run_suite, 'pretrain': _run_pretrain, 'finetune': _run_finetune, 'detect': _run_detect,
    'evaluate': _run_evaluate, 'table': _run_table, 'compare': _run_compare, 'report': _run_report,
    'visualize': _run_visualize, 'data': _run_data, 'profile': _run_profile, 'inspect': _run_inspect,
    'convert': _run_convert, 'doctor': _run_doctor}


# What trains: whatever was interrupted goes on, and what is printed is in the records and logs too.
_TRAINING = ('demo', 'run', 'pretrain', 'finetune', 'detect')


def main(argv=None):
    """Run one command; return its exit status: 0 done, 1 a run or check failed, 2 bad usage or input."""
    has_output, args = prepare_streams(), None
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as spark_bench leaves it while the program loads
            signal.signal(signal.SIGINT, signal.default_int_handler)
        args = build_parser().parse_args(argv)
        if not has_output and args.command not in (*_TRAINING, 'evaluate'):
            refuse_closed_output()
        odd = contradiction(args) or unfit_name(args)
        if odd:
            raise InputError(odd)
        status = _COMMANDS[args.command](args)
        flush_output()
        return status
    except SystemExit:  # of argparse, after --help
        is_pipe_at_its_end()
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever it is, a person reads one line
        if argv is None:  # on the way out of Python, a further Ctrl-C has nothing to stop but the telling
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return _fail(error, args)


def _fail(error, args):
    """Tell of an error in one line; return the exit status."""
    if getattr(args, 'debug', False):
        traceback.print_exc()
    message, status = _explain(error, getattr(args, 'command', None))
    if message:
        with contextlib.suppress(OSError):
            print(f'spark-bench: error: {printable(message)}', file=sys.stderr)
    return status


def _explain(error, command):
    """``(line, exit status)``; no line where nobody is there to read on."""
    pipe_ended = is_pipe_at_its_end()
    if _is_interrupt(error):
        return f'interrupted{": the same command continues" * (command in _TRAINING)}', EXIT_INTERRUPTED
    if pipe_ended and isinstance(error, BrokenPipeError):
        return None, EXIT_PIPE
    if isinstance(error, ToldElsewhere):
        return None, _explain(error.error, command)[1]
    if isinstance(error, InputError):
        return error, EXIT_USAGE
    if isinstance(error, RunError):
        return error, EXIT_FAILED
    if isinstance(error, OSError):
        where = f'{error.filename}: ' if error.filename else ''
        return f'{where}{error.strerror or error}', EXIT_FAILED
    reason = ' '.join(str(error).split())[:300]
    return f'unexpected {type(error).__name__}: {reason} (--debug shows where)', EXIT_FAILED


def _is_interrupt(error):
    """Whether the error, or one that it was raised on the way of, is a Ctrl-C: libraries put their own in its place."""
    seen, waiting = [], [error]
    while waiting:
        error = waiting.pop()
        if error is None or error in seen:
            continue
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.append(error)
        waiting += error.__cause__, error.__context__
    return False


if __name__ == '__main__':
    sys.exit(main())
