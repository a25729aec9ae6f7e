#!/usr/bin/env bash
# Pretrain under Slurm: tools/slurm_pretrain.sh PARTITION CONFIG GPUS --data-root DIR [options of spark-bench pretrain]
# GPUS_PER_NODE (8), CPUS_PER_TASK (8) and SRUN_ARGS are taken from the environment.
set -euo pipefail
partition=${1:?give PARTITION CONFIG GPUS} config=${2:?give PARTITION CONFIG GPUS} gpus=${3:?give PARTITION CONFIG GPUS}
per_node=${GPUS_PER_NODE:-8}
# shellcheck disable=SC2086 # SRUN_ARGS is a list of options
exec srun --partition "$partition" --job-name spark --ntasks "$gpus" \
    --ntasks-per-node "$((gpus < per_node ? gpus : per_node))" --gres "gpu:$((gpus < per_node ? gpus : per_node))" \
    --cpus-per-task "${CPUS_PER_TASK:-8}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -m spark_bench pretrain "$config" --launcher slurm "${@:4}"
