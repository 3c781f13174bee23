"""A Debian system that runs its own systemd, offline, in namespaces of this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

ROOT_SH = Path(__file__).parents[2] / "packaging/dev/root.sh"

EMULATOR = "/usr/bin/qemu-x86_64-static"

_BOOT_S = 60.0
_LAY_ROOT = """
set -e
mount -t tmpfs tmpfs {work}
mkdir {work}/root {work}/upper {work}/lower
mount -t overlay overlay -o lowerdir={base},upperdir={work}/upper,workdir={work}/lower {work}/root
echo $$ > {cgroup}/cgroup.procs
"""
_BY_NSPAWN = """
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec systemd-nspawn --quiet --directory={work}/root --machine={name} --boot --register=no \\
  --keep-unit --private-network --link-journal=no --console=pipe --bind-ro={debs}:/opt/debs \\
  --bind-ro={emulator}:/opt/emulator \\
  --capability=CAP_BPF,CAP_PERFMON --system-call-filter=bpf
"""
# Without systemd-nspawn. Mounts are shared, because systemd passes credentials to units by mounts.
_BY_UNSHARE = """
exec unshare --mount --propagation private --pid --fork --kill-child --uts --ipc --cgroup --net \\
  sh -c 'set -e
ip link set lo up
cd {work}/root
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/shm dev/pts
mount -t tmpfs tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
for device in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
  set -- $device
  mknod -m 666 dev/$1 c $2 $3
done
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mkdir -p opt/debs
touch opt/emulator
mount --bind {debs} opt/debs
mount --bind {emulator} opt/emulator
hostname {name}
mkdir -p .old
pivot_root . .old
umount -l /.old
mount --make-rshared /
exec env -i container=llmd PATH=/usr/sbin:/usr/bin:/sbin:/bin setpriv \\
  --bounding-set -sys_module,-sys_time,-sys_rawio,-syslog,-sys_boot /lib/systemd/systemd'
"""


class Failed(AssertionError):
    """A command in the machine ended with an unexpected status."""


class Machine:
    """One boot of a release. Nothing is left of it after `close`.

    It is booted by systemd-nspawn, or by unshare if that is missing or LLMD_BOOT=unshare is set.
    The machine has a network of its own, where another namespace reaches it at `lan`.
    """

    lan = "10.77.0.1"

    def __init__(self, suite: str, work: Path, debs: Path) -> None:
        """Boot, and wait until all units are started."""
        self.suite = suite
        base = subprocess.run(
            [ROOT_SH, "test", suite], check=True, capture_output=True, text=True
        ).stdout.strip()
        self._cgroup = _cgroups() / f"llmd-{suite}-{os.getpid()}"
        self._cgroup.mkdir()
        by_nspawn = shutil.which("systemd-nspawn") and os.environ.get("LLMD_BOOT") != "unshare"
        script = (_LAY_ROOT + (_BY_NSPAWN if by_nspawn else _BY_UNSHARE)).format(
            work=work,
            base=base,
            cgroup=self._cgroup,
            name=f"llmd-{suite}",
            debs=debs,
            emulator=EMULATOR,
        )
        self._log = (work.parent / f"{work.name}.log").open("w+")
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._client: subprocess.Popen[bytes] | None = None
        self._init = 0
        self._init = self._wait_booted()

    def run(self, command: str, *, status: int | None = 0, timeout_s: float = 120) -> str:
        """Run a shell command as root, and return its output and errors as one text."""
        return self._run(["nsenter", "-t", str(self._init), "-a"], command, status, timeout_s)

    def from_lan(self, command: str, *, status: int | None = 0, timeout_s: float = 120) -> str:
        """Run a shell command of the host in another network that is connected to the machine."""
        if self._client is None:
            self._connect_lan()
        assert self._client is not None
        return self._run(["nsenter", "-t", str(self._client.pid), "-n"], command, status, timeout_s)

    def ask(self, path: str, body: object = None, *, key: str) -> dict[str, object]:
        """Send a request to llmd from the LAN, and return the answer."""
        data = "" if body is None else f"-d '{json.dumps(body)}'"
        out = self.from_lan(
            f"curl -sS -m 60 -H 'Authorization: Bearer {key}' {data} http://{self.lan}:5000{path}"
        )
        answer: dict[str, object] = json.loads(out)
        return answer

    def admin_key(self) -> str:
        """Return the key that the first installation created."""
        return self.run("cat /etc/llmd/admin.key").strip()

    def is_known(self, key: str) -> bool:
        """Return whether llmd accepts this key."""
        return self.ask("/auth", key=key)["auth"] is True

    def journal(self, *options: str) -> str:
        """Return the log of the unit."""
        return self.run(f"journalctl -u llmd --no-pager -q {' '.join(options)}")

    def close(self) -> None:
        """Power off the machine."""
        if self._client is not None:
            self._client.kill()
            self._client.wait()
        if self._init:
            # systemd's signal to power off.
            os.kill(self._init, signal.SIGRTMIN + 4)
        else:
            self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            (self._cgroup / "cgroup.kill").write_text("1")
            self._process.wait(30)
        self._log.close()
        for folder, _, _ in sorted(os.walk(self._cgroup), reverse=True):
            Path(folder).rmdir()

    def _run(self, prefix: list[str], command: str, status: int | None, timeout_s: float) -> str:
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
            "HOME": "/root",
        }
        done = subprocess.run(
            [*prefix, "sh", "-c", command],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            timeout=timeout_s,
        )
        if status is not None and done.returncode != status:
            raise Failed(f"{command!r} ended with {done.returncode}, not {status}:\n{done.stdout}")
        return done.stdout

    def _wait_booted(self) -> int:
        deadline = time.monotonic() + _BOOT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            found = subprocess.run(
                ["pgrep", "-P", str(self._process.pid)], check=False, capture_output=True, text=True
            )
            if found.stdout.strip():
                init = int(found.stdout.split()[0])
                state = subprocess.run(
                    ["nsenter", "-t", str(init), "-a", "systemctl", "is-system-running", "--wait"],
                    check=False,
                    capture_output=True,
                    text=True,
                )
                if state.stdout.strip() in {"running", "degraded"}:
                    return init
            time.sleep(0.2)
        self._log.seek(0)
        log = self._log.read()
        self.close()
        raise AssertionError(f"{self.suite} did not boot:\n{log[-4000:]}")

    def _connect_lan(self) -> None:
        self._client = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        pid = self._client.pid
        ours = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{pid}/ns/net").readlink() == ours:
            time.sleep(0.01)
        here, there = (["nsenter", "-t", str(of), "-n"] for of in (pid, self._init))
        for prefix, command in (
            (here, f"ip link add wire type veth peer name lan netns {self._init}"),
            (here, "ip address add 10.77.0.2/24 dev wire"),
            (here, "ip link set wire up"),
            (there, f"ip address add {self.lan}/24 dev lan"),
            (there, "ip link set lan up"),
        ):
            subprocess.run([*prefix, *command.split()], check=True)


def why_not() -> str | None:
    """Return what is missing for booting machines, or None."""
    if os.geteuid() != 0:
        return "booting a machine needs root: run this with sudo"
    for program in ("mmdebstrap", "nsenter", "ip", "curl", EMULATOR):
        if shutil.which(program) is None:
            return f"{program} is missing: packaging/dev/prereqs.sh deb installs it"
    return None


def _cgroups() -> Path:
    """Return the folder of cgroups version 2, which may be mounted beside version 1."""
    both = Path("/sys/fs/cgroup/unified")
    return both if both.exists() else Path("/sys/fs/cgroup")
