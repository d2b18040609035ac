# Sourced by tests/run and .ci/run. Every step is named as it starts, with the time since the whole run began; the first
# failure ends the run under the step's name; what could not be run is said aloud, and again at the end.

export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
step_name='setup'

# The outermost script keeps the account; one that it calls adds to it.
if [[ -z ${RUN_TALLY:-} ]]; then
    RUN_TALLY=$(mktemp)
    RUN_BEGAN=$(date +%s)
    export RUN_TALLY RUN_BEGAN
    run_is_outermost=1
else
    run_is_outermost=
fi

elapsed() {
    local seconds=$(($(date +%s) - RUN_BEGAN))
    printf '%d:%02d' $((seconds / 60)) $((seconds % 60))
}

# step NAME COMMAND [ARGUMENT...]
step() {
    step_name=$1
    shift
    local began=$SECONDS
    printf '\n==> [%s] %s\n' "$(elapsed)" "$step_name"
    "$@"
    printf '    ok: %s, %d s\n' "$step_name" $((SECONDS - began))
    printf 'passed\t%s\n' "$step_name" >>"$RUN_TALLY"
}

# not_run NAME REASON: with FULMAR_STRICT=1 it is a failure.
not_run() {
    step_name=$1
    printf '\n==> [%s] %s\n' "$(elapsed)" "$step_name"
    printf '    !!! NOT RUN: %s\n' "$2"
    printf 'skipped\t%s: %s\n' "$1" "$2" >>"$RUN_TALLY"
    [[ ${FULMAR_STRICT:-} != 1 ]]
}

# limit SECONDS COMMAND...: nobody is there to interrupt a hang, unless somebody sits at a terminal.
limit() {
    local seconds=$1
    shift
    if [[ -t 0 ]] || ! command -v timeout >/dev/null; then
        "$@"
    else
        local status=0
        timeout --kill-after=10 "$seconds" "$@" || status=$?
        [[ $status != 124 && $status != 137 ]] || printf '    still running after %d s, ended: %s\n' "$seconds" "$*"
        return "$status"
    fi
}

# end_all PROCESS: with all that it started, which may be in other process groups, as `timeout` puts
# them.
end_all() {
    local child
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do
        end_all "$child"
    done
    kill "$1" 2>/dev/null || true
}

finish() {
    local status=$? job
    for job in $(jobs -p); do
        end_all "$job"
    done
    if ((status != 0)); then
        printf '\n!!! FAILED after %s in: %s\n' "$(elapsed)" "$step_name"
    fi
    if [[ -n $run_is_outermost ]]; then
        local passed skipped
        passed=$(grep -c ^passed "$RUN_TALLY") || true
        skipped=$(grep -c ^skipped "$RUN_TALLY") || true
        if ((skipped > 0)); then
            printf '\nNOT RUN, so nothing is known about:\n'
            sed -n 's/^skipped\t/  /p' "$RUN_TALLY"
        fi
        printf '\nAfter %s:\n' "$(elapsed)"
        printf 'steps: %d passed, %d failed, %d skipped\n' "$passed" $((status != 0)) "$skipped"
        rm -f "$RUN_TALLY"
    fi
    exit "$status"
}
trap finish EXIT
