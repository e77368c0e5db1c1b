#!/bin/bash
# Training on a Cloud TPU pod slice: the same command on every host of the slice.
#
#   1. gcloud auth login, a project with TPU quota, and a disk that all hosts share (Filestore, over NFS), with the data
#      folder in it.
#   2. Change the lines marked "yours".
#   3. bash examples/cluster/tpu_vm.sh create      once: the slice
#   4. bash examples/cluster/tpu_vm.sh install     once: jaxvsr on every host, and the shared disk
#   5. bash examples/cluster/tpu_vm.sh train       as often as needed: the same command goes on after the last checkpoint
#   6. bash examples/cluster/tpu_vm.sh delete
#
# Every host finds the others by itself, from the slice's metadata. Host 0 prints; the others are silent unless they fail.
set -eu

name=jaxvsr                            # yours
zone=us-west4-a                        # yours
type=v5litepod-16                      # yours
image=v2-alpha-tpuv5-lite              # yours: the runtime that belongs to the type
shared=10.0.0.2:/shared                # yours: the NFS share
source=https://example.com/jaxvsr.git  # yours: where the hosts clone jaxvsr from

on_all() {
    gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

case ${1:-} in
create)
    gcloud compute tpus tpu-vm create "$name" --zone="$zone" --accelerator-type="$type" --version="$image"
    ;;
install)
    on_all "sudo apt-get install -y nfs-common && sudo mkdir -p /shared && sudo mount $shared /shared"
    on_all "git clone $source jaxvsr && cd jaxvsr && make setup && .venv/bin/pip install '.[tpu]'"
    ;;
train)
    on_all "cd jaxvsr && .venv/bin/python launch/train.py --config vsgrpo-2b --data /shared/vsi100k \
        --run-dir /shared/runs/vsgrpo-2b --resume"
    ;;
delete)
    gcloud compute tpus tpu-vm delete "$name" --zone="$zone" --quiet
    ;;
*)
    echo "usage: bash examples/cluster/tpu_vm.sh create|install|train|delete" >&2
    exit 2
    ;;
esac
