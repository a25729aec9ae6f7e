"""The command line: every command loads what it needs when it runs."""

import contextlib
import os
import re
import signal
import sys
import traceback
from dataclasses import replace
from importlib import import_module

from spark_bench.arguments import EXIT_USAGE, build_parser, misplaced
from spark_bench.errors import InputError, RunError, printable
from spark_bench.parsing import contradiction, unfit_name
from spark_bench.places import default_evaluation_dir, default_work_dir, report_path, shipped
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
    from spark_bench.engine import pretrain
    _set_epochs(args)
    return _run_task('pretrain', pretrain, args, method=args.method or args.ablation, part='unlabelled',
                     ablation=args.ablation, bad_pictures=args.bad_pictures, picture_interval=args.picture_interval,
                     **_speed(args))


def _run_finetune(args):
    from spark_bench.engine import finetune
    _set_epochs(args)
    return _run_task('classification', finetune, args, part='classification', label_fraction=args.label_fraction,
                     label_seed=args.label_seed, **_start(args, _config_of(args)), **_speed(args))


def _run_detect(args):
    from spark_bench.engine import detect
    return _run_task('detection', detect, args, part='detection', **_start(args, _config_of(args)), **_speed(args),
                     **_metric(args))


def _set_epochs(args):
    if args.epochs is not None:
        args.cfg_options = [*args.cfg_options, ('train_cfg.max_epochs', args.epochs)]


def _start(args, config):
    """The weights that a run starts from, and the method that its record names."""
    from spark_bench.checkpoints.published import choose_weights
    weights, method = choose_weights(args.weights, config, args.arch, args.cache_dir, args.download)
    if args.key_prefix is not None and weights is None:
        raise InputError('--key-prefix chooses a network of a file: give that with --weights')
    return {'weights': weights, 'key_prefix': args.key_prefix, 'method': args.method or method or 'pretrained'}


def _run_evaluate(args):
    odd = misplaced(args)
    if odd:
        raise InputError(f'{odd} has no meaning for --protocol {args.protocol}: leave it away')
    return {'detection': _evaluate_trained, 'finetune': _evaluate_trained, 'linear': _evaluate_features,
            'knn': _evaluate_features}[args.protocol](args)


def _evaluate_trained(args):
    from spark_bench.checkpoints import read_metadata
    from spark_bench.engine import detect, finetune
    from spark_bench.engine.runs import RunOptions
    evaluate, part, arch = detect.evaluate_detector, 'detection', args.arch
    if args.weights is None:
        raise InputError('evaluate needs a trained detector: give detector.safetensors of a work directory, or a .pth '
                         'of mmdet, with --weights' if args.protocol == 'detection' else
                         'evaluate --protocol finetune needs a trained classifier: give classifier.safetensors of a '
                         'work directory with --weights')
    if args.protocol == 'finetune':
        evaluate, part = finetune.evaluate_classifier, 'classification'
        arch = arch or read_metadata(args.weights).get('arch')
        args.default_config = 'pretrain/configs/demo_finetune.py'
    config, overrides = _config_path(args), dict(args.cfg_options)
    data_root = args.data_root or _data_root(args, _config_of(args), part)
    work_dir = args.work_dir or str(default_evaluation_dir(config, args.weights, data_root, arch=args.arch,
                                                           overrides=overrides))
    metrics = evaluate(RunOptions(
        config=config, suite=args.suite, method='', work_dir=work_dir, results=args.results, data_root=data_root,
        arch=arch, weights=args.weights, threads=args.threads, overrides=overrides, workers=args.workers,
        launcher=_launcher(args), **_metric(args)))
    if int(os.environ.get('RANK', 0)) == 0:
        print(f'{args.weights}: {_shown(metrics)}\nmetrics: {work_dir}/metrics.json')
    return 0


def _evaluate_features(args):
    from spark_bench.engine import probe_runs
    from spark_bench.records.schema import record_path
    start = _start(args, {})
    arch, method = probe_runs.arch_of(start['weights'], args.arch, args.key_prefix), start['method']
    names = ('input_size', 'label_fraction', 'label_seed', 'neighbours', 'batch_size', 'amp', 'device', 'workers')
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    record = probe_runs.run(probe_runs.ProbeOptions(
        config='', task=args.protocol, suite=args.suite, seed=args.seed, arch=arch, results=args.results,
        data_root=args.data_root or _embedded(args, 'classification'),
        work_dir=args.work_dir or str(default_work_dir('work_dirs', args.suite, 'probes', arch, method, args.seed)),
        threads=args.threads, launcher=_launcher(args), **start, **given))
    if record is not None and int(os.environ.get('RANK', 0)) == 0:
        print(f'{args.protocol} {arch} {method}: {_shown(record.metrics)}\n'
              f'record: {record_path(args.results, *record.identity)}')
    return 0


def _speed(args):
    """What decides how fast a run goes, and in how many processes."""
    names = ('batch_size', 'accumulate', 'amp', 'channels_last', 'workers', 'checkpoint_interval')
    return {'launcher': _launcher(args), **{name: getattr(args, name) for name in names}}


def _metric(args):
    return {'backend': args.backend, 'bootstrap': args.bootstrap}


def _launcher(args):
    return 'pytorch' if args.launcher == 'torchrun' else args.launcher


def _run_task(task, engine, args, method, part, **extra):
    from spark_bench.engine.runs import RunOptions, arch_of
    from spark_bench.records.schema import record_path
    config = _config_of(args)
    options = RunOptions(
        config=_config_path(args), suite=args.suite, method=method,
        data_root=args.data_root or _data_root(args, config, part), work_dir='', results=args.results, seed=args.seed,
        arch=args.arch, threads=args.threads, overrides=dict(args.cfg_options), **extra)
    arch = args.arch or arch_of(config, options.config)
    work_dir = args.work_dir or str(default_work_dir('work_dirs', args.suite, task, arch, method, args.seed))
    record = engine.run(replace(options, work_dir=work_dir))
    if int(os.environ.get('RANK', 0)) > 0:
        return 0
    print(f'{task} {arch} {method}: {_shown(record.metrics)}\nrecord: {record_path(args.results, *record.identity)}')
    return 0


def _shown(metrics):
    """The metrics in a line; recall and sizes are in the files."""
    metrics = {name: value for name, value in metrics.items() if not re.search(r'_ar|_(small|medium|large)$', name)}
    return ', '.join(f'{name} {"–" if value is None else f"{value:.4g}"}' for name, value in metrics.items())


def _config_path(args):
    """The config, from the current folder or else from where the recipes are installed."""
    if args.config is None or not os.path.isfile(args.config) and shipped(args.config).is_file():
        return str(shipped(args.config or args.default_config))
    return args.config


def _config_of(args):
    from spark_bench.engine.runs import RunOptions, load_config
    return load_config(RunOptions(config=_config_path(args), suite='', method='', data_root='', work_dir='', results='',
                                  overrides=dict(args.cfg_options)))


def _data_root(args, config, part):
    """Where a recipe looks for its data; the embedded data set where it names no place."""
    return config.get('data_root') or _embedded(args, part)


def _embedded(args, part):
    from spark_bench.data import embedded
    return str(getattr(embedded.prepare(cache_dir=args.cache_dir), part))


def _run_table(args):
    from spark_bench.tables import command as table
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
    from spark_bench.tables import differences as compare
    return compare.main(args)


def _run_report(args):
    from spark_bench.report import page as report
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
    # Of processes that train together, one tells what all of them met.
    if message and not getattr(error, 'told', False):
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
