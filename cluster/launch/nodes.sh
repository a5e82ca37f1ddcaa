#!/bin/sh
# Ray by hand, on machines that you reach by ssh. The first one is the head.
#
#   RLCAS_VENV=/shared/rlcas/.venv sh nodes.sh start HEAD WORKER ...
#   RLCAS_VENV=/shared/rlcas/.venv sh nodes.sh stop HEAD WORKER ...
#
# RLCAS_VENV  the environment with rlcas[cluster], at the same path on every machine: one Python, one Ray, one rlcas.
#             On a folder that all share it need be made only once.
# RAY_PORT    the head's port [6379]. Between the nodes every port must be open, from outside none but ssh.
set -eu
venv=${RLCAS_VENV:?the environment with rlcas, at the same path on every machine}
port=${RAY_PORT:-6379}
[ $# -ge 2 ] || { echo "usage: sh nodes.sh start|stop HEAD WORKER ..." >&2; exit 2; }
case $venv in /*) ;; *) echo "nodes.sh: RLCAS_VENV $venv is relative: every machine needs it at one path" >&2; exit 2 ;; esac
case $port in *[!0-9]*) echo "nodes.sh: RAY_PORT $port is not a port" >&2; exit 2 ;; esac
action=$1
head=$2
address=${head##*@}:$port # by which the other machines reach it
shift

ray_on() { # HOST ARGUMENTS OF ray ...
    host=$1
    shift
    ssh "$host" "export RAY_AUTH_MODE=token PATH='$venv/bin':\"\$PATH\"; ray $*"
}

case $action in
start)
    # Every node and every command needs the same token. It goes through a pipe, where `ps` does not show it.
    token=$("$venv/bin/ray" get-auth-token --generate)
    for host in "$@"; do
        printf %s "$token" | ssh "$host" 'umask 077; mkdir -p ~/.ray; cat >~/.ray/auth_token; chmod 600 ~/.ray/auth_token'
    done
    ray_on "$head" start --head --port="$port" --dashboard-host=127.0.0.1 --disable-usage-stats
    shift
    for host in "$@"; do
        ray_on "$host" start --address="$address" --disable-usage-stats
    done
    echo "On $head, whatever rlcas does then runs on all of them:"
    echo "  export RAY_AUTH_MODE=token RAY_ADDRESS=$address"
    echo "  rlcas doctor --cluster --out /shared/runs"
    ;;
stop)
    failed=0
    for host in "$@"; do
        ray_on "$host" stop || failed=1
    done
    exit $failed
    ;;
*)
    echo "nodes.sh: $action is neither start nor stop" >&2
    exit 2
    ;;
esac
