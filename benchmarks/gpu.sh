#!/usr/bin/env bash
# All checks that need a GPU, in at most eight minutes: tests, workloads beside peers, the time and memory of a step.
# Needs a Python with torch >= 2.10 and NumPy; no network, and nothing is installed. PYTHON names another Python.
set -eu
cd "$(dirname "$0")/.."
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1 ONECYCLE_HOME="$home"
"${PYTHON:-python3}" benchmarks/gpu.py "$@"
