/* What the base's /usr gives builds (struct tools in recipe.h). Looks at names only; runs nothing. */
#include "spaced/build/recipe.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "base/cleanup.h"
#include "base/io.h"

static void add_once(struct strings *l, const char *v)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->v[i], v) == 0)
			return;
	l->v = xreallocarray(l->v, l->n + 1, sizeof *l->v);
	l->v[l->n++] = xstrdup(v);
}

static void find_pythons(struct tools *t, const char *dir)
{
	cleanup_dir DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d)) != NULL) {
		const char *v = e->d_name + 6;
		if (strncmp(e->d_name, "python3.", 8) == 0 && strlen(v) <= 5 && isdigit((unsigned char)v[2]) &&
		    strspn(v + 2, "0123456789") == strlen(v + 2))
			add_once(&t->pythons, v);
	}
}

/* Size and time of the program behind a name: another one means other layers. */
static void stamp(char *out, size_t size, const char *dir, const char *name)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, name);
	struct stat st;

	if (stat(path, &st) == 0)
		snprintf(out, size, "%lld-%lld", (long long)st.st_size, (long long)st.st_mtime);
}

static bool program(const char *bin, const char *local, const char *name)
{
	cleanup_free char *a = xasprintf("%s/%s", bin, name);
	cleanup_free char *b = xasprintf("%s/%s", local, name);

	return access(a, X_OK) == 0 || access(b, X_OK) == 0;
}

static void default_python(struct tools *t, const char *bin)
{
	cleanup_free char *path = xasprintf("%s/python3", bin);
	char target[64];
	ssize_t n = readlink(path, target, sizeof target - 1);

	if (n > 0) {
		target[n] = '\0';
		const char *name = strrchr(target, '/');
		name = name ? name + 1 : target;
		if (strncmp(name, "python3.", 8) == 0 && strlen(name) < 6 + sizeof t->python)
			snprintf(t->python, sizeof t->python, "%s", name + 6);
	}
	if (!*t->python && t->pythons.n)
		snprintf(t->python, sizeof t->python, "%.8s", t->pythons.v[0]);
}

static void base_name(struct tools *t, const char *os_release)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct utsname u;
	char id[32] = "linux", version[32] = "";

	if (io_read_file(AT_FDCWD, os_release, 65536, &b) == 0) {
		char *save = NULL;
		for (char *l = strtok_r(b.data, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
			if (strncmp(l, "ID=", 3) == 0)
				snprintf(id, sizeof id, "%.30s", l + 3);
			else if (strncmp(l, "VERSION_ID=", 11) == 0)
				snprintf(version, sizeof version, "%.30s", l + 11);
		}
	}
	if (uname(&u) < 0)
		u.machine[0] = '\0';
	snprintf(t->base, sizeof t->base, "host %s %s %.16s", id, version, u.machine);
}

void tools_find_at(struct tools *t, const char *bin, const char *local_bin, const char *os_release)
{
	*t = (struct tools){0};
	find_pythons(t, bin);
	find_pythons(t, local_bin);
	default_python(t, bin);
	if (*t->python) {
		char name[32];
		snprintf(name, sizeof name, "python%s", t->python);
		stamp(t->python_stamp, sizeof t->python_stamp, bin, name);
	}
	stamp(t->node_stamp, sizeof t->node_stamp, bin, "node");
	t->uv = program(bin, local_bin, "uv");
	t->node = program(bin, local_bin, "node");
	t->npm = program(bin, local_bin, "npm");
	t->apt = program(bin, local_bin, "apt-get");
	base_name(t, os_release);
}

void tools_find(struct tools *t)
{
	tools_find_at(t, "/usr/bin", "/usr/local/bin", "/usr/lib/os-release");
}

void tools_release(struct tools *t)
{
	for (size_t i = 0; i < t->pythons.n; i++)
		free(t->pythons.v[i]);
	free(t->pythons.v);
	*t = (struct tools){0};
}
