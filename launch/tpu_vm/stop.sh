#!/usr/bin/env bash
# Has the training save and stop on all hosts; run.sh with the same arguments continues it: PROJECT=... ZONE=... launch/tpu_vm/stop.sh
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=launch/tpu_vm/settings.sh
source "$here/settings.sh"

everywhere "sudo systemctl stop medp-clip"
