# What all scripts of this directory share: sourced, not run. docs/launch/tpu_vm.md explains the variables.
# shellcheck shell=bash
set -euo pipefail

: "${PROJECT:?set PROJECT to the id of your Google Cloud project}"
: "${ZONE:?set ZONE to a zone with the TPUs you want, for example us-west4-a}"
NAME=${NAME:-medp-clip}
ACCELERATOR_TYPE=${ACCELERATOR_TYPE:-v5litepod-16}
RUNTIME_VERSION=${RUNTIME_VERSION:-v2-alpha-tpuv5-lite}
SLICES=${SLICES:-1}

tpus() { # tpus VERB ARGUMENT...: gcloud for this project and zone
    gcloud compute tpus queued-resources "$1" "$NAME" --project="$PROJECT" --zone="$ZONE" "${@:2}"
}

everywhere() { # everywhere COMMAND: on every host of every slice
    tpus ssh --node=all --worker=all --command="$1"
}
