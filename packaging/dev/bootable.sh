#!/usr/bin/env bash
# Exit with 0 if machines can be booted here for `make deb-test`; otherwise print why not, and exit
# with 1.
set -euo pipefail

no() {
  printf '%s\n' "$*"
  exit 1
}

[ "$(id -u)" -eq 0 ] || no "only root can boot machines"
[ -r /etc/debian_version ] || no "this is not Debian"
first="$(stat -Lc %d:%i /proc/1/root/. 2>/dev/null)" || first=""
[ -z "$first" ] || [ "$(stat -Lc %d:%i /)" = "$first" ] || no "this is a chroot"
unshare --mount --propagation private true 2>/dev/null || no "no mount namespace can be made"
unshare --net true 2>/dev/null || no "no network namespace can be made"
groups=/sys/fs/cgroup
[ -d "$groups/unified" ] && groups="$groups/unified"
mkdir "$groups/llmd-probe-$$" 2>/dev/null || no "no control group can be made"
rmdir "$groups/llmd-probe-$$"
# shellcheck disable=SC2016  # the inner shell expands it
unshare --mount --propagation private sh -c '
  d="$(mktemp -d)" && mount -t tmpfs tmpfs "$d" && mkdir "$d/l" "$d/u" "$d/w" "$d/m" &&
  mount -t overlay overlay -o "lowerdir=$d/l,upperdir=$d/u,workdir=$d/w" "$d/m" && umount -l "$d" &&
  rmdir "$d"' 2>/dev/null || no "no overlay can be mounted"
