#!/bin/bash
# Ends what slurm_up.sh FOLDER started: its jobs, its daemons.
set -uo pipefail
export SLURM_CONF="$1/slurm.conf"
scancel --state=PENDING --user="$(id -un)"
scancel --state=RUNNING --user="$(id -un)"
for _ in $(seq 90); do [ -z "$(squeue --noheader)" ] && break; sleep 1; done
for name in slurmd-n1 slurmd-n2 slurmctld munge; do
    [ -f "$1/$name.pid" ] || continue
    pid="$(cat "$1/$name.pid")"
    kill "$pid"
    for _ in $(seq 20); do kill -0 "$pid" 2> /dev/null || break; sleep 0.5; done  # slurmctld saves its state as it ends
done
exit 0
