/* See launch.h: what the plan must know of the sources, found before anything is made. */
#include "sandbox/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/ids.h"
#include "sandbox/mnt_ops.h"

static bool is_folder(int dir, const char *name)
{
	struct stat st;

	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

/* Whether something is mounted below a folder: without root that is locked to it (mount_namespaces(7)). */
static bool covered(int source)
{
	cleanup_file FILE *f = fopen("/proc/self/mountinfo", "re");
	char link[64], path[1024], line[4096], point[1024];

	snprintf(link, sizeof link, "/proc/self/fd/%d", source);
	ssize_t n = readlink(link, path, sizeof path - 2);
	if (n <= 0)
		return false;
	path[n] = '/';
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "%*s %*s %*s %*s %1023s", point) == 1 && strncmp(point, path, (size_t)n + 1) == 0)
			return true;
	return false;
}

/* What was made ahead of another base than this stays in the staging folder, and goes with that. */
static int find_usr_ahead(struct sandbox_shell *l, const struct sandbox_sources *src, struct err *err)
{
	struct stat st;

	if (!l->child.usr)
		return 0;
	if (fstat(src->base_usr, &st) < 0)
		return err_set(err, errno, "look at the base's /usr");
	l->facts.usr_ahead = st.st_dev == l->usr.st_dev && st.st_ino == l->usr.st_ino;
	return 0;
}

int launch_plan(struct sandbox_shell *l, const struct sandbox_spec *spec, const struct sandbox_sources *src,
		struct err *err)
{
	struct plan_facts *facts = &l->facts;
	bool build_root = spec->profile == SANDBOX_BUILD_ROOT;

	facts->top = src->top >= 0;
	facts->idmap = src->idmap && spec->id_base && mnt_host()->detached;
	for (size_t i = 0; i < spec->nlayers; i++) {
		facts->layer_root[i] = is_folder(src->layers[i], "root");
		facts->layer_usr[i] = is_folder(src->layers[i], "usr");
	}
	/* apt must know what the base's /usr holds already. */
	if (build_root)
		l->dpkg = openat(src->base_usr, "../var/lib/dpkg", O_PATH | O_DIRECTORY | O_CLOEXEC);
	facts->dpkg = l->dpkg >= 0;
	facts->usr_covered = !ids_host_root() && covered(src->base_usr);
	if (find_usr_ahead(l, src, err) < 0)
		return -1;
	for (size_t i = 0; facts->usr_covered && i < spec->nlayers; i++)
		if (facts->layer_usr[i])
			return err_text(err, EINVAL,
					"a layer with programs cannot be laid over a /usr with mounts below it "
					"by a daemon without root");
	if (src->top >= 0 && mnt_prepare_top(src->top, build_root, src->idmap ? 0 : spec->id_base, err) < 0)
		return -1;
	if (plan_make(spec, facts, &l->plan, err) < 0)
		return -1;
	for (size_t i = 0; src->idmap && spec->id_base && !facts->idmap && i < l->plan.nmounts; i++)
		if (l->plan.mounts[i].write || build_root)
			return err_text(
			    err, ENOSYS,
			    "a folder or volume that is written, or root inside, needs files shown with the "
			    "sandbox's ids, and this kernel or container runtime has no mount_setattr(2)");
	return 0;
}

int launch_source(const struct sandbox_shell *l, const struct sandbox_sources *src, const struct plan_mount *m)
{
	switch (m->source) {
	case PLAN_BASE_USR:
		return src->base_usr;
	case PLAN_SKELETON:
		return src->skeleton;
	case PLAN_LAYER:
		return src->layers[m->index];
	case PLAN_TOP:
		return src->top;
	case PLAN_BIND:
		return src->binds[m->index];
	case PLAN_DPKG:
		return l->dpkg;
	}
	return -1;
}
