#!/usr/bin/env bash
# Pretrain on the GPUs of this machine: tools/dist_pretrain.sh CONFIG GPUS --data-root DIR [options of spark-bench pretrain]
# On several machines, set NNODES, NODE_RANK and MASTER_ADDR, as torchrun takes them.
set -euo pipefail
config=${1:?give CONFIG GPUS} gpus=${2:?give CONFIG GPUS}
exec "${PYTHON:-python}" -m torch.distributed.run --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${MASTER_PORT:-29500}" --nproc-per-node "$gpus" \
    -m spark_bench pretrain "$config" --launcher pytorch "${@:3}"
