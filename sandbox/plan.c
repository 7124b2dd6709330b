/* See plan.h. Called by sandbox_start() before anything is made. */
#include "sandbox/plan.h"

#include <errno.h>
#include <sys/sysmacros.h>

#define MIB (1024ULL * 1024)
#define SCRATCH (256 * MIB) /* /tmp and /dev/shm each; charged to the sandbox's memory */
#define RUN (16 * MIB)
#define DEFAULT_TOP (256 * MIB)

const struct plan_device plan_devices[] = {
    {"/dev/null", 1, 3},    {"/dev/zero", 1, 5}, {"/dev/full", 1, 7}, {"/dev/random", 1, 8},
    {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0},	 {NULL, 0, 0},
};

static const struct {
	const char *path, *to;
} links[] = {
    {"/dev/fd", "/proc/self/fd"},	{"/dev/stdin", "/proc/self/fd/0"}, {"/dev/stdout", "/proc/self/fd/1"},
    {"/dev/stderr", "/proc/self/fd/2"}, {"/dev/ptmx", "pts/ptmx"},
};

/* The OCI list, and what tells about the host's kernel, its hardware, or other tenants' timing. Battery B1, B2. */
static const char *const masked[] = {
    "/proc/acpi",	   "/proc/allocinfo",	"/proc/asound",	     "/proc/bootconfig",    "/proc/buddyinfo",
    "/proc/cmdline",	   "/proc/config.gz",	"/proc/consoles",    "/proc/dynamic_debug", "/proc/interrupts",
    "/proc/iomem",	   "/proc/ioports",	"/proc/kallsyms",    "/proc/kcore",	    "/proc/key-users",
    "/proc/keys",	   "/proc/kmsg",	"/proc/kpagecgroup", "/proc/kpagecount",    "/proc/kpageflags",
    "/proc/latency_stats", "/proc/modules",	"/proc/mtrr",	     "/proc/pagetypeinfo",  "/proc/pressure",
    "/proc/sched_debug",   "/proc/scsi",	"/proc/slabinfo",    "/proc/softirqs",	    "/proc/sysrq-trigger",
    "/proc/timer_list",	   "/proc/timer_stats", "/proc/vmallocinfo", "/proc/zoneinfo",
};

static const char *const frozen[] = {"/proc/bus", "/proc/driver", "/proc/fs", "/proc/irq", "/proc/sys"};

/* Names in the staging folder, by index of mount. */
static const char *const stage_names[PLAN_MAX_MOUNTS] = {
    "m0",  "m1",  "m2",	 "m3",	"m4",  "m5",  "m6",  "m7",  "m8",  "m9",  "m10", "m11", "m12", "m13",
    "m14", "m15", "m16", "m17", "m18", "m19", "m20", "m21", "m22", "m23", "m24", "m25", "m26", "m27",
};

static struct plan_step *add(struct plan *p, enum plan_op op, const char *target)
{
	struct plan_step *s = &p->steps[p->nsteps++];

	*s = (struct plan_step){.op = op, .target = target, .mount = -1};
	return s;
}

static int add_mount(struct plan *p, enum plan_source source, size_t index, bool write, bool idmap)
{
	p->mounts[p->nmounts] = (struct plan_mount){.source = source, .index = index, .write = write, .idmap = idmap};
	return (int)p->nmounts++;
}

static int stage(struct plan *p, enum plan_source source, size_t index, bool write, bool idmap)
{
	int m = add_mount(p, source, index, write, idmap);

	add(p, PLAN_STAGE, stage_names[m])->mount = m;
	return m;
}

static void lower_add(char *lower, size_t size, int mount, const char *tree)
{
	size_t n = strlen(lower);

	snprintf(lower + n, size - n, "%s%s%s%s", n ? ":" : "", stage_names[mount], *tree ? "/" : "", tree);
}

static void overlay(struct plan *p, const char *target, const char *lower, const char *top, const char *tree)
{
	struct plan_step *s = add(p, PLAN_OVERLAY, target);

	snprintf(s->text, sizeof s->text, "%s", lower);
	if (!top)
		return;
	snprintf(s->upper, sizeof s->upper, "%s/%s", top, tree);
	if (strcmp(tree, "root") == 0)
		snprintf(s->work, sizeof s->work, "%s/work", top);
	else
		snprintf(s->work, sizeof s->work, "%s/%s-work", top, tree);
}

/* The same folders that the launcher makes in a top volume. */
static const char *const pool_folders[] = {"pool/root",	    "pool/work", "pool/usr",
					   "pool/usr-work", "pool/dpkg", "pool/dpkg-work"};

static void plan_pool(struct plan *p, const struct sandbox_spec *spec)
{
	bool root = spec->profile == SANDBOX_BUILD_ROOT;

	add(p, PLAN_POOL, "pool")->size = spec->top_bytes ? spec->top_bytes : DEFAULT_TOP;
	for (size_t i = 0; i < (root ? 6 : 2); i++)
		add(p, PLAN_FOLDER, pool_folders[i]);
}

#define NONE "none" /* an empty folder of the staging folder */
/* The same for what is made ahead, where the plan to come may have its own. */
#define BASE_AHEAD "base-ahead"
#define NONE_AHEAD "none-ahead"

/* Always an overlay, also of nothing but the base: its files have inodes of the overlay's own. With the base's own ones an
 * app could watch by inotify which programs the host and its neighbours run, and hold flocks against them (battery E10). */
static void plan_usr(struct plan *p, const struct sandbox_spec *spec, const struct plan_facts *f, const int *layers,
		     const char *top)
{
	bool write = spec->profile == SANDBOX_BUILD_ROOT;
	char lower[256] = "";

	bool layered = false;

	for (size_t i = 0; i < spec->nlayers; i++)
		layered |= f->layer_usr[i];
	if (f->usr_ahead && !layered && !write) {
		add(p, PLAN_MOVE, "/usr");
		return;
	}
	if (f->usr_covered && !write) {
		int m = add_mount(p, PLAN_BASE_USR, 0, false, f->idmap);

		p->mounts[m].idmap_optional = true;
		add(p, PLAN_ATTACH, "/usr")->mount = m;
		return;
	}
	int base = stage(p, PLAN_BASE_USR, 0, false, f->idmap);
	p->mounts[base].idmap_optional = !write;
	for (size_t i = 0; i < spec->nlayers; i++)
		if (f->layer_usr[i])
			lower_add(lower, sizeof lower, layers[i], "usr");
	bool alone = !*lower;
	lower_add(lower, sizeof lower, base, "");
	if (alone && !write) { /* what is read-only needs two lower folders */
		add(p, PLAN_FOLDER, NONE);
		snprintf(lower + strlen(lower), sizeof lower - strlen(lower), ":" NONE);
	}
	overlay(p, "new/usr", lower, write ? top : NULL, "usr");
	if (write && f->dpkg) {
		int dpkg = stage(p, PLAN_DPKG, 0, false, f->idmap);

		lower[0] = '\0';
		lower_add(lower, sizeof lower, dpkg, "");
		overlay(p, "new/var/lib/dpkg", lower, top, "dpkg");
		/* It names users and groups of the host that do not exist inside, at which dpkg stops. */
		add(p, PLAN_EMPTY, "/var/lib/dpkg/statoverride");
	}
}

static void plan_root(struct plan *p, const struct sandbox_spec *spec, const struct plan_facts *f)
{
	int layers[SANDBOX_MAX_LAYERS];
	const char *top = "pool";
	char lower[256] = "";

	for (size_t i = 0; i < spec->nlayers; i++) {
		layers[i] = stage(p, PLAN_LAYER, i, false, f->idmap);
		if (f->layer_root[i])
			lower_add(lower, sizeof lower, layers[i], "root");
	}
	int skeleton = stage(p, PLAN_SKELETON, 0, false, f->idmap);
	p->mounts[skeleton].idmap_optional = true; /* then it has been made with the range's ids: skeleton_shift() */
	lower_add(lower, sizeof lower, skeleton, "");
	if (f->top)
		top = stage_names[stage(p, PLAN_TOP, 0, true, f->idmap)];
	else
		plan_pool(p, spec);
	add(p, PLAN_FOLDER, "new");
	overlay(p, "new", lower, top, "root");
	plan_usr(p, spec, f, layers, top);
}

static void add_tmpfs(struct plan *p, const char *target, uint64_t size, mode_t mode)
{
	struct plan_step *s = add(p, PLAN_TMPFS, target);

	s->size = size;
	s->mode = mode;
}

static void plan_dev(struct plan *p)
{
	add_tmpfs(p, "/dev", 64 * 1024, 0755);
	for (const struct plan_device *d = plan_devices; d->path; d++)
		add(p, PLAN_DEVICE, d->path)->device = makedev(d->major, d->minor);
	for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
		struct plan_step *s = add(p, PLAN_SYMLINK, links[i].path);

		snprintf(s->text, sizeof s->text, "%s", links[i].to);
	}
	add(p, PLAN_DEVPTS, "/dev/pts");
	add_tmpfs(p, "/dev/shm", SCRATCH, 01777);
}

static void plan_proc(struct plan *p)
{
	add(p, PLAN_PROC, "/proc");
	for (size_t i = 0; i < sizeof masked / sizeof *masked; i++)
		add(p, PLAN_MASK, masked[i]);
	for (size_t i = 0; i < sizeof frozen / sizeof *frozen; i++)
		add(p, PLAN_FREEZE, frozen[i]);
}

/* A bind over what the walls are made of would take them away. Through a link of the image it may still land there, which
 * hides a part of /proc from the app; we write nothing there: maps and the oom score are the parent's, in the host's own
 * /proc, before there is a root (CVE-2025-52881; battery A7). */
static bool covers_wall(const char *target)
{
	static const char *const walls[] = {"/proc", "/dev", "/sys"};

	for (size_t i = 0; i < sizeof walls / sizeof *walls; i++) {
		size_t n = strlen(walls[i]);

		if (strncmp(target, walls[i], n) == 0 && (target[n] == '\0' || target[n] == '/'))
			return true;
	}
	return false;
}

static void plan_usr_ahead(struct plan *p)
{
	int base = add_mount(p, PLAN_BASE_USR, 0, false, true);

	p->mounts[base].idmap_optional = true;
	add(p, PLAN_STAGE, BASE_AHEAD)->mount = base;
	add(p, PLAN_FOLDER, NONE_AHEAD);
	overlay(p, "new/usr", BASE_AHEAD ":" NONE_AHEAD, NULL, NULL);
}

void plan_ahead(bool usr, struct plan *p)
{
	p->nmounts = p->nsteps = 0;
	if (usr)
		plan_usr_ahead(p);
	plan_dev(p);
	plan_proc(p);
	add_tmpfs(p, "/tmp", SCRATCH, 01777);
	add_tmpfs(p, "/run", RUN, 0755);
}

int plan_make(const struct sandbox_spec *spec, const struct plan_facts *facts, struct plan *p, struct err *err)
{
	static const char *const ahead[] = {"/dev", "/proc", "/tmp", "/run"};

	p->nmounts = p->nsteps = 0;
	plan_root(p, spec, facts);
	for (size_t i = 0; i < sizeof ahead / sizeof *ahead; i++)
		add(p, PLAN_MOVE, ahead[i]);
	struct plan_step *run = add(p, PLAN_OWNER, "/run");
	run->owner = spec->uid;
	run->group = spec->gid;
	for (size_t i = 0; i < spec->nbinds; i++) {
		const struct sandbox_bind *b = &spec->binds[i];

		if (covers_wall(b->target))
			return err_set(err, EINVAL, "bind: `%s` is not a place for a bind", b->target);
		int m = add_mount(p, PLAN_BIND, i, b->write, facts->idmap);
		p->mounts[m].idmap_optional = !b->write;
		add(p, PLAN_ATTACH, b->target)->mount = m;
	}
	return 0;
}
