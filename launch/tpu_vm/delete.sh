#!/usr/bin/env bash
# Gives the TPUs back, which ends what they cost: PROJECT=... ZONE=... launch/tpu_vm/delete.sh
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=launch/tpu_vm/settings.sh
source "$here/settings.sh"

tpus delete --force --quiet
