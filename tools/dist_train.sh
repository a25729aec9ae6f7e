#!/usr/bin/env bash
# Train a detector on the GPUs of this machine: tools/dist_train.sh CONFIG GPUS [options of spark-bench detect]
# On several machines, set NNODES, NODE_RANK and MASTER_ADDR, as torchrun takes them.
set -euo pipefail
config=${1:?give CONFIG GPUS} gpus=${2:?give CONFIG GPUS}
exec "${PYTHON:-python}" -m torch.distributed.run --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-${MASTER_PORT:-29500}}" --nproc-per-node "$gpus" \
    -m spark_bench detect "$config" --launcher torchrun "${@:3}"
