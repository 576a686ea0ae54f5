#!/usr/bin/env bash
# Fetch a batch, or all that are listed: download_batch.sh SOURCE OUTPUT [options of `aml-miner download`]
set -euo pipefail
if [ "$#" -lt 2 ]; then
    printf 'usage: %s SOURCE OUTPUT [options of aml-miner download]\n' "${0##*/}" >&2
    exit 2
fi
source=$1 output=$2
shift 2
exec aml-miner download "$source" --output "$output" "$@"
