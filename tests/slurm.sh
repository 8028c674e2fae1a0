#!/usr/bin/env bash
# A real Slurm of two nodes on this machine, for the tests; as root, on loopback, without systemd or accounts.
#   tests/slurm.sh up DIR      start munged, slurmctld and two slurmd's; everything of theirs is in DIR
#   tests/slurm.sh down DIR    stop exactly those
# Partitions `low` and `high` share the nodes n1 and n2: a job in `high` preempts one in `low`, which is requeued.
# Packages: slurmctld slurmd slurm-client munge (Debian's slurmd is built to run several on a machine).
set -euo pipefail
what=$1 dir=$2
export SLURM_CONF=$dir/slurm.conf

up() {
  local host memory n
  host=$(hostname -s) memory=$(awk '/MemTotal/{print int($2/1024*0.9)}' /proc/meminfo)
  mkdir -p "$dir"/state "$dir"/log "$dir"/munge "$dir"/spool-n1 "$dir"/spool-n2
  chmod 755 "$dir"
  # A munge of its own: socket, key and pid are in DIR.
  [ -f "$dir/munge/key" ] || (umask 077 && dd if=/dev/urandom of="$dir/munge/key" bs=1 count=1024 2>/dev/null)
  chown -R munge:munge "$dir/munge"
  chmod 755 "$dir/munge"
  runuser -u munge -- munged --key-file="$dir/munge/key" --socket="$dir/munge/sock" \
    --pid-file="$dir/munge/munged.pid" --seed-file="$dir/munge/seed" --log-file="$dir/munge/log"
  cat >"$SLURM_CONF" <<CONF
ClusterName=ltx
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/sock
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort=46817
SrunPortRange=46900-47400
StateSaveLocation=$dir/state
SlurmctldPidFile=$dir/slurmctld.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdSpoolDir=$dir/spool-%n
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmdLogFile=$dir/log/slurmd-%n.log
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
KillWait=3
SlurmdTimeout=10
NodeName=n1 NodeAddr=127.0.0.1 NodeHostname=$host Port=46818 CPUs=2 RealMemory=$((memory / 2)) State=UNKNOWN
NodeName=n2 NodeAddr=127.0.0.1 NodeHostname=$host Port=46819 CPUs=2 RealMemory=$((memory / 2)) State=UNKNOWN
PartitionName=low Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=5
PartitionName=high Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
CONF
  slurmctld -f "$SLURM_CONF" -c
  for n in n1 n2; do slurmd -f "$SLURM_CONF" -N $n; done
  for _ in $(seq 60); do
    [ "$(sinfo -h -N -o %T -p low 2>/dev/null | grep -c '^idle$')" = 2 ] && return
    sleep 0.5
  done
  tail -5 "$dir"/log/*.log >&2
  return 1
}

down() {
  local file pid
  for file in "$dir"/slurmd-*.pid "$dir"/slurmctld.pid "$dir"/munge/munged.pid; do
    [ -s "$file" ] && pid=$(cat "$file") && kill "$pid" 2>/dev/null || continue
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  done
}

"$what"
