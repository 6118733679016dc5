#!/bin/sh
# One machine's part of a training run on several: docker/train/launch.sh RECIPE [FLAG ...]
#
#   MASTER=10.0.0.1 MACHINES=4 RANK=0 docker/train/launch.sh paper/cifar10_short --device cuda --out /shared/runs/short
#
# The same command on every machine, with RANK=0 on MASTER, where they meet, and another on the others; --out is a
# folder that all of them see: the first process writes checkpoints there, and each reads them when the run is resumed.
# A machine that fails and comes back joins again, and all go on from the last checkpoint. With another number of
# machines the same command resumes the same run.
#
#   MACHINES=1 RANK=0 MASTER=127.0.0.1 PORT=29400     where the processes meet
#   PROCESSES=gpu         processes on this machine: gpu is one for each GPU, a number is that many
#   RESTARTS=3            how often the processes are started again after a failure
set -eu
machines=${MACHINES:-1} rank=${RANK:-0} master=${MASTER:-127.0.0.1} port=${PORT:-29400}
here=false
[ "$rank" != 0 ] || here=true
# Whoever hosts the meeting place is said, not guessed from names: a pod does not always resolve its own.
exec python -m torch.distributed.run --nnodes "$machines" --nproc-per-node "${PROCESSES:-gpu}" \
  --max-restarts "${RESTARTS:-3}" --rdzv-backend c10d --rdzv-id limpid --rdzv-endpoint "$master:$port" \
  --rdzv-conf "is_host=$here" -m models train "$@" --resume
