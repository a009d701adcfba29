#!/usr/bin/env bash
# Installs Slurm and munge from the distribution's packages, where this user may. Starts none of their daemons.
# Where it cannot, it says why and ends well: the tests that need Slurm say so again, and are skipped.
set -uo pipefail
PATH=$PATH:/usr/sbin:/sbin
for program in munged slurmctld slurmd sbatch; do
    command -v "$program" >/dev/null || missing=$program
done
if [ -z "${missing:-}" ]; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "Slurm is not installed: $missing is missing, and only root may install packages"
elif ! command -v apt-get >/dev/null; then
    echo "Slurm is not installed: $missing is missing, and there is no apt-get to install it with"
else
    # RUNLEVEL=1: invoke-rc.d starts no service.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    if said=$(apt-get update -qq 2>&1 &&
        apt-get install -qq --no-install-recommends slurmctld slurmd slurm-client munge 2>&1); then
        echo "installed $(slurmd -V) and $(munged --version | head -1)"
    else
        echo "Slurm is not installed, apt-get failed: $(tail -n 1 <<<"$said")"
    fi
fi
