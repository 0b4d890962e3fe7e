# Sourced by the scripts that build: each step once, under one lock, with progress and a log of its own.
# A script has its own functions, one a step, named like the steps.
mkdir -p "$BIN" "$CACHE"/{stamp,log,work,upstream,version}
exec 9>"$CACHE/lock"; flock 9        # test programs may come at the same time
export CGO_ENABLED=0 GOWORK=off

missing() { echo "$1 is missing: $2" >&2; exit 1; }
log=/dev/null; ticker=
trap 'rc=$?; [ -z "$ticker" ] || kill $ticker 2>/dev/null; [ $rc = 0 ] || { tail -n 20 "$log"; echo "building the test cluster failed; the whole log: $log"; } >&2' EXIT

step() { # NAME KEY: runs the function NAME unless it was last done for this very KEY
  [ "$(cat "$CACHE/stamp/$1" 2>/dev/null)" != "$2" ] || return 0
  disk 4 "$CACHE"
  local started; started=$(now)
  log=$CACHE/log/$1.log; rm -f "$CACHE/stamp/$1"
  if [ -t 2 ]; then
    ( while :; do printf '\r  building %s (once; minutes the first time) … %s ' "$1" "$(took "$started")" >&2; sleep 1; done ) & ticker=$!
  else
    echo "  building $1 (once; minutes the first time)" >&2
  fi
  ( set -x; cd "$CACHE/work"; "$1" "$2" ) >"$log" 2>&1
  echo "$2" >"$CACHE/stamp/$1"
  [ -z "$ticker" ] || { kill $ticker; wait $ticker 2>/dev/null || :; ticker=; printf '\r\033[K' >&2; }
  echo "  built $1 in $(took "$started")" >&2
}
# A module is built again when Go, its versions or the way it is built change.
module() { step "$1" "$(cd "$CLUSTER/go/$1" && { go env GOVERSION; declare -f "$1"; cat go.mod go.sum; } | sha256sum)"; }
version() { go list -m -f '{{.Version}}' "$1"; }
folder() { go list -m -f '{{.Dir}}' "$1"; }
debian() { # PACKAGES: unpacks them into ./deb/x, for whoever has to clear ./deb away
  rm -rf deb; mkdir deb
  # As root, apt drops to a user that cannot write here: keep it from doing so.
  fetch() { (cd deb && apt-get -q -o APT::Sandbox::User=root download "$@"); }
  fetch "$@" || { apt-get -q update; fetch "$@"; }
  for d in deb/*.deb; do dpkg -x "$d" deb/x; done
}
