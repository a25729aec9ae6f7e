#!/usr/bin/env bash
# Train a detector under Slurm: tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of spark-bench detect]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS are taken from the environment, as in OpenMMLab.
set -euo pipefail
words='give PARTITION JOB_NAME CONFIG WORK_DIR'
partition=${1:?$words} name=${2:?$words} config=${3:?$words} work_dir=${4:?$words}
gpus=${GPUS:-8} per_node=${GPUS_PER_NODE:-8}
# shellcheck disable=SC2086 # SRUN_ARGS is a list of options
exec srun --partition "$partition" --job-name "$name" --ntasks "$gpus" \
    --ntasks-per-node "$((gpus < per_node ? gpus : per_node))" --gres "gpu:$((gpus < per_node ? gpus : per_node))" \
    --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -m spark_bench detect "$config" --work-dir "$work_dir" --launcher slurm "${@:5}"
