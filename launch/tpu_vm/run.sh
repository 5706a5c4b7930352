#!/usr/bin/env bash
# Installs this tree on every host and starts, or continues, a training there:
#
#   PROJECT=... ZONE=... NFS=10.0.0.2:/share launch/tpu_vm/run.sh --config=configs/vitl.py \
#       --config.data.corpus=/shared/corpora/mine --config.workdir=/shared/runs/mine
#
# It runs as a service of systemd, which starts it again after a crash and after exit code 75 (saved, wants to go on), but not
# after an error in what you gave (2). NFS is the file system that all hosts share; it appears as /shared.
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=launch/tpu_vm/settings.sh
source "$here/settings.sh"

if (($# == 0)); then
    echo "error: no arguments for the training; at least --config=configs/... is needed" >&2
    exit 2
fi

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
tar --create --gzip --file="$temporary/medp-clip.tar.gz" --exclude=__pycache__ --directory="$here/../.." \
    setup.py pyproject.toml README.md LICENSE medp_clip_jax data configs launch
echo "== copying this tree to every host"
gcloud compute tpus queued-resources scp "$temporary/medp-clip.tar.gz" "$NAME:" \
    --project="$PROJECT" --zone="$ZONE" --node=all --worker=all

echo "== installing"
everywhere "set -e
mkdir -p medp-clip
tar -xzf medp-clip.tar.gz -C medp-clip
cd medp-clip
[ -d .venv ] || { sudo apt-get -qq update && sudo apt-get -qq install -y python3-venv nfs-common; python3 -m venv .venv; }
.venv/bin/pip install --quiet . 'jax[tpu]'
if [ -n '${NFS:-}' ] && ! mountpoint -q /shared; then
    sudo mkdir -p /shared
    sudo mount -t nfs '${NFS:-}' /shared
fi"

echo "== starting"
arguments=$(printf '%q ' "$@")
everywhere "sudo systemctl stop medp-clip 2>/dev/null; sudo systemctl reset-failed medp-clip 2>/dev/null
sudo systemd-run --unit=medp-clip --uid=\$USER --working-directory=\$HOME/medp-clip --setenv=PYTHONUNBUFFERED=1 \
    --setenv=HOME=\$HOME --property=Restart=on-failure --property=RestartSec=10 --property=RestartPreventExitStatus=2 \
    --property=TimeoutStopSec=180 --property=KillMode=mixed \
    \$HOME/medp-clip/.venv/bin/python -m medp_clip_jax.train $arguments"
echo "started; launch/tpu_vm/logs.sh shows what it prints, launch/tpu_vm/stop.sh saves and stops it"
