#!/bin/sh
# A command of rlcas as a job on a cluster that runs already, whose head you reach by ssh.
#
#   cd my_project
#   RLCAS_VENV=.venv sh submit.sh HEAD run --data folder:/shared/my_images --out /shared/runs/first
#
# The current folder goes along, without what .gitignore and .rayignore name: less than 100 MiB. The logs come here, the
# exit status is the command's own, and Ctrl-C ends the watching, not the job. The cluster's token must be in
# ~/.ray/auth_token here too.
#
# RLCAS_VENV  this machine's environment with rlcas[cluster].
# LOCAL_PORT  a free port here, by which the head's dashboard is reached meanwhile [8265].
set -eu
venv=${RLCAS_VENV:?the environment with rlcas on this machine}
port=${LOCAL_PORT:-8265}
[ $# -ge 2 ] || { echo "usage: sh submit.sh HEAD COMMAND ..." >&2; exit 2; }
head=$1
shift

sockets=$(mktemp -d)
close() {
    ssh -S "$sockets/head" -O exit "$head" 2>/dev/null || :
    rm -rf "$sockets"
}
trap close EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

ssh -fNM -S "$sockets/head" -o ExitOnForwardFailure=yes -L "127.0.0.1:$port:127.0.0.1:8265" "$head"
export RAY_AUTH_MODE=token
"$venv/bin/rlcas" submit --address "http://127.0.0.1:$port" -- "$@"
