#!/usr/bin/env bash
# Shows what the training prints on the first host, and goes on showing it: PROJECT=... ZONE=... launch/tpu_vm/logs.sh
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=launch/tpu_vm/settings.sh
source "$here/settings.sh"

tpus ssh --node=0 --worker="${WORKER:-0}" --command="sudo journalctl --unit=medp-clip --lines=100 --follow --output=cat"
