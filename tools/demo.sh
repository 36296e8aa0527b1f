#!/usr/bin/env bash
# Builds Pleiad and asks the bundled model, or chats with it.
#   tools/demo.sh "What is the capital of France?"
#   tools/demo.sh
set -eu
cd "$(dirname "$0")/.."

tools/setup.sh
mkdir -p build
if ! { cmake --preset release && cmake --build --preset release; } >build/demo.log 2>&1; then
    tail -n 30 build/demo.log >&2
    echo "demo: the build failed; all of it is in build/demo.log" >&2
    exit 1
fi

# A model this small is right when it says what it is surest of.
exec build/release/pleiad run -m tools/demo_model/demo.gguf --temp 0 ${1+-p "$1"}
