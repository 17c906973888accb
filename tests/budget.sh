#!/usr/bin/env bash
# Measures what building on Mobilis costs, and fails when it is over budget. Takes some minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
MOBILIS_BUDGET=1 cargo test --test budget -- --nocapture --test-threads 1
