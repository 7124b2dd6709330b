/* See protection.h. */
#include "sandbox/protection.h"

#include <string.h>

static bool root(const struct sandbox_host *h)
{
	return h->root;
}

static bool userns(const struct sandbox_host *h)
{
	return h->user_namespaces;
}

static bool overlay(const struct sandbox_host *h)
{
	return h->overlay_in_userns;
}

static bool id_ranges(const struct sandbox_host *h)
{
	return h->ids == IDS_ALL;
}

static bool one_id_range(const struct sandbox_host *h)
{
	return h->ids == IDS_RANGE;
}

static bool idmapped(const struct sandbox_host *h)
{
	return h->idmapped_mounts;
}

static bool cgroups(const struct sandbox_host *h)
{
	return h->cgroup != CGROUP_NONE && !h->no_memory_limit && !h->no_cpu_limit && !h->no_pids_limit;
}

static bool no_cgroups_root(const struct sandbox_host *h)
{
	return h->cgroup == CGROUP_NONE && h->root;
}

static bool no_cgroups(const struct sandbox_host *h)
{
	return h->cgroup == CGROUP_NONE;
}

static bool no_limits(const struct sandbox_host *h)
{
	return h->no_memory_limit && h->no_cpu_limit;
}

static bool no_memory_limit(const struct sandbox_host *h)
{
	return h->no_memory_limit;
}

static bool loop_devices(const struct sandbox_host *h)
{
	return h->loop_devices;
}

static bool landlock(const struct sandbox_host *h)
{
	return h->landlock_abi > 0;
}

static bool io(const struct sandbox_host *h)
{
	return h->io;
}

static bool bandwidth(const struct sandbox_host *h)
{
	return h->bandwidth;
}

static bool no_core_handler(const struct sandbox_host *h)
{
	return h->no_core_handler;
}

static bool egress(const struct sandbox_host *h)
{
	return h->egress;
}

#define AS_ROOT "start spaced as root"
#define DELEGATE "systemd-run --user -p Delegate=yes spaced ..., or a user service with Delegate=yes; or " AS_ROOT

/* The first row of a name that is so. */
static const struct protection table[] = {
    {"user namespaces", userns, .given = "work"},
    {"user namespaces", NULL, .lost = "cannot be made: no app can be contained",
     .mend = "sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=28633 "
	     "kernel.apparmor_restrict_unprivileged_userns=0 (and not inside a container that forbids them)",
     .needed = true},
    {"overlay", overlay, .given = "works in a user namespace"},
    {"overlay", NULL, .lost = "does not work in a user namespace: no app can have a root file system",
     .mend = "Linux 5.11 or newer", .needed = true},

    {"ids", id_ranges, .given = "a range for each Space"},
    {"ids", one_id_range,
     .lost = "all Spaces share one range of subordinate ids: one that breaks out of its namespaces is the same user as "
	     "the others, though not the daemon's",
     .mend = AS_ROOT},
    {"ids", NULL,
     .lost =
	 "apps, builds and the daemon are all the same user, in that user's groups: namespaces, Landlock and seccomp "
	 "alone stand between them",
     .mend = "apt install uidmap; usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER; then a new "
	     "state folder"},

    {"idmapped mounts", idmapped, .given = "work"},
    {"idmapped mounts", root, .lost = "do not work for /usr: packages.txt is not possible",
     .mend = "Linux 5.19 or newer, /usr on ext4, xfs or btrfs"},
    {"idmapped mounts", NULL, .lost = "not without root: packages.txt is not possible", .mend = AS_ROOT},

    {"cgroups", cgroups, .given = "limits on memory, CPU and processes; freeze and kill as a whole"},
    {"cgroups", no_cgroups_root, .lost = "none that can be written: no limits on memory, CPU and processes, no pause",
     .mend = "mount -t cgroup2 none /sys/fs/cgroup, or start spaced as a systemd service with Delegate=yes"},
    {"cgroups", no_cgroups,
     .lost = "none is delegated: no limits on memory and CPU, no freezing; RLIMIT_NPROC stands in for the number of "
	     "processes",
     .mend = DELEGATE},
    {"cgroups", no_limits,
     .lost = "delegated without controllers: freezing works, there are no limits on memory and CPU", .mend = DELEGATE},
    {"cgroups", no_memory_limit, .lost = "no memory controller: no limit on memory",
     .mend = "kernel parameter cgroup_enable=memory; Delegate=yes of the service"},
    {"cgroups", NULL, .lost = "the cpu or pids controller is not delegated: no limit of that kind",
     .mend = "/etc/systemd/system/user@.service.d/delegate.conf: [Service] Delegate=cpu memory pids io"},

    {"disk limits", loop_devices, .given = "volumes with a fixed size (loop devices)"},
    {"disk limits", root, .lost = "no loop devices: an app's disk use is not bounded by the kernel",
     .mend = "modprobe loop"},
    {"disk limits", NULL, .lost = "no loop devices without root: an app's disk use is not bounded by the kernel",
     .mend = AS_ROOT ", or keep the state folder on a file system of its own"},

    {"io limits", io, .given = "bytes per second of disks"},
    {"io limits", root, .lost = "no io controller: the options io and build-io do nothing",
     .mend = "cgroup v2 with the io controller (Linux with CONFIG_BLK_DEV_THROTTLING; Delegate=yes of the service)"},
    {"io limits", NULL, .lost = "no io controller is delegated: the options io and build-io do nothing",
     .mend = DELEGATE},

    {"kernel quotas", root, .given = "counted for each Space apart"},
    {"kernel quotas", NULL,
     .lost =
	 "what apps take of the kernel's limits per user (processes, inotify, queues) counts for the daemon's user as "
	 "well: one app can use it up",
     .mend = AS_ROOT},
    {"out of memory", root, .given = "apps die before the daemon and the host's services"},
    {"out of memory", NULL, .lost = "an app may put itself on one level with the daemon's user when the host runs out",
     .mend = AS_ROOT},

    {"core dumps", no_core_handler, .given = "none of apps, and none for the host's handler"},
    {"core dumps", NULL,
     .lost =
	 "the memory of an app that crashes goes to the host's handler (sysctl kernel.core_pattern), for the limit of "
	 "cores is 0 and cannot be set to 1",
     .mend = "LimitCORE=1 of the service (`ulimit -Hc` above 0), or start spaced as root with CAP_SYS_RESOURCE"},

    {"Landlock", landlock, .given = "in this kernel"},
    {"Landlock", NULL, .lost = "not in this kernel: files are kept apart by mounts and ids alone",
     .mend = "boot with lsm=landlock,... (Linux 5.13 or newer)"},

    {"egress", egress, .given = "works"},
    {"egress", root, .lost = "apps and builds get no network: pip and npm cannot install",
     .mend = "modprobe nf_tables nf_nat veth"},
    {"egress", NULL, .lost = "apps and builds get no network: pip and npm cannot install",
     .mend = "apt install slirp4netns; /dev/net/tun for everybody, as udev makes it"},
    {"bandwidth", bandwidth, .given = "can be limited (sch_tbf)"},
    {"bandwidth", NULL, .lost = "a limit on bandwidth is refused: the kernel has no token bucket",
     .mend = "modprobe sch_tbf"},
};

size_t protections_of(const struct sandbox_host *h, const struct protection *out[PROTECTIONS])
{
	const char *done = "";
	size_t n = 0;

	for (size_t i = 0; i < sizeof table / sizeof *table && n < PROTECTIONS; i++) {
		if (strcmp(table[i].name, done) == 0 || (table[i].is && !table[i].is(h)))
			continue;
		done = table[i].name;
		out[n++] = &table[i];
	}
	return n;
}
