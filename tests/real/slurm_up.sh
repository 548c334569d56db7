#!/bin/bash
# A SLURM of two nodes with four pretended GPUs each, on this host and from nothing: slurm_up.sh FOLDER; then SLURM_CONF=FOLDER/slurm.conf.
# Needs root, apt where SLURM is not installed, and a host on which it starts: else it says so and exits with 3. slurm_down.sh FOLDER ends it.
set -euo pipefail
folder="$(realpath --canonicalize-missing "$1")"
skip() { echo "no SLURM: $1" >&2; exit 3; }
[ "$(id -u)" = 0 ] || skip "it takes root"
if ! command -v slurmctld > /dev/null || ! command -v munged > /dev/null; then
    command -v apt-get > /dev/null || skip "it is not installed, and there is no apt"
    { apt-get update --quiet=2 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends --quiet=2 slurm-wlm munge
    } > /dev/null 2>&1 || skip "apt could not install slurm-wlm"
fi

mkdir -p "$folder"/{dev,ctld}
for gpu in 0 1 2 3; do ln -sf /dev/null "$folder/dev/gpu$gpu"; done  # SLURM wants devices
( umask 077; head --bytes 1024 /dev/urandom > "$folder/munge.key" )
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munge.pid" \
    --log-file="$folder/munge.log" --seed-file="$folder/munge.seed" 2> "$folder/munge.err" || skip "munged does not start: $(tail -1 "$folder/munge.err")"

port=$((20000 + $$ % 10000))  # of its own: two of these may stand side by side
cat > "$folder/gres.conf" <<CONF
NodeName=n[1-2] Name=gpu File=$folder/dev/gpu[0-3]
CONF
cat > "$folder/slurm.conf" <<CONF
ClusterName=tests
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=$port
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
StateSaveLocation=$folder/ctld
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
ReturnToService=2
KillWait=60
JobRequeue=0
SlurmdParameters=config_overrides
NodeName=n[1-2] NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + 2))] CPUs=48 CoresPerSocket=48 Sockets=1 RealMemory=20000 Gres=gpu:4 State=UNKNOWN
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF
export SLURM_CONF="$folder/slurm.conf"
slurmctld -c -f "$SLURM_CONF" || skip "slurmctld does not start"
for node in n1 n2; do slurmd -N "$node" -f "$SLURM_CONF" || skip "slurmd does not start"; done
for _ in $(seq 60); do
    [ "$(sinfo --noheader --states=idle --format=%D)" = 2 ] && exit 0
    sleep 1
done
skip "its two nodes are not idle after a minute: $(tail --lines=2 "$folder"/slurm*.log)"
