/* The unified hierarchy: limits where its controllers are, freeze and kill everywhere (core features, also used
 * beside v1 controllers by cgroup_v1.c). Kernel: Documentation/admin-guide/cgroup-v2.rst. */
#include "sandbox/cgroup_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "base/io.h"

#define PIECE (32ULL << 20) /* paged out between two looks whether it is still frozen */

/* Controllers are given to children only by a group without processes of its own (the root is exempt): those that
 * live there, as in a container or a delegated service, move to a leaf first. */
static int empty_into_leaf(int dir)
{
	if (mkdirat(dir, CG_LEAF, 0755) < 0 && errno != EEXIST)
		return -errno;
	cleanup_close int leaf = openat(dir, CG_LEAF, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	cleanup_buf struct buf b = BUF_INIT;
	int rc = io_read_file(dir, "cgroup.procs", 1U << 20, &b);

	if (leaf < 0 || rc < 0)
		return leaf < 0 ? -errno : rc;
	for (char *p = b.data ? b.data : (char[]){""}, *end; *p; p = end) {
		long pid = strtol(p, &end, 10);

		if (end == p)
			break;
		cg_write(leaf, "cgroup.procs", "%ld", pid);
	}
	return 0;
}

static void give_controllers(int dir)
{
	static const char *const wanted[] = {"+memory", "+pids", "+cpu", "+io"};
	bool moved = false;

	for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
		int rc = cg_write(dir, "cgroup.subtree_control", "%s", wanted[i]);

		if (rc == -EBUSY && !moved) {
			moved = true;
			if (empty_into_leaf(dir) == 0)
				cg_write(dir, "cgroup.subtree_control", "%s", wanted[i]);
		}
	}
}

int cgroup_v2_prepare(struct err *err)
{
	int root = cgroup_roots()->v2;
	char have[256];

	give_controllers(root);
	if (mkdirat(root, cgroup_tree(), 0755) < 0 && errno != EEXIST)
		return err_set(err, errno, "make the cgroup `%s`", cgroup_tree());
	cleanup_close int dir = openat(root, cgroup_tree(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dir < 0)
		return err_set(err, errno, "open the cgroup `%s`", cgroup_tree());
	give_controllers(dir);
	if (cg_read(dir, "cgroup.subtree_control", have, sizeof have) < 0)
		return err_set(err, EIO, "read the controllers of `%s`", cgroup_tree());
	for (const char *p = have; (p = strstr(p, "io")); p++)
		if ((p == have || p[-1] == ' ') && strchr(" \n", p[2]))
			cgroup_note_v2_io();
	return 0;
}

bool cgroup_v2_has(const char *controller)
{
	char have[256], path[SANDBOX_NAME_MAX + 32];
	size_t n = strlen(controller);

	snprintf(path, sizeof path, "%s/cgroup.subtree_control", cgroup_tree());
	if (cg_read(cgroup_roots()->v2, path, have, sizeof have) < 0)
		return false;
	for (const char *p = have; (p = strstr(p, controller)); p += n)
		if ((p == have || p[-1] == ' ') && strchr(" \n", p[n]))
			return true;
	return false;
}

int cgroup_v2_open(const char *name, bool make, struct cgroup *out, struct err *err)
{
	int fd = cg_open_group(cgroup_roots()->v2, name, make);

	*out = (struct cgroup){.v2_dir = fd < 0 ? -1 : fd};
	snprintf(out->name, sizeof out->name, "%s", name);
	return fd < 0 ? err_set(err, -fd, "cgroup v2 `%s`", name) : 0;
}

/* Writes a limit and reads it back. "max" when `value` is 0 and `zero_is_max`. A controller that the host lacks is an
 * error only when there is something to limit: an unkept promise is worse than a refusal. */
static int set_limit(int dir, const char *file, uint64_t value, struct err *err)
{
	uint64_t got = 0, page = 4096;
	char text[32] = "max";

	if (value)
		snprintf(text, sizeof text, "%llu", (unsigned long long)value);
	int rc = cg_set(dir, file, text, &got);
	if (rc == -ENOENT && (!value || cgroup_roots()->v2_delegated)) /* delegated without: protection.c tells */
		return 0;
	if (rc == -ENOENT)
		return err_set(err, ENOENT,
			       "%s: this kernel or service manager gives no such limit (kernel parameter "
			       "cgroup_enable=memory; Delegate=yes of the service)",
			       file);
	if (rc < 0)
		return err_set(err, -rc, "cgroup limit %s", file);
	if (value && got != value && got != value / page * page)
		return err_set(err, EIO, "cgroup limit %s is %llu instead of %llu", file, (unsigned long long)got,
			       (unsigned long long)value);
	return 0;
}

static int set_cpu(int dir, uint32_t milli, struct err *err)
{
	unsigned quota = milli * (CGROUP_PERIOD_USEC / 1000);
	uint64_t got = 0;
	char text[32];

	snprintf(text, sizeof text, milli ? "%u %u" : "max", quota, CGROUP_PERIOD_USEC);
	int rc = cg_set(dir, "cpu.max", text, &got);
	if (rc == -ENOENT && (!milli || cgroup_roots()->v2_delegated))
		return 0;
	if (rc < 0)
		return err_set(err, -rc, "cgroup limit cpu.max");
	if (milli && got != quota)
		return err_set(err, EIO, "cgroup limit cpu.max was not kept");
	/* Saved up quota of one period: a page view is a burst, not a load. Kernel ≥ 5.14, else without. */
	rc = cg_write(dir, "cpu.max.burst", "%u", quota);
	return rc < 0 && rc != -ENOENT ? err_set(err, -rc, "cgroup limit cpu.max.burst") : 0;
}

static int v2_create(const char *name, const struct sandbox_limits *l, struct cgroup *out, struct err *err)
{
	return cgroup_v2_open(name, true, out, err);
}

static int v2_limit(const struct cgroup *cg, const struct sandbox_limits *l, struct err *err)
{
	int dir = cg->v2_dir;

	if (set_limit(dir, "memory.max", l->memory, err) < 0 || set_limit(dir, "pids.max", l->pids, err) < 0 ||
	    set_cpu(dir, l->cpu_milli, err) < 0)
		return -1;
	/* The limit is for RAM and swap together. v2 has no such sum: a running app gets no swap at all. */
	int rc = l->memory ? cg_write(dir, "memory.swap.max", "0") : 0;
	if (rc < 0 && rc != -ENOENT) /* a kernel that does not count swap */
		return err_set(err, -rc, "cgroup limit memory.swap.max");
	/* memory.oom.group stays 0: what lost one worker may go on, as on v1, and its owner is told. */
	return 0;
}

static int v2_open(const char *name, struct cgroup *out, struct err *err)
{
	return cgroup_v2_open(name, false, out, err);
}

static int v2_attach(const struct cgroup *cg, pid_t pid, struct err *err)
{
	int rc = cg_write(cg->v2_dir, "cgroup.procs", "%d", pid);

	return rc < 0 ? err_set(err, -rc, "move process %d into cgroup `%s`", pid, cg->name) : 0;
}

/* None: CLONE_INTO_CGROUP is quicker still. */
static int v2_doors(const struct cgroup *cg, int out[], struct err *err)
{
	return 0;
}

static int v2_io(const struct cgroup *cg, dev_t disk, uint64_t read, uint64_t write, struct err *err)
{
	char have[8192], rule[128];
	int n = snprintf(rule, sizeof rule, "%u:%u rbps=%llu wbps=%llu", major(disk), minor(disk),
			 (unsigned long long)read, (unsigned long long)write);
	int rc = cg_write(cg->v2_dir, "io.max", "%s", rule);

	if (rc == -ENOENT)
		return err_set(err, ENOTSUP, "io limit: this kernel or service manager gives no io controller");
	if (rc < 0)
		return err_set(err, -rc, "cgroup limit io.max `%s`", rule);
	/* What is read is one line a device, with riops and wiops behind. */
	if (cg_read(cg->v2_dir, "io.max", have, sizeof have) < 0 || !strstr(have, rule) ||
	    !strchr(" \n", strstr(have, rule)[n]))
		return err_set(err, EIO, "cgroup limit io.max `%s` was not kept", rule);
	return 0;
}

static void v2_lift_io(const struct cgroup *cg)
{
	char text[8192];
	unsigned ma, mi;

	if (cg_read(cg->v2_dir, "io.max", text, sizeof text) <= 0)
		return;
	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (sscanf(line, "%u:%u ", &ma, &mi) == 2)
			cg_write(cg->v2_dir, "io.max", "%u:%u rbps=max wbps=max", ma, mi);
	}
}

/* cgroup.events raises POLLPRI at each change; reading it through the same descriptor arms the next notification. But the
 * kernel tells at most once in 10 ms (CGROUP_FILE_NOTIFY_MIN_INTV), and most groups are frozen or empty after some 10 us, when
 * their tasks have had a processor: so we give ours away and look, some times (about 100 us in all), then each LOOK_MS. */
#define LOOKS 64
#define LOOK_MS 1

static bool event_is(int events, const char *key, uint64_t want)
{
	char text[256];
	ssize_t n = pread(events, text, sizeof text - 1, 0);

	if (n <= 0)
		return false;
	text[n] = '\0';
	return cg_value(text, key) == want;
}

static int open_events(const struct cgroup *cg)
{
	return openat(cg->v2_dir, "cgroup.events", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
}

static bool soon(int events, const char *key, uint64_t want)
{
	for (int looks = 0; looks < LOOKS; looks++) {
		if (event_is(events, key, want))
			return true;
		sched_yield();
	}
	return false;
}

static bool wait_event(int events, const char *key, uint64_t want, int timeout_ms)
{
	if (soon(events, key, want))
		return true;
	uint64_t until = io_now_ms() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms);
	for (bool late = events < 0; !late;) {
		struct pollfd p = {.fd = events, .events = POLLPRI};

		late = io_now_ms() >= until; /* before the look: one that was held up counts */
		if (event_is(events, key, want))
			return true;
		poll(&p, 1, LOOK_MS);
	}
	return false;
}

int cgroup_v2_freeze_begin(const struct cgroup *cg, int *events, struct err *err)
{
	*events = open_events(cg);
	int rc = *events < 0 ? -errno : cg_write(cg->v2_dir, "cgroup.freeze", "1");

	if (rc == 0)
		return 0;
	if (*events >= 0)
		close(*events);
	*events = -1;
	return err_set(err, -rc, "freeze `%s`", cg->name);
}

bool cgroup_v2_frozen(const struct cgroup *cg, int events, unsigned tries)
{
	cleanup_close int own = events < 0 ? open_events(cg) : -1;
	int fd = events < 0 ? own : events;

	return tries == 0 ? soon(fd, "frozen", 1) : event_is(fd, "frozen", 1);
}

int cgroup_v2_freeze(const struct cgroup *cg, int timeout_ms, struct err *err)
{
	cleanup_close int events = -1;

	if (cgroup_v2_freeze_begin(cg, &events, err) < 0)
		return -1;
	if (wait_event(events, "frozen", 1, timeout_ms))
		return 0;
	/* A freeze that timed out would otherwise stick (runc #5325, battery I2). */
	cg_write(cg->v2_dir, "cgroup.freeze", "0");
	return err_set(err, ETIMEDOUT, "freeze `%s`: not frozen after %d ms", cg->name, timeout_ms);
}

int cgroup_v2_thaw(const struct cgroup *cg, struct err *err)
{
	int rc = cg_write(cg->v2_dir, "cgroup.freeze", "0");

	return rc < 0 ? err_set(err, -rc, "thaw `%s`", cg->name) : 0;
}

static bool swap_has_room(void)
{
	struct sysinfo si;

	return sysinfo(&si) == 0 && si.freeswap > 0;
}

/* Without swap only cached files could go, which the kernel drops by itself when memory is short. */
static int v2_page_out(const struct cgroup *cg, struct err *err)
{
	int dir = cg->v2_dir, rc = 0;
	uint64_t limit = cg_number(dir, "memory.max"), left;

	if (faccessat(dir, "memory.reclaim", W_OK, 0) < 0)
		return err_set(err, ENOTSUP, "page out `%s`: no memory.reclaim", cg->name);
	if (!swap_has_room())
		return err_set(err, ENOSPC, "page out `%s`: there is no swap, or it is full", cg->name);
	/* What runs with a limit gets no swap (v2_limit). What is there already stays when that holds again; and no more than the
	 * limit can be there should this process die before. */
	if (limit != UINT64_MAX)
		cg_write(dir, "memory.swap.max", "%llu", (unsigned long long)limit);
	while (rc == 0 && cg_number(dir, "cgroup.freeze") == 1 && (left = cg_number(dir, "memory.current")) > 0)
		rc = cg_write(dir, "memory.reclaim", "%llu", (unsigned long long)(left < PIECE ? left : PIECE));
	if (limit != UINT64_MAX)
		cg_write(dir, "memory.swap.max", "0");
	return rc < 0 && rc != -EAGAIN ? err_set(err, -rc, "page out `%s`", cg->name)
				       : 0; /* EAGAIN: no more to be had */
}

int cgroup_v2_kill(const struct cgroup *cg, int timeout_ms, struct err *err)
{
	uint64_t until = io_now_ms() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms);

	v2_lift_io(cg);
	if (cg_write(cg->v2_dir, "cgroup.kill", "1") == 0) {
		cleanup_close int events = open_events(cg);

		if (wait_event(events, "populated", 0, timeout_ms))
			return 0;
	} else { /* kernel < 5.14 */
		for (bool late = false; !late; cg_pause()) {
			late = io_now_ms() >= until;
			cg_write(cg->v2_dir, "cgroup.freeze", "1");
			cg_signal_all(cg->v2_dir);
			cg_write(cg->v2_dir, "cgroup.freeze", "0");
			if (cg_keyed(cg->v2_dir, "cgroup.events", "populated") == 0)
				return 0;
		}
	}
	return err_set(err, ETIMEDOUT, "kill `%s`: still alive after %d ms", cg->name, timeout_ms);
}

static int v2_stats(const struct cgroup *cg, struct cgroup_stats *out, struct err *err)
{
	int dir = cg->v2_dir;
	uint64_t memory_limit = cg_number(dir, "memory.max");
	uint64_t pids_limit = cg_number(dir, "pids.max");
	uint64_t quota = cg_number(dir, "cpu.max");
	char cpu[4096];

	*out = (struct cgroup_stats){
	    .memory = cg_number(dir, "memory.current"),
	    .memory_peak = cg_number(dir, "memory.peak"), /* kernel ≥ 5.19 */
	    .memory_limit = memory_limit == UINT64_MAX ? 0 : memory_limit,
	    .oom_kills = cg_keyed(dir, "memory.events", "oom_kill"),
	    .pids = (uint32_t)cg_number(dir, "pids.current"),
	    .pids_limit = pids_limit == UINT64_MAX ? 0 : (uint32_t)pids_limit,
	    .refused = cg_keyed(dir, "pids.events", "max"),
	    .cpu_milli = quota == UINT64_MAX ? 0 : (uint32_t)(quota / (CGROUP_PERIOD_USEC / 1000)),
	};
	if (cg_read(dir, "cpu.stat", cpu, sizeof cpu) > 0) {
		out->cpu_usec = cg_value(cpu, "usage_usec");
		out->throttled_usec = cg_value(cpu, "throttled_usec");
		out->held_back = cg_value(cpu, "nr_throttled");
	}
	return 0;
}

static int v2_events(const struct cgroup *cg, int out[])
{
	static const char *const files[CGROUP_EVENTS] = {"memory.events", "pids.events"};
	int n = 0;

	for (int i = 0; i < CGROUP_EVENTS; i++)
		if ((out[n] = openat(cg->v2_dir, files[i], O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) >= 0)
			n++;
	return n;
}

int cgroup_v2_remove(struct cgroup *cg, struct err *err)
{
	int rc = cg->name[0] ? cg_remove_group(cgroup_roots()->v2, cg->name) : 0;

	if (cg->v2_dir >= 0)
		close(cg->v2_dir);
	cg->v2_dir = -1;
	return rc < 0 ? err_set(err, -rc, "remove cgroup `%s`", cg->name) : 0;
}

const struct cgroup_ops cgroup_v2_ops = {
    .kind = CGROUP_V2,
    .label = "v2",
    .create = v2_create,
    .limit = v2_limit,
    .open = v2_open,
    .attach = v2_attach,
    .doors = v2_doors,
    .io = v2_io,
    .lift_io = v2_lift_io,
    .freeze = cgroup_v2_freeze,
    .freeze_begin = cgroup_v2_freeze_begin,
    .frozen = cgroup_v2_frozen,
    .thaw = cgroup_v2_thaw,
    .page_out = v2_page_out,
    .kill = cgroup_v2_kill,
    .stats = v2_stats,
    .events = v2_events,
    .remove = cgroup_v2_remove,
};
