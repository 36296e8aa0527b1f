"""Machines for tests that need several: network namespaces with names of their own, and a switch between them whose delay, loss and
cuts are this process's. Needs root, `ip` and /dev/net/tun; nothing else of the kernel's (no netem)."""
import ctypes
import fcntl
import heapq
import os
import random
import select
import shutil
import struct
import subprocess
import tempfile
import threading
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 2, 0x1000
CLONE_NEWNET = 0x40000000


def missing():
    """Why there can be no such machines here; None where there can."""
    if os.geteuid() != 0:
        return "needs root"
    for program in ("ip", "unshare", "mpirun"):
        if not shutil.which(program):
            return f"needs the program {program}"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    probe = f"plprobe{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode != 0:
        return "may not make network namespaces"
    subprocess.run(["ip", "netns", "del", probe])
    return None


class Hosts:
    """`with Hosts(3, delay_s=0.02, loss=0.01) as hosts: hosts.run(...)`. delay_s: one way."""

    def __init__(self, n, delay_s=0.0, loss=0.0, seed=1):
        self.n, self.delay_s, self.loss = n, delay_s, loss
        self.random = random.Random(seed)
        self.cut = set()
        self.sent = self.lost = self.bytes = 0
        self.names = [f"plnode{i}x{os.getpid()}" for i in range(n)]
        self.taps = []
        self.ports = {}  # by MAC address
        self.ended = False

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="pleiad-hosts-")
        try:
            for i in range(self.n):
                self.taps.append(self._add_host(i))
            self._write_agent()
        except BaseException:
            self._remove()
            raise
        self.thread = threading.Thread(target=self._switch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended = True
        self.thread.join()
        self._remove()

    def _remove(self):
        for tap in self.taps:
            os.close(tap)
        for name in self.names:
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
            for pid in pids:
                try:
                    os.kill(int(pid), 9)
                except ProcessLookupError:
                    pass
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _add_host(self, i):
        name = self.names[i]
        subprocess.run(["ip", "netns", "add", name], check=True)
        libc = ctypes.CDLL(None, use_errno=True)
        here = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(f"/var/run/netns/{name}", os.O_RDONLY)
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.close(tap)
            if libc.setns(there, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"eth0", IFF_TAP | IFF_NO_PI))
        finally:
            libc.setns(here, CLONE_NEWNET)
            os.close(here)
            os.close(there)
        # A peer that has vanished is given up after seconds, not a quarter of an hour.
        subprocess.run(["ip", "netns", "exec", name, "sh", "-c", "echo 4 >/proc/sys/net/ipv4/tcp_retries2"], check=True)
        for args in (["link", "set", "lo", "up"], ["addr", "add", f"10.77.0.{i + 1}/24", "dev", "eth0"],
                     ["link", "set", "eth0", "up"]):
            subprocess.run(["ip", "-n", name] + args, check=True)
        return tap

    def _write_agent(self):
        """What mpirun calls instead of ssh: agent HOST COMMAND..."""
        self.agent = os.path.join(self.folder, "agent.sh")
        with open(self.agent, "w") as f:
            f.write("#!/bin/bash\nhost=$1\nshift\n"
                    "exec ip netns exec \"$host\" unshare --uts bash -c \"hostname $host; $*\"\n")
        os.chmod(self.agent, 0o755)

    def _switch(self):
        waiting, order = [], 0
        while not self.ended:
            pause = max(0.0, min(0.05, waiting[0][0] - time.monotonic())) if waiting else 0.05
            ready, _, _ = select.select(self.taps, [], [], pause)
            now = time.monotonic()
            for tap in ready:
                source = self.taps.index(tap)
                for _ in range(64):
                    try:
                        frame = os.read(tap, 65536)
                    except BlockingIOError:
                        break
                    self.ports[frame[6:12]] = source
                    order += 1
                    heapq.heappush(waiting, (now + self.delay_s, order, source, frame))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, source, frame = heapq.heappop(waiting)
                self._deliver(source, frame)

    def _deliver(self, source, frame):
        port = self.ports.get(frame[0:6])
        self.sent += 1
        self.bytes += len(frame)
        for to in [port] if port is not None else range(self.n):
            if to == source or source in self.cut or to in self.cut:
                continue
            if self.random.random() < self.loss:
                self.lost += 1
                continue
            try:
                os.write(self.taps[to], frame)
            except OSError:
                self.lost += 1

    def command(self, ranks, args, mpirun=()):
        """The command line of mpirun, which runs on the first machine, for `ranks` ranks there and on the others in turn."""
        hosts = ",".join(f"{name}:{-(-(ranks - i) // self.n)}" for i, name in enumerate(self.names) if ranks > i)
        run = ["mpirun", "--allow-run-as-root", "-n", str(ranks), "--host", hosts, "--map-by", "node",
               "--mca", "plm_rsh_agent", self.agent, "--mca", "plm_rsh_no_tree_spawn", "1",
               "--mca", "pml", "ob1", "--mca", "btl", "tcp,self,vader", "--mca", "oob", "tcp", *mpirun, *args]
        name = self.names[0]
        return ["ip", "netns", "exec", name, "unshare", "--uts", "bash", "-c", f'hostname {name}; exec "$@"', "run", *run]

    def start(self, ranks, args, mpirun=(), **more):
        return subprocess.Popen(self.command(ranks, args, mpirun), **more)
