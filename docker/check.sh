#!/usr/bin/env bash
# Build an image and see it run as it is meant to: docker/check.sh [TOOL]
#
# As a user that is not root, on a read-only root file system and without capabilities, it must be ready in time,
# answer /classify, refuse writes, and at SIGTERM finish the request in progress before it stops.
#
#   TOOL                  docker (default), podman, or any program that takes their arguments
#   IMAGE=NAME            check that image instead of building one
#   TARGET=cpu            what to build; PORT=8000: where to publish it on this machine
#   READY=10              seconds from the start until it is ready; more where others use the machine
#   BUILD_ARGS="..."      more arguments of the build, such as --build-arg PIP_INDEX_URL=...
set -euo pipefail # so greps here read to the end, without -q: who writes into a closed pipe fails
cd "$(dirname "$0")/.."

tool=${1:-docker} image=${IMAGE:-limpid:check} port=${PORT:-8000}
url=http://127.0.0.1:$port
largest=1500000000 slowest=$((${READY:-10} * 1000))
export BUILDAH_FORMAT=docker # podman's own format has no HEALTHCHECK

say() { printf '%s\n' "$*"; }
fail() { say "FAILED: $*" >&2; exit 1; }
inside() { "$tool" exec "$container" "$@"; }
milliseconds() { date +%s%3N; }

if [[ -z ${IMAGE:-} ]]; then
  # shellcheck disable=SC2086  # BUILD_ARGS are words
  "$tool" build -f docker/Dockerfile -t "$image" --target "${TARGET:-cpu}" \
    --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || echo unknown)" ${BUILD_ARGS:-} .
fi
size=$("$tool" image inspect --format '{{.Size}}' "$image")
say "$image: $((size / 1000000)) MB unpacked"
[[ ${TARGET:-cpu} != cpu || $size -lt $largest ]] || fail "expected less than $((largest / 1000000)) MB"

container=$("$tool" create --read-only --tmpfs /tmp:rw,size=128m,noexec,nosuid --cap-drop ALL \
  --security-opt no-new-privileges --publish "127.0.0.1:$port:8000" "$image" --insecure)
trap '"$tool" rm --force "$container" >/dev/null' EXIT
began=$(milliseconds)
"$tool" start "$container" >/dev/null
until curl --silent --fail --output /dev/null "$url/health/ready"; do
  (($(milliseconds) - began < 120000)) || { "$tool" logs "$container" >&2; fail "not ready within two minutes"; }
  sleep 0.05
done
took=$(($(milliseconds) - began))
say "ready after $took ms"
((took < slowest)) || fail "expected less than $slowest ms"

[[ $(inside id -u) == 10001 ]] || fail "runs as user $(inside id -u), expected 10001"
if inside touch /app/written 2>/dev/null; then fail "the root file system can be written to"; fi
if inside python -m pip --version >/dev/null 2>&1; then fail "pip is there"; fi
inside python -m service.healthcheck >/dev/null || fail "the health check says that it is not ready"

answer=$(curl --silent --show-error --fail -F image=@tests/images/cat_attacked.png "$url/classify")
prediction=$(grep -o '"predictions":\[{[^}]*}' <<<"$answer") || fail "no predictions in $answer"
say "/classify: $prediction"

# 2,000 steps take longer than a signal does, so this request is in progress when it comes.
late=$(mktemp)
curl --silent --show-error --fail -F image=@tests/images/cat.png "$url/classify?steps=2000" >"$late" &
request=$!
until curl --silent --fail "$url/metrics" | grep '^ebm_slots_active [1-9]' >/dev/null; do
  kill -0 $request 2>/dev/null || fail "the long request ended before it was seen to run"
done
"$tool" stop --time 90 "$container" >/dev/null
wait $request || fail "the request that was in progress at SIGTERM got no answer"
grep -q '"predictions"' "$late" || fail "the request that was in progress at SIGTERM got $(cat "$late")"
rm -f "$late"
"$tool" logs "$container" 2>&1 | grep 'Application shutdown complete' >/dev/null || fail "no clean stop in the log"
code=$("$tool" inspect --format '{{.State.ExitCode}}' "$container")
[[ $code == 0 || $code == 143 ]] || fail "exit code $code, expected 0, or 143 for SIGTERM"
say "stopped cleanly: the request in progress was answered"
