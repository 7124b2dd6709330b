/* package.json: node_modules as a layer below the source, keyed by package.json and its lock; `npm run build` when there
 * is such a script; `npm start`. */
#include "spaced/build/recipe.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/cleanup.h"

static const char *const npm_files[] = {"package.json", "package-lock.json", "npm-shrinkwrap.json", ".npmrc"};
/* npm ci with a lock that does not fit package.json */
static const char *const stale_lock[] = {"npm error code EUSAGE", "npm ERR! code EUSAGE", NULL};
#define NPM_FILES (sizeof npm_files / sizeof *npm_files)

static bool has_script(const json_t *package, const char *name)
{
	return json_is_string(json_object_get(json_object_get(package, "scripts"), name));
}

/* Installing runs scripts or takes in folders of the repository: it then needs the whole tree. */
static bool needs_tree(const json_t *package)
{
	static const char *const hooks[] = {"preinstall", "install", "postinstall", "prepublish",
					    "preprepare", "prepare", "postprepare"};
	static const char *const lists[] = {"dependencies", "devDependencies", "optionalDependencies"};

	for (size_t i = 0; i < sizeof hooks / sizeof *hooks; i++)
		if (has_script(package, hooks[i]))
			return true;
	if (json_object_get(package, "workspaces"))
		return true;
	for (size_t i = 0; i < 3; i++) {
		const char *name;
		json_t *v;
		json_object_foreach(json_object_get(package, lists[i]), name, v)
		{
			const char *s = json_string_value(v);
			if (s &&
			    (strncmp(s, "file:", 5) == 0 || strncmp(s, "link:", 5) == 0 || s[0] == '.' || s[0] == '/'))
				return true;
		}
	}
	return false;
}

static int read_package(struct making *m, json_t **out, struct err *err)
{
	cleanup_buf struct buf text = BUF_INIT;
	json_error_t je;

	if (m->tree->read(m->tree->ctx, "package.json", 1 << 20, &text, err) < 0)
		return err_prefix(err, "package.json");
	*out = json_loadb(text.data ? text.data : "", text.len, 0, &je);
	if (!json_is_object(*out)) {
		json_decref(*out);
		*out = NULL;
		return err_text(err, 0, "package.json line %d: %s", je.line, je.text[0] ? je.text : "not an object");
	}
	return 0;
}

static int read_files(struct making *m, struct requirements *files, struct err *err)
{
	for (size_t i = 0; i < NPM_FILES; i++) {
		cleanup_buf struct buf text = BUF_INIT;
		if (!m->tree->has(m->tree->ctx, npm_files[i], false))
			continue;
		if (m->tree->read(m->tree->ctx, npm_files[i], 16 << 20, &text, err) < 0)
			return err_prefix(err, "%s", npm_files[i]);
		files->files = xreallocarray(files->files, files->n + 1, sizeof *files->files);
		struct req_file *f = &files->files[files->n++];
		f->path = xstrdup(npm_files[i]);
		f->text = buf_steal(&text, &f->len);
	}
	return 0;
}

static int node_layer(struct making *m, const json_t *package, struct requirements *files, bool with_dev,
		      struct err *err)
{
	struct layer_hash h;
	bool locked = false;

	if (read_files(m, files, err) < 0)
		return -1;
	layer_hash_init(&h, "node");
	layer_hash_adds(&h, "base", m->tools->base);
	layer_hash_adds(&h, "below", m->out->nlayers ? m->out->layers[m->out->nlayers - 1].key : "");
	layer_hash_adds(&h, "stamp", m->tools->node_stamp);
	layer_hash_adds(&h, "dev", with_dev ? "1" : "0");
	for (size_t i = 0; i < files->n; i++) {
		locked |= strcmp(files->files[i].path, "package-lock.json") == 0 ||
			  strcmp(files->files[i].path, "npm-shrinkwrap.json") == 0;
		layer_hash_adds(&h, "path", files->files[i].path);
		layer_hash_add(&h, "text", files->files[i].text, files->files[i].len);
	}
	struct layer_plan *l = recipe_layer(m, "node", "dependencies");
	if (needs_tree(package)) {
		recipe_note(m, "package.json runs scripts at install: dependencies are installed for each commit");
		if (recipe_tree_key(m, &h, err) < 0)
			return -1;
	} else {
		struct step *s = recipe_step(l, "dependencies");
		s->input_kind = INPUT_BYTES;
		recipe_tar(files->files, files->n, "", &s->input);
		s->argv = argv_of("tar", "-x", "-C", "/app", "--no-same-owner", "--warning=no-unknown-keyword", NULL);
	}
	struct step *s = recipe_step(l, "dependencies");
	s->argv = argv_of("npm", locked ? "ci" : "install", NULL);
	s->argv = argv_add(s->argv, with_dev ? "--include=dev" : "--omit=dev");
	if (locked) {
		s->fallback = argv_of("npm", "install", with_dev ? "--include=dev" : "--omit=dev", NULL);
		s->fallback_on = stale_lock;
		s->fallback_note = "The lock file does not fit package.json: installing without it (npm install)";
	}
	s->internet = true;
	s->show = true;
	s = recipe_step(l, "dependencies");
	s->argv = argv_of("rm", "-rf", "/var/tmp/npm", NULL);
	layer_hash_final(&h, l->key);
	return 0;
}

static int with_package(struct making *m, bool with_dev, bool *builds, struct err *err)
{
	struct requirements files = {0};
	json_t *package = NULL;
	int rc;

	if (!m->tree->has(m->tree->ctx, "package.json", false))
		return 0;
	if (!m->tools->npm || !m->tools->node)
		return err_text(
		    err, 0, "package.json needs node and npm, which are not on this machine: install nodejs and npm");
	if (read_package(m, &package, err) < 0)
		return -1;
	*builds = has_script(package, "build");
	rc = node_layer(m, package, &files, with_dev || *builds, err);
	requirements_release(&files);
	json_decref(package);
	return rc;
}

int recipe_add_node(struct making *m, bool with_dev, struct err *err)
{
	bool builds = false;

	return with_package(m, with_dev, &builds, err);
}

int recipe_node(struct making *m, struct err *err)
{
	bool builds = false;

	if (recipe_add_packages(m, err) < 0 || with_package(m, false, &builds, err) < 0)
		return -1;
	struct layer_plan *l = recipe_add_source(m);
	if (builds) {
		struct step *s = recipe_step(l, "build");
		s->argv = argv_of("npm", "run", "build", NULL);
		s->internet = true;
		s->show = true;
	}
	m->out->argv = argv_of("npm", "start", NULL);
	m->out->port = 7860;
	return 0;
}
