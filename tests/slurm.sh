#!/usr/bin/env bash
# A real Slurm on this machine alone, without systemd: for tests, as root, on Debian or Ubuntu.
#
#   tests/slurm.sh up [--nodes N]    N nodes (2 unless told), each with 4 cores and 16 GB on paper, and 2 pretended GPUs
#   tests/slurm.sh down              cancel its jobs, stop it, and leave nothing of it behind
#   tests/slurm.sh status            exit status 0: it is up
#
# Its daemons have a folder, ports and a munge key of their own, and listen on loopback. Only /etc/slurm is shared with the rest
# of the machine, since Snakemake's executor takes away SLURM_CONF: a configuration that is not ours is refused. It lies
# there only while the daemons answer, because with it and without them every start of Snakemake waits 10 s.
set -euo pipefail
home=${STAR1_SLURM:-/run/star1-slurm}
conf=/etc/slurm/slurm.conf
ours="# star1's Slurm for tests"
export SLURM_CONF=$home/slurm.conf

die() { echo "error: tests/slurm.sh: $*" >&2; exit 1; }
is_up() { [ -f "$home/slurm.conf" ] && timeout 5 sinfo -h >/dev/null 2>&1; }
nodes_up() { sinfo -N -h -p cpu -o '%N %T' 2>/dev/null | grep -cE ' (idle|mixed|allocated|completing)$' || true; }

wait_for_nodes() {
    for _ in $(seq 100); do [ "$(nodes_up)" -ge "$1" ] && return || sleep 0.1; done
    return 1
}

# Processes that our daemons wrote down, and which still are what they were.
daemons() {
    local file pid
    for file in "$home"/*.pid; do
        [ -f "$file" ] && pid=$(cat "$file") && [ -n "$pid" ] && [ -r "/proc/$pid/comm" ] || continue
        case $(cat "/proc/$pid/comm") in slurmctld | slurmd | munged) echo "$pid" ;; esac
    done
}

install_packages() {
    local needed=()
    command -v slurmctld >/dev/null || needed+=(slurmctld)
    command -v slurmd >/dev/null || needed+=(slurmd)
    command -v sbatch >/dev/null || needed+=(slurm-client)
    command -v munged >/dev/null || needed+=(munge)
    [ ${#needed[@]} -eq 0 ] && return
    command -v apt-get >/dev/null || die "no ${needed[*]} and no apt-get; install Slurm and munge first"
    echo "installing ${needed[*]}" >&2
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${needed[@]}"; } >"$home/apt.log" 2>&1 ||
        die "packages cannot be installed; $(tail -n 1 "$home/apt.log")"
}

write_conf() {
    local host cores node
    host=$(hostname -s) cores=$(($(nproc) > 4 ? $(nproc) : 4))
    cat >"$home/slurm.conf" <<CONF
$ours
ClusterName=star1
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge.socket
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool/%n
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd-%n.pid
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd-%n.log
CommunicationParameters=NoInAddrAny
# Neither cgroups nor accounting: both would change more of the machine. A process over its job's memory is seen by polling.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,UsePss
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
# Ended jobs stay in squeue's sight, which is how Snakemake asks for them without accounting.
MinJobAge=3600
KillWait=5
OverTimeLimit=0
ReturnToService=2
SlurmdTimeout=30
SchedulerParameters=sched_interval=2,bf_interval=2
GresTypes=gpu
# Cores and memory are as written here, whatever the machine has.
SlurmdParameters=config_overrides
CONF
    : >"$home/gres.conf"
    for node in $(seq "$1"); do
        mkdir -p "$home/spool/node$node" "$home/dev/node$node"
        touch "$home/dev/node$node/"gpu{0,1}
        echo "NodeName=node$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$((16820 + node)) CPUs=$cores RealMemory=16000 Gres=gpu:2" >>"$home/slurm.conf"
        echo "NodeName=node$node Name=gpu File=$home/dev/node$node/gpu[0-1]" >>"$home/gres.conf"
    done
    {
        echo "PartitionName=cpu Nodes=ALL Default=YES MaxTime=2-0 State=UP"
        echo "PartitionName=gpu Nodes=ALL MaxTime=2-0 State=UP"
    } >>"$home/slurm.conf"
}

up() {
    if is_up; then
        wait_for_nodes "$1" || die "it is up with $(nodes_up) working nodes, and $1 were asked for; take it down first"
        sinfo -N -o '%N %P %T %c %m %G'
        return
    fi
    [ "$(id -u)" = 0 ] || die "needs root, since /etc/slurm is where Snakemake's executor looks"
    [ ! -f $conf ] || grep -qF "$ours" $conf || die "$conf is not of this script; a Slurm that is there already is left alone"
    down
    mkdir -p "$home/state" /etc/slurm
    chmod 755 "$home"
    install_packages
    write_conf "$1"
    (umask 077 && head -c 128 /dev/urandom >"$home/munge.key")
    munged --key-file="$home/munge.key" --socket="$home/munge.socket" --pid-file="$home/munged.pid" \
        --log-file="$home/munged.log" --seed-file="$home/munged.seed" --num-threads=2
    slurmctld -f "$home/slurm.conf"
    for node in $(seq "$1"); do slurmd -f "$home/slurm.conf" -N "node$node"; done
    if ! wait_for_nodes "$1"; then
        tail -n 5 "$home"/*.log >&2
        down
        die "its nodes did not come up; what its daemons said stands above"
    fi
    cp "$home/gres.conf" /etc/slurm/gres.conf
    cp "$home/slurm.conf" "$conf.new" && mv "$conf.new" $conf
    sinfo -N -o '%N %P %T %c %m %G'
}

down() {
    local pids
    if [ -f $conf ] && grep -qF "$ours" $conf; then rm -f $conf /etc/slurm/gres.conf; fi
    [ -d "$home" ] || return 0
    if is_up; then
        scancel --state=PENDING,RUNNING,SUSPENDED --user=root 2>/dev/null || true
        for _ in $(seq 100); do [ -z "$(squeue -h -t PD,R,CG 2>/dev/null)" ] && break || sleep 0.1; done
    fi
    mapfile -t pids < <(daemons)
    [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
    for _ in $(seq 100); do [ -z "$(daemons)" ] && break || sleep 0.1; done
    mapfile -t pids < <(daemons)
    [ ${#pids[@]} -eq 0 ] || kill -KILL "${pids[@]}" 2>/dev/null || true
    rm -rf "$home"
}

nodes=2
action=${1:-}
shift || true
while [ $# -gt 0 ]; do
    case $1 in
        --nodes) nodes=${2:?} && shift 2 ;;
        *) die "what is $1?" ;;
    esac
done
case $action in
    up) up "$nodes" ;;
    down) down ;;
    status) is_up && [ -f $conf ] && sinfo -N -o '%N %P %T %c %m %G' ;;
    *) sed -n '2,10p' "$0" >&2; exit 2 ;;
esac
