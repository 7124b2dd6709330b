/* One hierarchy per controller: limits here, and, on a hybrid host, freeze and kill through the v2 tree beside them.
 * Traps of the v1 freezer are named where they are answered. Kernel: Documentation/admin-guide/cgroup-v1. */
#include "sandbox/cgroup_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "base/io.h"

#define NO_LIMIT (1ULL << 62) /* what memory.limit_in_bytes holds then is a little less than INT64_MAX */

static int v1_dir(const char *name, enum cgroup_controller c, bool make)
{
	int root = cgroup_roots()->v1[c];

	return root < 0 ? -ENOENT : cg_open_group(root, name, make);
}

/* Writes and reads back; 0 means no limit, and then a missing file is no error. */
static int set_limit(int dir, const char *file, uint64_t value, struct err *err)
{
	uint64_t page = 4096, got = 0;
	char text[32] = "-1";

	if (value)
		snprintf(text, sizeof text, "%llu", (unsigned long long)value);
	int rc = cg_set(dir, file, text, &got);
	if (rc == -ENOENT && !value)
		return 0;
	if (rc < 0)
		return err_set(err, -rc, "cgroup limit %s", file);
	if (value && got != value && got != value / page * page)
		return err_set(err, EIO, "cgroup limit %s is %llu instead of %llu", file, (unsigned long long)got,
			       (unsigned long long)value);
	return 0;
}

static int set_memory(int dir, uint64_t bytes, struct err *err)
{
	bool sum = faccessat(dir, "memory.memsw.limit_in_bytes", W_OK, 0) == 0;

	if (!sum && errno != ENOENT) /* a kernel that does not count swap */
		return err_set(err, errno, "cgroup limit memory.memsw.limit_in_bytes");
	/* memsw may never be below memory, so a group that is adopted and is to grow wants the sum opened first. */
	if (set_limit(dir, "memory.limit_in_bytes", bytes, err) < 0 &&
	    (err->code != EINVAL || !sum || set_limit(dir, "memory.memsw.limit_in_bytes", 0, err) < 0 ||
	     set_limit(dir, "memory.limit_in_bytes", bytes, err) < 0))
		return -1;
	return sum ? set_limit(dir, "memory.memsw.limit_in_bytes", bytes, err) : 0;
}

static int set_pids(int dir, uint32_t pids, struct err *err)
{
	if (pids)
		return set_limit(dir, "pids.max", pids, err);
	cg_write(dir, "pids.max", "max");
	return 0;
}

static int set_cpu(int dir, uint32_t milli, struct err *err)
{
	uint64_t quota = (uint64_t)milli * (CGROUP_PERIOD_USEC / 1000);
	int rc = cg_write(dir, "cpu.cfs_burst_us", "0"); /* may not exceed the quota of a group that is adopted */

	if (rc < 0 && rc != -ENOENT)
		return err_set(err, -rc, "cgroup limit cpu.cfs_burst_us");
	if (milli && set_limit(dir, "cpu.cfs_period_us", CGROUP_PERIOD_USEC, err) < 0)
		return -1;
	if (set_limit(dir, "cpu.cfs_quota_us", quota, err) < 0)
		return -1;
	/* Saved up quota of one period: a page view is a burst, not a load. Kernel ≥ 5.14, else without. */
	rc = milli ? cg_write(dir, "cpu.cfs_burst_us", "%llu", (unsigned long long)quota) : 0;
	return rc < 0 && rc != -ENOENT ? err_set(err, -rc, "cgroup limit cpu.cfs_burst_us") : 0;
}

static int v1_remove(struct cgroup *cg, struct err *err)
{
	const struct cgroup_roots *r = cgroup_roots();
	int first = 0;

	for (int c = 0; cg->name[0] && c < CG_CONTROLLERS; c++) {
		int rc = r->v1[c] < 0 ? 0 : cg_remove_group(r->v1[c], cg->name);

		if (rc < 0 && !first)
			first = rc;
	}
	return first < 0 ? err_set(err, -first, "remove cgroup `%s`", cg->name) : 0;
}

static int v1_make(const char *name, enum cgroup_controller c, const struct sandbox_limits *l, struct err *err)
{
	if (c == CG_BLKIO && !l->io_bytes) /* one directory less to make, for most */
		return 0;
	cleanup_close int dir = v1_dir(name, c, true);

	if (dir == -ENOENT && cgroup_roots()->v1[c] < 0) {
		if ((c == CG_CPU && l->cpu_milli) || (c == CG_PIDS && l->pids) || (c == CG_MEMORY && l->memory))
			return err_set(err, ENOTSUP,
				       "this host has no cgroup controller for a limit that is asked for");
		return 0;
	}
	return dir < 0 ? err_set(err, -dir, "make cgroup `%s`", name) : 0;
}

static int v1_create(const char *name, const struct sandbox_limits *l, struct cgroup *out, struct err *err)
{
	*out = (struct cgroup){.v2_dir = -1};
	snprintf(out->name, sizeof out->name, "%s", name);
	for (int c = 0; c < CG_CONTROLLERS; c++) {
		if (v1_make(name, (enum cgroup_controller)c, l, err) < 0) {
			struct err ignored;

			v1_remove(out, &ignored);
			return -1;
		}
	}
	return 0;
}

static int v1_limit(const struct cgroup *cg, const struct sandbox_limits *l, struct err *err)
{
	cleanup_close int memory = v1_dir(cg->name, CG_MEMORY, false);
	cleanup_close int cpu = v1_dir(cg->name, CG_CPU, false);
	cleanup_close int pids = v1_dir(cg->name, CG_PIDS, false);

	if ((memory < 0 && l->memory) || (cpu < 0 && l->cpu_milli) || (pids < 0 && l->pids))
		return err_set(err, ENOENT, "the cgroup `%s` is gone", cg->name);
	return (memory >= 0 && set_memory(memory, l->memory, err) < 0) ||
		       (cpu >= 0 && set_cpu(cpu, l->cpu_milli, err) < 0) ||
		       (pids >= 0 && set_pids(pids, l->pids, err) < 0)
		   ? -1
		   : 0;
}

static int v1_open(const char *name, struct cgroup *out, struct err *err)
{
	cleanup_close int dir = v1_dir(name, CG_PIDS, false);

	*out = (struct cgroup){.v2_dir = -1};
	snprintf(out->name, sizeof out->name, "%s", name);
	return dir < 0 ? err_set(err, -dir, "cgroup `%s`", name) : 0;
}

static bool is_absent(int dir, enum cgroup_controller c)
{
	return dir == -ENOENT && (cgroup_roots()->v1[c] < 0 || c == CG_BLKIO);
}

static int v1_attach(const struct cgroup *cg, pid_t pid, struct err *err)
{
	for (int c = 0; c < CG_CONTROLLERS; c++) {
		cleanup_close int dir = v1_dir(cg->name, (enum cgroup_controller)c, false);
		int rc = is_absent(dir, (enum cgroup_controller)c) ? 0
			 : dir < 0				   ? dir
								   : cg_write(dir, "cgroup.procs", "%d", pid);

		if (rc < 0)
			return err_set(err, -rc, "move process %d into cgroup `%s`", pid, cg->name);
	}
	return 0;
}

/* A thread that moves itself, by "0" in `tasks`, is the one case that takes no global lock (kernel/cgroup/cgroup.c,
 * cgroup_procs_write_start): 10 ms and more are saved per sandbox. */
static int v1_doors(const struct cgroup *cg, int out[], struct err *err)
{
	int n = 0;

	for (int c = 0; c < CG_CONTROLLERS; c++) {
		cleanup_close int dir = v1_dir(cg->name, (enum cgroup_controller)c, false);

		if (is_absent(dir, (enum cgroup_controller)c))
			continue;
		if (dir >= 0 && (out[n] = openat(dir, "tasks", O_WRONLY | O_CLOEXEC | O_NOFOLLOW)) >= 0) {
			n++;
			continue;
		}
		int code = dir < 0 ? -dir : errno;
		while (n > 0)
			close(out[--n]);
		return err_set(err, code, "open cgroup `%s`", cg->name);
	}
	return n;
}

/* Rules are by device, and 0 takes one away. */
static int v1_io(const struct cgroup *cg, dev_t disk, uint64_t read, uint64_t write, struct err *err)
{
	const struct {
		const char *file;
		uint64_t bytes;
	} rules[] = {{"blkio.throttle.read_bps_device", read}, {"blkio.throttle.write_bps_device", write}};
	cleanup_close int dir = v1_dir(cg->name, CG_BLKIO, false);

	if (cgroup_roots()->v1[CG_BLKIO] < 0)
		return err_set(err, ENOTSUP, "io limit: this host has no blkio controller");
	if (dir < 0)
		return err_set(err, -dir, "cgroup `%s`", cg->name);
	for (size_t i = 0; i < 2; i++) {
		char have[8192], device[32];

		snprintf(device, sizeof device, "%u:%u", major(disk), minor(disk));
		int rc = cg_write(dir, rules[i].file, "%s %llu", device, (unsigned long long)rules[i].bytes);
		if (rc < 0)
			return err_set(err, -rc, "cgroup limit %s of %s", rules[i].file, device);
		if (cg_read(dir, rules[i].file, have, sizeof have) < 0 || cg_value(have, device) != rules[i].bytes)
			return err_set(err, EIO, "cgroup limit %s of %s was not kept", rules[i].file, device);
	}
	return 0;
}

static void v1_lift_io(const struct cgroup *cg)
{
	static const char *const files[] = {"blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"};
	cleanup_close int dir = v1_dir(cg->name, CG_BLKIO, false);
	char text[8192];
	unsigned ma, mi;

	for (size_t i = 0; dir >= 0 && i < 2; i++) {
		if (cg_read(dir, files[i], text, sizeof text) <= 0)
			continue;
		for (const char *line = text; line; line = strchr(line, '\n')) {
			line += *line == '\n';
			if (sscanf(line, "%u:%u ", &ma, &mi) == 2)
				cg_write(dir, files[i], "%u:%u 0", ma, mi);
		}
	}
}

static int set_state(const char *name, const char *state)
{
	cleanup_close int dir = v1_dir(name, CG_FREEZER, false);

	return dir < 0 ? dir : cg_write(dir, "freezer.state", "%s", state);
}

static bool is_state(const char *name, const char *state)
{
	cleanup_close int dir = v1_dir(name, CG_FREEZER, false);
	char text[32];

	return dir >= 0 && cg_read(dir, "freezer.state", text, sizeof text) > 0 &&
	       strncmp(text, state, strlen(state)) == 0;
}

static int v1_freeze_begin(const struct cgroup *cg, int *events, struct err *err)
{
	int rc = set_state(cg->name, "FROZEN");

	*events = -1; /* nothing tells: it has to be looked at */
	return rc < 0 ? err_set(err, -rc, "freeze `%s`", cg->name) : 0;
}

/* FREEZING can stick (a task in vfork, or uninterruptible): asked for again, and from time to time after a short thaw
 * (runc #2774). */
static bool v1_frozen(const struct cgroup *cg, int events, unsigned tries)
{
	if (is_state(cg->name, "FROZEN"))
		return true;
	if (tries % 50 == 49)
		set_state(cg->name, "THAWED");
	if (tries > 0)
		set_state(cg->name, "FROZEN");
	return false;
}

static int v1_freeze(const struct cgroup *cg, int timeout_ms, struct err *err)
{
	uint64_t until = io_now_ms() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms);
	int none;

	if (v1_freeze_begin(cg, &none, err) < 0)
		return -1;
	for (unsigned tries = 0; !v1_frozen(cg, -1, tries); tries++) {
		if (io_now_ms() >= until) {
			set_state(cg->name, "THAWED"); /* never left half frozen (runc #2791, battery I2) */
			return err_set(err, ETIMEDOUT, "freeze `%s`: not frozen after %d ms", cg->name, timeout_ms);
		}
		cg_pause();
	}
	return 0;
}

static int v1_thaw(const struct cgroup *cg, struct err *err)
{
	int rc = set_state(cg->name, "THAWED");

	if (rc == -ENOENT)
		return 0;
	return rc < 0 ? err_set(err, -rc, "thaw `%s`", cg->name) : 0;
}

/* A frozen task does not see SIGKILL on v1 (battery I1; runc #2105, #3134): kill all while they cannot fork, thaw,
 * and look again. */
static int v1_kill(const struct cgroup *cg, int timeout_ms, struct err *err)
{
	uint64_t until = io_now_ms() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms);
	cleanup_close int dir = v1_dir(cg->name, CG_PIDS, false);

	if (dir < 0)
		return dir == -ENOENT ? 0 : err_set(err, -dir, "kill `%s`", cg->name);
	int n = 0;
	v1_lift_io(cg);
	for (bool late = false; !late; cg_pause()) {
		late = io_now_ms() >= until; /* before the look: one that was held up counts */
		set_state(cg->name, "FROZEN");
		n = cg_signal_all(dir);
		set_state(cg->name, "THAWED");
		if (n == 0)
			return 0;
	}
	return n < 0 ? err_set(err, -n, "kill `%s`: who is in it", cg->name)
		     : err_set(err, ETIMEDOUT, "kill `%s`: still alive after %d ms", cg->name, timeout_ms);
}

static int v1_stats(const struct cgroup *cg, struct cgroup_stats *out, struct err *err)
{
	cleanup_close int memory = v1_dir(cg->name, CG_MEMORY, false);
	cleanup_close int cpu = v1_dir(cg->name, CG_CPU, false);
	cleanup_close int acct = v1_dir(cg->name, CG_CPUACCT, false);
	cleanup_close int pids = v1_dir(cg->name, CG_PIDS, false);

	*out = (struct cgroup_stats){0};
	if (memory >= 0) {
		bool sum = faccessat(memory, "memory.memsw.limit_in_bytes", R_OK, 0) == 0;
		uint64_t limit = cg_number(memory, "memory.limit_in_bytes");

		out->memory = cg_number(memory, "memory.usage_in_bytes");
		out->memory_peak =
		    cg_number(memory, sum ? "memory.memsw.max_usage_in_bytes" : "memory.max_usage_in_bytes");
		out->memory_limit = limit < NO_LIMIT ? limit : 0;
		out->oom_kills = cg_keyed(memory, "memory.oom_control", "oom_kill");
	}
	if (cpu >= 0) {
		uint64_t quota = cg_number(cpu, "cpu.cfs_quota_us");

		out->throttled_usec = cg_keyed(cpu, "cpu.stat", "throttled_time") / 1000;
		out->held_back = cg_keyed(cpu, "cpu.stat", "nr_throttled");
		out->cpu_milli = quota == UINT64_MAX ? 0 : (uint32_t)(quota / (CGROUP_PERIOD_USEC / 1000));
	}
	if (acct >= 0)
		out->cpu_usec = cg_number(acct, "cpuacct.usage") / 1000;
	else if (cg->v2_dir >= 0) /* a core figure: counted without a controller */
		out->cpu_usec = cg_keyed(cg->v2_dir, "cpu.stat", "usage_usec");
	if (pids >= 0) {
		uint64_t limit = cg_number(pids, "pids.max");

		out->pids = (uint32_t)cg_number(pids, "pids.current");
		out->pids_limit = limit == UINT64_MAX ? 0 : (uint32_t)limit;
		out->refused = cg_keyed(pids, "pids.events", "max");
	}
	return 0;
}

/* Of memory.oom_control there is only an eventfd that fires before the kill, and that newer kernels call deprecated; and
 * pids.events of v1 is silent since Linux 6.10. */
static int v1_events(const struct cgroup *cg, int out[])
{
	cleanup_close int pids = v1_dir(cg->name, CG_PIDS, false);

	out[0] = pids < 0 ? -1 : openat(pids, "pids.events", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return out[0] >= 0;
}

const struct cgroup_ops cgroup_v1_ops = {
    .kind = CGROUP_V1,
    .label = "v1",
    .create = v1_create,
    .limit = v1_limit,
    .open = v1_open,
    .attach = v1_attach,
    .doors = v1_doors,
    .io = v1_io,
    .lift_io = v1_lift_io,
    .freeze = v1_freeze,
    .freeze_begin = v1_freeze_begin,
    .frozen = v1_frozen,
    .thaw = v1_thaw,
    .page_out = cgroup_no_page_out,
    .kill = v1_kill,
    .stats = v1_stats,
    .events = v1_events,
    .remove = v1_remove,
};

/* Hybrid: the name is the same in both trees. */
static int hybrid_remove(struct cgroup *cg, struct err *err)
{
	int a = v1_remove(cg, err);
	int b = cgroup_v2_remove(cg, err);

	return a < 0 || b < 0 ? -1 : 0;
}

static int hybrid_create(const char *name, const struct sandbox_limits *l, struct cgroup *out, struct err *err)
{
	struct cgroup v1;

	if (v1_create(name, l, &v1, err) < 0)
		return -1;
	if (cgroup_v2_open(name, true, out, err) < 0) {
		struct err ignored;

		v1_remove(&v1, &ignored);
		return -1;
	}
	return 0;
}

static int hybrid_open(const char *name, struct cgroup *out, struct err *err)
{
	return cgroup_v2_open(name, false, out, err);
}

static int hybrid_kill(const struct cgroup *cg, int timeout_ms, struct err *err)
{
	v1_lift_io(cg);
	return cgroup_v2_kill(cg, timeout_ms, err);
}

const struct cgroup_ops cgroup_hybrid_ops = {
    .kind = CGROUP_HYBRID,
    .label = "hybrid",
    .create = hybrid_create,
    .limit = v1_limit,
    .open = hybrid_open,
    .attach = v1_attach, /* the v2 group is entered by CLONE_INTO_CGROUP */
    .doors = v1_doors,
    .io = v1_io,
    .lift_io = v1_lift_io,
    .freeze = cgroup_v2_freeze,
    .freeze_begin = cgroup_v2_freeze_begin,
    .frozen = cgroup_v2_frozen,
    .thaw = cgroup_v2_thaw,
    .page_out = cgroup_no_page_out, /* the memory controller is v1's */
    .kill = hybrid_kill,
    .stats = v1_stats,
    .events = v1_events,
    .remove = hybrid_remove,
};
