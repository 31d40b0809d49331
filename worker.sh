#!/usr/bin/env bash
# Workers: one dramatiq master for each queue named, all four without a name.
#
#   ./worker.sh [listener] [sweeper] [webhook] [email]
#
# One queue: this script becomes its master, so its pid is the master's. Several: it waits for their masters, passes
# SIGTERM and SIGINT on, and when one of them ends by itself it stops the others and exits with an error.
#
#   LISTENER_PROCESSES SWEEPER_PROCESSES WEBHOOK_PROCESSES EMAIL_PROCESSES   processes of each (1)
#   LISTENER_THREADS   SWEEPER_THREADS   WEBHOOK_THREADS   EMAIL_THREADS     threads of each process (8 4 16 2)
#   WORKER_STOP_SECONDS      how long a stop waits for what runs (50); what does not end by then runs again elsewhere
#   METRICS_PORT             the port of /metrics (METRICS_HOST: 127.0.0.1); one process serves it, the others stand by
#   PROMETHEUS_MULTIPROC_DIR a folder for the counters of all workers that shall share a page, made and wiped by whoever
#                            names it, before any of them starts; unless named, a folder of this port's own is wiped here
#
# Only the sweeper sees WALLET_MNEMONIC and GAS_KEY, and only webhook and email see SECRETS_KEY (or their _FILE forms).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
command -v dramatiq >/dev/null || PATH=$here/.venv/bin:$PATH
export PATH PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}

# Dramatiq polls Redis. At its default of 1000 ms an immediate message waits up to a second; at 100 ms a tenth of that,
# for three percent of a core. The hunt for what dead workers held rides on these polls too.
export dramatiq_worker_timeout=${dramatiq_worker_timeout:-100}
# How long a consumer waits before it tries a Redis again that was away.
export dramatiq_restart_delay=${dramatiq_restart_delay:-1000}

queues=("$@")
[[ ${#queues[@]} -gt 0 ]] || queues=(listener sweeper webhook email)
declare -A threads=([listener]=8 [sweeper]=4 [webhook]=16 [email]=2)
for queue in "${queues[@]}"; do
    if [[ -z ${threads[$queue]:-} ]]; then
        echo "worker.sh: no queue '$queue'; there are: listener sweeper webhook email" >&2
        exit 64
    fi
done

if [[ ${METRICS_PORT:-0} != 0 && -z ${PROMETHEUS_MULTIPROC_DIR:-} ]]; then
    export PROMETHEUS_MULTIPROC_DIR=${TMPDIR:-/tmp}/ctrip-metrics-$(id -u)-$METRICS_PORT
    rm -rf -- "$PROMETHEUS_MULTIPROC_DIR"
    mkdir -m 700 -- "$PROMETHEUS_MULTIPROC_DIR"
fi

# Become the master of a queue, by way of the command given after it, if any.
become() {
    local queue=$1 kept='' name processes=${1^^}_PROCESSES count=${1^^}_THREADS
    shift
    case $queue in
        sweeper) kept='WALLET_MNEMONIC GAS_KEY' ;;
        webhook | email) kept='SECRETS_KEY' ;;
    esac
    for name in WALLET_MNEMONIC GAS_KEY SECRETS_KEY; do
        [[ " $kept " == *" $name "* ]] || unset "$name" "${name}_FILE"
    done
    # A master waits for its workers before it forks others, and meanwhile hears neither a signal nor that a worker has
    # died. We fork no others, so it need not wait.
    exec "$@" dramatiq "actors.$queue" --queues "$queue" --skip-logging --worker-fork-timeout 10 \
        --processes "${!processes:-1}" --threads "${!count:-${threads[$queue]}}" \
        --worker-shutdown-timeout "$((${WORKER_STOP_SECONDS:-50} * 1000))"
}

[[ ${#queues[@]} -gt 1 ]] || become "${queues[0]}"

# A process group for each master: Ctrl-C in a terminal then reaches this script alone, which tells each of them once.
set -m
masters=()
for queue in "${queues[@]}"; do
    become "$queue" python3 -m actors.tether $$ &
    masters+=($!)
done

stopping=
trap 'stopping=yes; kill -TERM "${masters[@]}" 2>/dev/null || true' TERM INT HUP

status=0
wait -n || status=$?
if [[ -z $stopping ]]; then
    echo "worker.sh: a master has ended with code $status; stopping the others" >&2
    [[ $status -ne 0 ]] || status=1
    kill -TERM "${masters[@]}" 2>/dev/null || true
else
    status=0
fi
for master in "${masters[@]}"; do
    while kill -0 "$master" 2>/dev/null; do
        wait "$master" || true
    done
done
exit "$status"
