#!/usr/bin/env bash
# Workers: one dramatiq master for each queue named, all four without a name.
#
#   ./worker.sh [listener] [sweeper] [webhook] [email]
#
# One queue: this script becomes its master, so its pid is the master's. Several: it waits for their masters, passes
# SIGTERM, SIGINT and SIGHUP on, and when one of them ends by itself it stops the others and exits with an error.
#
#   SIGTERM, SIGINT   stop: finish what runs, put the rest back, exit with 0; a second one changes nothing
#   SIGHUP            the same, then start anew: chains.yaml and the files of secrets are read again
#
# The table in actors/__init__.py says what each queue's workers are, and these change it:
#
#   LISTENER_PROCESSES SWEEPER_PROCESSES WEBHOOK_PROCESSES EMAIL_PROCESSES   processes of each
#   LISTENER_THREADS   SWEEPER_THREADS   WEBHOOK_THREADS   EMAIL_THREADS     threads of each process
#   WORKER_STOP_SECONDS      how long a stop waits for what runs; what does not end by then runs again elsewhere
#   METRICS_PORT             the port of /metrics (METRICS_HOST: 127.0.0.1); one process serves it, the others stand by
#   PROMETHEUS_MULTIPROC_DIR a folder for the counters of all workers that shall share a page, made and wiped by whoever
#                            names it, before any of them starts; unless named, a folder of this port's own is wiped here
#
# A queue's workers see the secrets that the table gives them (or their _FILE forms), and none of the others'.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
command -v dramatiq >/dev/null || PATH=$here/.venv/bin:$PATH
export PATH PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}

# Dramatiq polls Redis. At its default of 1000 ms an immediate message waits up to a second; at 50 ms a twentieth of
# that, for three percent of a core per process. The hunt for what dead workers held rides on these polls too.
export dramatiq_worker_timeout=${dramatiq_worker_timeout:-50}
# A listener holds whole blocks for a moment. By itself glibc keeps such megabytes, for each thread its own, for good.
export MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX:-1}
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-131072} MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-131072}
# How long a consumer waits before it tries a Redis again that was away.
export dramatiq_restart_delay=${dramatiq_restart_delay:-1000}

# Sets: queues secrets processes threads kept stop_seconds
table=$(python3 -m actors.groups "$@")
eval "$table"

if [[ ${METRICS_PORT:-0} != 0 && -z ${PROMETHEUS_MULTIPROC_DIR:-} ]]; then
    export PROMETHEUS_MULTIPROC_DIR=${TMPDIR:-/tmp}/ctrip-metrics-$(id -u)-$METRICS_PORT
    rm -rf -- "$PROMETHEUS_MULTIPROC_DIR"
    mkdir -m 700 -- "$PROMETHEUS_MULTIPROC_DIR"
fi

# Become the master of a queue, by way of the command given after it, if any.
become() {
    local queue=$1 secret own_processes=${1^^}_PROCESSES own_threads=${1^^}_THREADS
    shift
    # The process knows how many threads it has: a part of them is for slow destinations.
    export "$own_threads=${!own_threads:-${threads[$queue]}}"
    for secret in "${secrets[@]}"; do
        [[ " ${kept[$queue]} " == *" $secret "* ]] || unset "$secret" "${secret}_FILE"
    done
    # A master waits for its workers before it forks others, and meanwhile hears neither a signal nor that a worker has
    # died. We fork no others, so it need not wait.
    exec "$@" dramatiq "actors.$queue" --queues "$queue" --skip-logging --worker-fork-timeout 10 \
        --processes "${!own_processes:-${processes[$queue]}}" --threads "${!own_threads}" \
        --worker-shutdown-timeout "$((${WORKER_STOP_SECONDS:-${stop_seconds[$queue]}} * 1000))"
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
tell() { kill "-$1" "${masters[@]}" 2>/dev/null || true; }
trap 'stopping=yes; tell TERM' TERM INT
trap 'tell HUP' HUP

# Wait until a master has ended: a signal ends a wait too.
ended() {
    local master
    for master in "${masters[@]}"; do
        kill -0 "$master" 2>/dev/null || return 0
    done
    return 1
}

status=0
until ended; do
    status=0
    wait -n || status=$?
done
if [[ -z $stopping ]]; then
    echo "worker.sh: a master has ended with code $status; stopping the others" >&2
    [[ $status -ne 0 ]] || status=1
    tell TERM
else
    status=0
fi
for master in "${masters[@]}"; do
    while kill -0 "$master" 2>/dev/null; do
        wait "$master" || true
    done
done
exit "$status"
