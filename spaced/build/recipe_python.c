/* sdk: gradio, sdk: streamlit, and Python without a header. One virtual environment at /opt/venv, made by uv or venv+pip,
 * as a layer of its own whose key is what went in.
 * The lines are Hugging Face's own (reference: build logs of 2026). */
#include "spaced/build/recipe.h"

#include <string.h>

#include "base/cleanup.h"

/* pip: "ResolutionImpossible"; uv: "No solution found when resolving dependencies". */
static const char *const conflict[] = {"ResolutionImpossible", "No solution found", "conflicting dependencies", NULL};

static bool has_python(const struct tools *t, const char *version)
{
	for (size_t i = 0; i < t->pythons.n; i++)
		if (strcmp(t->pythons.v[i], version) == 0)
			return true;
	return false;
}

/* "3.11.4" -> "3.11": what is installed per machine. */
static void minor_of(const char *version, char *out, size_t size)
{
	const char *dot = strchr(version, '.');
	const char *second = dot ? strchr(dot + 1, '.') : NULL;

	snprintf(out, size, "%.*s", second ? (int)(second - version) : (int)strlen(version), version);
}

/* Which Python: the version asked for, else the machine's. `fetch`: uv has to get it. */
static int choose_python(struct making *m, char *out, size_t size, bool *fetch, struct err *err)
{
	const struct tools *t = m->tools;
	cleanup_buf struct buf found = BUF_INIT;

	*fetch = false;
	if (!m->card->python_version) {
		snprintf(out, size, "%s", t->python);
		return *t->python
			   ? 0
			   : err_text(err, 0, "There is no Python on this machine: install python3 and python3-venv");
	}
	minor_of(m->card->python_version, out, size);
	if (has_python(t, out)) {
		if (strcmp(out, m->card->python_version) != 0)
			recipe_note(m, "python_version %s: using Python %s of this machine", m->card->python_version,
				    out);
		return 0;
	}
	if (t->uv) {
		*fetch = true;
		snprintf(out, size, "%s", m->card->python_version);
		return 0;
	}
	for (size_t i = 0; i < t->pythons.n; i++)
		buf_addf(&found, "%s%s", i ? ", " : "", t->pythons.v[i]);
	return err_text(
	    err, 0,
	    "Python %s is not on this machine (found: %s): set `python_version: \"%s\"` in README.md or install it",
	    out, found.len ? found.data : "none", *t->python ? t->python : "3.11");
}

static char **pip(const struct tools *t)
{
	if (t->uv)
		return argv_of("uv", "pip", "install", "--python", "/opt/venv/bin/python", NULL);
	return argv_of("pip", "install", NULL);
}

static void venv_step(struct making *m, struct layer_plan *l, const char *version, bool with_pip, bool fetch)
{
	struct step *s = recipe_step(l, "dependencies");
	cleanup_free char *python = xasprintf("python%s", version);

	s->internet = fetch || (m->tools->uv && with_pip);
	if (m->tools->uv) {
		s->argv = argv_of("uv", "venv", "--quiet", "--allow-existing", "--python", version, NULL);
		if (with_pip) /* apps call `python -m pip` and import setuptools */
			s->argv = argv_add(s->argv, "--seed");
	} else {
		s->argv = argv_of(python, "-m", "venv", NULL);
		if (!with_pip)
			s->argv = argv_add(s->argv, "--without-pip");
	}
	s->argv = argv_add(s->argv, "/opt/venv");
}

static struct step *install_step(struct layer_plan *l, bool whole_tree)
{
	struct step *s = recipe_step(l, "dependencies");

	s->internet = true;
	s->show = true;
	if (!whole_tree) {
		free(s->cwd);
		s->cwd = xstrdup("/opt/venv/requirements");
	}
	return s;
}

static char **add_all(char **argv, const char *const *more)
{
	for (size_t i = 0; more && more[i]; i++)
		argv = argv_add(argv, more[i]);
	return argv;
}

static void main_install(struct making *m, struct layer_plan *l, bool whole_tree, const char *const *extra,
			 const char *const *plain)
{
	bool file = m->tree->has(m->tree->ctx, "requirements.txt", false);
	struct step *s;

	if (!file && !extra)
		return;
	s = install_step(l, whole_tree);
	if (!whole_tree && !file) {
		free(s->cwd);
		s->cwd = xstrdup("/opt/venv");
	}
	s->argv = pip(m->tools);
	if (file)
		s->argv = add_all(s->argv, (const char *const[]){"-r", "requirements.txt", NULL});
	s->argv = add_all(s->argv, extra);
	if (plain && file) {
		s->fallback = add_all(pip(m->tools), (const char *const[]){"-r", "requirements.txt", NULL});
		s->fallback = add_all(s->fallback, plain);
		s->fallback_on = conflict;
		s->fallback_note = "requirements.txt conflicts with the extras of the SDK: trying without them";
	}
}

static int python_layer(struct making *m, struct requirements *reqs, const char *const *extra, const char *const *plain,
			struct err *err)
{
	char version[32];
	bool fetch;
	struct layer_hash h;

	if (requirements_read(m->tree, "pre-requirements.txt", reqs, err) < 0)
		return -1;
	bool pre = reqs->n > 0;
	if (requirements_read(m->tree, "requirements.txt", reqs, err) < 0 ||
	    choose_python(m, version, sizeof version, &fetch, err) < 0)
		return -1;
	layer_hash_init(&h, "python");
	layer_hash_adds(&h, "base", m->tools->base);
	layer_hash_adds(&h, "below", m->out->nlayers ? m->out->layers[0].key : "");
	layer_hash_adds(&h, "python", version);
	layer_hash_adds(&h, "stamp", fetch ? "" : m->tools->python_stamp);
	layer_hash_adds(&h, "tool", m->tools->uv ? "uv" : "pip");
	for (size_t i = 0; extra && extra[i]; i++)
		layer_hash_adds(&h, "extra", extra[i]);
	for (size_t i = 0; i < reqs->n; i++) {
		layer_hash_adds(&h, "path", reqs->files[i].path);
		layer_hash_add(&h, "text", reqs->files[i].text, reqs->files[i].len);
	}
	struct layer_plan *l = recipe_layer(m, "deps", "dependencies");
	venv_step(m, l, version, reqs->n || extra, fetch);
	if (reqs->local) {
		recipe_note(
		    m, "requirements.txt takes in code of the repository: dependencies are installed for each commit");
		if (recipe_tree_key(m, &h, err) < 0)
			return -1;
	} else if (reqs->n) {
		struct step *s = recipe_step(l, "dependencies");
		s->input_kind = INPUT_BYTES;
		recipe_tar(reqs->files, reqs->n, "requirements/", &s->input);
		s->argv =
		    argv_of("tar", "-x", "-C", "/opt/venv", "--no-same-owner", "--warning=no-unknown-keyword", NULL);
	}
	if (pre) {
		struct step *s = install_step(l, reqs->local);
		s->argv = add_all(pip(m->tools), (const char *const[]){"-r", "pre-requirements.txt", NULL});
	}
	main_install(m, l, reqs->local, extra, plain);
	layer_hash_final(&h, l->key);
	return 0;
}

int recipe_add_python(struct making *m, const char *const *extra, const char *const *plain, struct err *err)
{
	struct requirements reqs = {0};
	int rc = python_layer(m, &reqs, extra, plain, err);

	requirements_release(&reqs);
	return rc;
}

static void run_python(struct making *m)
{
	cleanup_free char *file = recipe_file_arg(m->verdict->app_file);

	m->out->argv = argv_of("python", file, NULL);
	m->out->port = 7860;
}

int recipe_gradio(struct making *m, struct err *err)
{
	const char *v = m->card->sdk_version;
	cleanup_free char *full = v ? xasprintf("gradio[oauth,mcp]==%s", v) : xstrdup("gradio[oauth,mcp]");
	cleanup_free char *bare = v ? xasprintf("gradio==%s", v) : xstrdup("gradio");
	const char *const extra[] = {full, "uvicorn>=0.14.0", "websockets>=10.4", "spaces", NULL};
	const char *const plain[] = {bare, NULL};

	if (recipe_add_packages(m, err) < 0 || recipe_add_python(m, extra, plain, err) < 0)
		return -1;
	recipe_add_source(m);
	run_python(m);
	return 0;
}

int recipe_streamlit(struct making *m, struct err *err)
{
	const char *v = m->card->sdk_version;
	cleanup_free char *package = v ? xasprintf("streamlit==%s", v) : xstrdup("streamlit");
	const char *const extra[] = {package, NULL};
	cleanup_free char *file = recipe_file_arg(m->verdict->app_file);

	if (recipe_add_packages(m, err) < 0 || recipe_add_python(m, extra, NULL, err) < 0)
		return -1;
	recipe_add_source(m);
	/* XSRF protection and CORS are off as on Hugging Face: the page frames the app from another origin */
	m->out->argv = argv_of("streamlit", "run", file, "--server.port", "8501", "--server.address", "0.0.0.0",
			       "--server.headless", "true", "--server.enableXsrfProtection", "false",
			       "--server.enableCORS", "false", "--browser.gatherUsageStats", "false", NULL);
	m->out->port = 8501;
	return 0;
}

int recipe_python(struct making *m, struct err *err)
{
	if (recipe_add_packages(m, err) < 0 || recipe_add_python(m, NULL, NULL, err) < 0)
		return -1;
	recipe_add_source(m);
	run_python(m);
	return 0;
}

/* `web:` runs through a shell: the line is the author's own command, inside the author's own sandbox. */
int recipe_procfile(struct making *m, struct err *err)
{
	bool node = m->tree->has(m->tree->ctx, "package.json", false);
	bool python = !node || m->tree->has(m->tree->ctx, "requirements.txt", false);

	if (recipe_add_packages(m, err) < 0)
		return -1;
	if (python && *m->tools->python && recipe_add_python(m, NULL, NULL, err) < 0)
		return -1;
	if (node && recipe_add_node(m, false, err) < 0)
		return -1;
	recipe_add_source(m);
	m->out->argv = argv_of("sh", "-c", m->verdict->command, NULL);
	m->out->port = 7860;
	return 0;
}
