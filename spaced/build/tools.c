/* What a base's /usr gives builds (struct tools in recipe.h). Looks at names only; runs nothing. */
#include "spaced/build/recipe.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/resolve.h"

static const char *const program_folders[] = {"usr/bin", "usr/local/bin"};

static void add_once(struct strings *l, const char *v)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->v[i], v) == 0)
			return;
	l->v = xreallocarray(l->v, l->n + 1, sizeof *l->v);
	l->v[l->n++] = xstrdup(v);
}

static void find_pythons(struct tools *t, int root, const char *folder)
{
	int fd = resolve_in_root(root, folder, O_RDONLY | O_DIRECTORY);
	cleanup_dir DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	while (d && (e = readdir(d)) != NULL) {
		const char *v = e->d_name + 6;
		if (strncmp(e->d_name, "python3.", 8) == 0 && strlen(v) <= 5 && isdigit((unsigned char)v[2]) &&
		    strspn(v + 2, "0123456789") == strlen(v + 2))
			add_once(&t->pythons, v);
	}
}

static bool look_at(int root, const char *folder, const char *name, struct stat *st)
{
	cleanup_free char *path = xasprintf("%s/%s", folder, name);
	cleanup_close int fd = resolve_in_root(root, path, O_PATH);

	return fd >= 0 && fstat(fd, st) == 0;
}

/* Size and time of the program behind a name: another one means other layers. */
static void stamp(char *out, size_t size, int root, const char *name)
{
	struct stat st;

	if (look_at(root, program_folders[0], name, &st))
		snprintf(out, size, "%lld-%lld", (long long)st.st_size, (long long)st.st_mtime);
}

static bool program(int root, const char *name)
{
	struct stat st;

	for (size_t i = 0; i < 2; i++)
		if (look_at(root, program_folders[i], name, &st) && (st.st_mode & 0111))
			return true;
	return false;
}

static void default_python(struct tools *t, int root)
{
	cleanup_close int bin = resolve_in_root(root, program_folders[0], O_PATH | O_DIRECTORY);
	char target[64];
	ssize_t n = bin < 0 ? -1 : readlinkat(bin, "python3", target, sizeof target - 1);

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

static void host_name(struct tools *t, int root, const char *machine)
{
	cleanup_close int fd = resolve_in_root(root, "usr/lib/os-release", O_RDONLY);
	char id[32] = "linux", version[32] = "", text[16384];
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
	char *save = NULL;

	text[n > 0 ? n : 0] = '\0';
	for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		if (strncmp(l, "ID=", 3) == 0)
			snprintf(id, sizeof id, "%.30s", l + 3);
		else if (strncmp(l, "VERSION_ID=", 11) == 0)
			snprintf(version, sizeof version, "%.30s", l + 11);
	}
	snprintf(t->base, sizeof t->base, "host %s %s %.16s", id, version, machine);
}

void tools_find(struct tools *t, int root, const char *id)
{
	struct utsname u;

	*t = (struct tools){0};
	if (uname(&u) < 0)
		u.machine[0] = '\0';
	for (size_t i = 0; i < 2; i++)
		find_pythons(t, root, program_folders[i]);
	default_python(t, root);
	if (*t->python) {
		char name[32];
		snprintf(name, sizeof name, "python%s", t->python);
		stamp(t->python_stamp, sizeof t->python_stamp, root, name);
	}
	stamp(t->node_stamp, sizeof t->node_stamp, root, "node");
	t->uv = program(root, "uv");
	t->node = program(root, "node");
	t->npm = program(root, "npm");
	t->apt = program(root, "apt-get");
	if (id)
		snprintf(t->base, sizeof t->base, "%.70s %.16s", id, u.machine);
	else
		host_name(t, root, u.machine);
}

void tools_find_host(struct tools *t)
{
	cleanup_close int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

	tools_find(t, root, NULL);
}

void tools_release(struct tools *t)
{
	for (size_t i = 0; i < t->pythons.n; i++)
		free(t->pythons.v[i]);
	free(t->pythons.v);
	*t = (struct tools){0};
}

/* ---- the record ---- */

json_t *tools_json(const struct tools *t)
{
	json_t *pythons = json_array();

	for (size_t i = 0; i < t->pythons.n; i++)
		json_array_append_new(pythons, json_string(t->pythons.v[i]));
	return json_pack("{s:s, s:s, s:o, s:s, s:s, s:b, s:b, s:b, s:b}", "base", t->base, "python", t->python,
			 "pythons", pythons, "pythonStamp", t->python_stamp, "nodeStamp", t->node_stamp, "uv", t->uv,
			 "node", t->node, "npm", t->npm, "apt", t->apt);
}

bool tools_from_json(const json_t *j, struct tools *t)
{
	const struct {
		const char *key;
		char *to;
		size_t size;
	} texts[] = {
	    {"base", t->base, sizeof t->base},
	    {"python", t->python, sizeof t->python},
	    {"pythonStamp", t->python_stamp, sizeof t->python_stamp},
	    {"nodeStamp", t->node_stamp, sizeof t->node_stamp},
	};
	const struct {
		const char *key;
		bool *to;
	} flags[] = {{"uv", &t->uv}, {"node", &t->node}, {"npm", &t->npm}, {"apt", &t->apt}};
	size_t i;
	json_t *v;

	*t = (struct tools){0};
	for (i = 0; i < sizeof texts / sizeof *texts; i++) {
		const char *s = json_string_value(json_object_get(j, texts[i].key));
		if (!s || strlen(s) >= texts[i].size)
			return false;
		snprintf(texts[i].to, texts[i].size, "%s", s);
	}
	for (i = 0; i < sizeof flags / sizeof *flags; i++)
		*flags[i].to = json_is_true(json_object_get(j, flags[i].key));
	json_array_foreach(json_object_get(j, "pythons"), i, v)
	{
		if (!json_is_string(v))
			return false;
		add_once(&t->pythons, json_string_value(v));
	}
	return *t->base != '\0';
}
