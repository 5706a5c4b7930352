#!/usr/bin/env bash
# Asks for TPUs and waits until they are there: PROJECT=... ZONE=... launch/tpu_vm/create.sh [option of gcloud, as --spot]
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=launch/tpu_vm/settings.sh
source "$here/settings.sh"

if ((SLICES > 1)); then
    nodes=(--node-count="$SLICES" --node-prefix="$NAME")
else
    nodes=(--node-id="$NAME")
fi
tpus create "${nodes[@]}" --accelerator-type="$ACCELERATOR_TYPE" --runtime-version="$RUNTIME_VERSION" "$@"

echo "waiting for $SLICES x $ACCELERATOR_TYPE; Ctrl-C ends the waiting, not the request"
while true; do
    state=$(tpus describe --format="value(state.state)")
    echo "$(date +%T) $state"
    case $state in
        ACTIVE) exit 0 ;;
        FAILED | SUSPENDED)
            tpus describe --format="value(state.stateData)" >&2
            echo "error: the request is $state; launch/tpu_vm/delete.sh removes it" >&2
            exit 1
            ;;
    esac
    sleep 30
done
